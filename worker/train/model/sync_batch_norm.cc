#include "worker/train/model/sync_batch_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace vicreg::train {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr double kMomentum = 0.1;

struct Statistics {
  at::Tensor mean, variance;  // [V, C] fp64, variance biased
  at::Tensor count;           // [] fp64: values per channel and view, all ranks
};

// One all-gather of (count, mean, M2) for all views, merged alike on every rank: M2 = sum of M2_r + n_r (mean_r -
// mean)^2. Nothing here waits for a GPU.
Statistics GlobalStatistics(const at::Tensor& x, int64_t views, Group& group) {
  const int64_t c = x.size(1);
  const at::Tensor own = ChannelMoments(x, views);
  const double rows = static_cast<double>(x.numel() / std::max<int64_t>(views * c, 1));
  const at::Tensor all = group.AllGather(at::cat({at::full({1}, rows, own.options()), own.flatten()}));
  const int64_t w = all.size(0);
  const at::Tensor counts = all.narrow(1, 0, 1), moments = all.narrow(1, 1, 2 * views * c).view({w, 2, views, c});
  const at::Tensor means = moments.select(1, 0), share = (counts / counts.sum()).unsqueeze(2);  // [W, 1, 1]
  Statistics out{(means * share).sum(0), {}, counts.sum()};
  out.variance = moments.select(1, 1).sum(0) / out.count + ((means - out.mean).square() * share).sum(0);
  return out;
}

struct Normalise : torch::autograd::Function<Normalise> {
  // x with its channels innermost.
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, const Statistics& statistics, Activation activation, Group* group) {
    const at::Tensor invstd = (statistics.variance + kEpsilon).rsqrt();
    const at::Tensor scale = invstd * weight, shift = bias - statistics.mean * scale;
    context->save_for_backward({x, weight, statistics.mean, invstd, shift, statistics.count});
    context->saved_data["activation"] = static_cast<int64_t>(activation);
    context->saved_data["group"] = reinterpret_cast<int64_t>(group);
    return Apply({scale, shift, activation}, x);
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list above) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &invstd = saved[3], &shift = saved[4],
                     &count = saved[5];
    const ChannelAffine forward{invstd * weight, shift,
                                static_cast<Activation>(context->saved_data["activation"].toInt())};
    // Outlives the graph: the trainer owns it.
    Group& group = *reinterpret_cast<Group*>(context->saved_data["group"].toInt());
    const at::Tensor dy = ChannelsInnermost(above[0].to(x.scalar_type()));
    const at::Tensor own = GradientSums(dy, x, mean, forward);  // [2, V, C]: of g, and of g * (x - mean)
    // Own rows only: the reducer adds the other ranks'.
    const at::Tensor grad_bias = own[0].sum(0).to(weight.scalar_type()),
                     grad_weight = (own[1] * invstd).sum(0).to(weight.scalar_type());
    const at::Tensor total = group.AllGather(own).sum(0);
    // With xhat = (x - mean) * invstd and a = weight * invstd: dx = a * (g - mean(g) - xhat * mean(g * xhat))
    const at::Tensor& a = forward.scale;
    const ChannelGradient gradient{a, -a * invstd.square() * total[1] / count, -a * total[0] / count};
    return {InputGradient(gradient, dy, x, mean, forward),
            grad_weight,
            grad_bias,
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

SyncBatchNorm::SyncBatchNorm(Parameters& parameters, const std::string& name, int64_t channels, double initial_weight)
    : weight_(parameters.Constant(name + ".weight", {channels}, initial_weight)),
      bias_(parameters.Constant(name + ".bias", {channels}, 0)),
      running_mean_(parameters.Buffer(name + ".running_mean", {channels}, 0)),
      running_var_(parameters.Buffer(name + ".running_var", {channels}, 1)),
      batches_(parameters.Counter(name + ".num_batches_tracked")) {}

at::Tensor SyncBatchNorm::Forward(const at::Tensor& input, int views, Group& group, Activation activation) {
  const at::Tensor x = ChannelsInnermost(input);
  Statistics statistics;
  {
    const at::NoGradGuard no_grad;
    statistics = GlobalStatistics(x, views, group);
    const at::Tensor unbiased = statistics.variance * (statistics.count / (statistics.count - 1).clamp_min(1));
    for (int i = 0; i < views; ++i) {
      running_mean_.lerp_(statistics.mean[i].to(running_mean_.scalar_type()), kMomentum);
      running_var_.lerp_(unbiased[i].to(running_var_.scalar_type()), kMomentum);
    }
    batches_.add_(views);
  }
  return Normalise::apply(x, weight_, bias_, statistics, activation, &group);
}

at::Tensor SyncBatchNorm::Evaluate(const at::Tensor& x, Activation activation) const {
  const at::NoGradGuard no_grad;
  const at::Tensor scale = weight_ * (running_var_ + kEpsilon).rsqrt(), shift = bias_ - running_mean_ * scale;
  return Apply({scale.unsqueeze(0), shift.unsqueeze(0), activation}, ChannelsInnermost(x));
}

at::Tensor Standardise(const at::Tensor& input, int views, Group& group) {
  const at::Tensor x = ChannelsInnermost(input);
  Statistics statistics;
  {
    const at::NoGradGuard no_grad;
    statistics = GlobalStatistics(x, views, group);
  }
  const at::Tensor one = at::ones({x.size(1)}, x.options().requires_grad(false)), zero = at::zeros_like(one);
  return Normalise::apply(x, one, zero, statistics, Activation::kNone, &group);
}

}  // namespace vicreg::train
