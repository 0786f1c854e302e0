#include "worker/train/model/sync_batch_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

namespace vicreg::train {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr double kMomentum = 0.1;

// All dimensions but the channels (1).
std::vector<int64_t> RowDims(const at::Tensor& x) {
  std::vector<int64_t> dims = {0};
  for (int64_t i = 2; i < x.dim(); ++i) dims.push_back(i);
  return dims;
}

// [C] broadcast against x.
at::Tensor PerChannel(const at::Tensor& values, const at::Tensor& x) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[1] = x.size(1);
  return values.to(x.scalar_type()).view(shape);
}

struct Statistics {
  at::Tensor mean, variance;  // [V, C] fp64, variance biased
  double count = 0;           // values per channel and view, all ranks
};

// One all-gather of (count, mean, M2) for all views, merged in rank order.
Statistics GlobalStatistics(const std::vector<at::Tensor>& views, Group& group) {
  const int64_t v = static_cast<int64_t>(views.size()), c = views[0].size(1);
  const auto options = views[0].options().dtype(at::kDouble);
  const double own = static_cast<double>(views[0].numel() / std::max<int64_t>(c, 1));
  at::Tensor record = at::zeros({1 + 2 * v * c}, options);
  record[0].fill_(own);
  at::Tensor own_mean = record.narrow(0, 1, v * c).view({v, c}),
             own_m2 = record.narrow(0, 1 + v * c, v * c).view({v, c});
  for (int64_t i = 0; i < v && own > 0; ++i) {
    const auto [variance, mean] = at::var_mean(views[static_cast<size_t>(i)], RowDims(views[0]), /*correction=*/0);
    own_mean[i].copy_(mean);
    own_m2[i].copy_(variance).mul_(own);
  }
  const at::Tensor all = group.AllGather(record);
  Statistics out{at::zeros({v, c}, options), at::zeros({v, c}, options), 0};
  for (int64_t r = 0; r < group.size(); ++r) {
    const double n = all[r][0].item<double>();
    if (n == 0) continue;
    const at::Tensor delta = all[r].narrow(0, 1, v * c).view({v, c}) - out.mean;
    const double total = out.count + n;
    out.mean = out.mean + delta * (n / total);
    out.variance =
        out.variance + all[r].narrow(0, 1 + v * c, v * c).view({v, c}) + delta.square() * (out.count * n / total);
    out.count = total;
  }
  out.variance = out.variance / out.count;
  return out;
}

struct Normalise : torch::autograd::Function<Normalise> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, const Statistics& statistics, int64_t views, Group* group) {
    const at::Tensor invstd = (statistics.variance + kEpsilon).rsqrt();
    std::vector<at::Tensor> out;
    const auto parts = x.chunk(views);
    for (int64_t i = 0; i < views; ++i) {
      const at::Tensor scale = invstd[i] * weight, shift = bias - statistics.mean[i] * scale;
      out.push_back(at::addcmul(PerChannel(shift, x), parts[static_cast<size_t>(i)], PerChannel(scale, x)));
    }
    context->save_for_backward({x, weight, statistics.mean, invstd});
    context->saved_data["count"] = statistics.count;
    context->saved_data["views"] = views;
    context->saved_data["group"] = reinterpret_cast<int64_t>(group);
    return at::cat(out);
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list above) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &invstd = saved[3];
    const int64_t views = context->saved_data["views"].toInt(), c = x.size(1);
    const double count = context->saved_data["count"].toDouble();
    // Outlives the graph: the trainer owns it.
    Group& group = *reinterpret_cast<Group*>(context->saved_data["group"].toInt());
    const at::Tensor dy = above[0].contiguous();
    const auto xs = x.chunk(views), dys = dy.chunk(views);
    at::Tensor sums = at::zeros({2, views, c}, mean.options());  // own sum of dy, and of dy * xhat
    for (int64_t i = 0; i < views && x.size(0) > 0; ++i) {
      const auto& dyi = dys[static_cast<size_t>(i)];
      const auto& xi = xs[static_cast<size_t>(i)];
      sums[0][i].copy_(dyi.sum(RowDims(x)));
      const at::Tensor xhat = (xi - PerChannel(mean[i], x)) * PerChannel(invstd[i], x);
      sums[1][i].copy_((dyi * xhat).sum(RowDims(x)));
    }
    // Own rows only: the reducer adds the other ranks'.
    const at::Tensor grad_bias = sums[0].sum(0).to(weight.scalar_type()),
                     grad_weight = sums[1].sum(0).to(weight.scalar_type());
    const at::Tensor total = group.AllGather(sums).sum(0);
    std::vector<at::Tensor> dx;
    for (int64_t i = 0; i < views; ++i) {
      // dx = w*invstd * (dy - mean(dy) - xhat * mean(dy*xhat)), written as a*dy + b*x + c per channel
      const at::Tensor a = invstd[i] * weight;
      const at::Tensor b = -a * invstd[i] * total[1][i] / count;
      const at::Tensor shift = -a * total[0][i] / count - b * mean[i];
      at::Tensor part = at::addcmul(PerChannel(shift, x), dys[static_cast<size_t>(i)], PerChannel(a, x));
      dx.push_back(part.addcmul_(xs[static_cast<size_t>(i)], PerChannel(b, x)));
    }
    return {at::cat(dx), grad_weight, grad_bias, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

SyncBatchNorm::SyncBatchNorm(Parameters& parameters, const std::string& name, int64_t channels, double initial_weight)
    : weight_(parameters.Constant(name + ".weight", {channels}, initial_weight)),
      bias_(parameters.Constant(name + ".bias", {channels}, 0)),
      running_mean_(parameters.Buffer(name + ".running_mean", {channels}, 0)),
      running_var_(parameters.Buffer(name + ".running_var", {channels}, 1)),
      batches_(parameters.Counter(name + ".num_batches_tracked")) {}

at::Tensor SyncBatchNorm::Forward(const at::Tensor& x, int views, Group& group) {
  Statistics statistics;
  {
    const at::NoGradGuard no_grad;
    statistics = GlobalStatistics(x.detach().chunk(views), group);
    const double unbiased = statistics.count / std::max(statistics.count - 1, 1.0);
    for (int i = 0; i < views; ++i) {
      running_mean_.lerp_(statistics.mean[i].to(running_mean_.scalar_type()), kMomentum);
      running_var_.lerp_((statistics.variance[i] * unbiased).to(running_var_.scalar_type()), kMomentum);
      batches_.add_(1);
    }
  }
  return Normalise::apply(x, weight_, bias_, statistics, static_cast<int64_t>(views), &group);
}

at::Tensor SyncBatchNorm::Evaluate(const at::Tensor& x) const {
  const at::NoGradGuard no_grad;
  const at::Tensor scale = weight_ * (running_var_ + kEpsilon).rsqrt();
  return at::addcmul(PerChannel(bias_ - running_mean_ * scale, x), x, PerChannel(scale, x));
}

at::Tensor Standardise(const at::Tensor& x, int views, Group& group) {
  Statistics statistics;
  {
    const at::NoGradGuard no_grad;
    statistics = GlobalStatistics(x.detach().chunk(views), group);
  }
  const at::Tensor one = at::ones({x.size(1)}, x.options().requires_grad(false)), zero = at::zeros_like(one);
  return Normalise::apply(x, one, zero, statistics, static_cast<int64_t>(views), &group);
}

}  // namespace vicreg::train
