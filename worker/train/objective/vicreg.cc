#include "worker/train/objective/vicreg.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace vicreg::train {
namespace {

constexpr double kEpsilon = 1e-4;  // inside the root
constexpr double kGamma = 1;
constexpr int64_t kBlockRows = 1024;  // of gathered rows: bounds the Gram block to n_r x 1024

// Statistics of one view over the global batch, fp64.
struct Moments {
  int64_t rows = 0;
  at::Tensor mean, variance;  // [D]; variance is unbiased
};

struct LocalMoments {
  at::Tensor mean, m2;
};

LocalMoments Local(const at::Tensor& z) {
  const at::Tensor wide = z.to(at::kDouble);
  if (z.size(0) == 0) return {at::zeros({z.size(1)}, wide.options()), at::zeros({z.size(1)}, wide.options())};
  at::Tensor mean = wide.mean(0);
  return {mean, (wide - mean).square().sum(0)};
}

// One all-gather for both views; merged in rank order.
std::pair<Moments, Moments> GlobalMoments(const at::Tensor& x, const at::Tensor& y, Group& group) {
  const LocalMoments lx = Local(x), ly = Local(y);
  const at::Tensor rows = at::full({1}, static_cast<double>(x.size(0)), lx.mean.options());
  const at::Tensor all = group.AllGather(at::cat({rows, lx.mean, lx.m2, ly.mean, ly.m2}));
  const int64_t d = x.size(1);
  Moments views[2];
  for (int view = 0; view < 2; ++view) {
    double k = 0;
    at::Tensor mean = at::zeros({d}, all.options()), m2 = at::zeros({d}, all.options());
    for (int64_t r = 0; r < group.size(); ++r) {
      const double n = all[r][0].item<double>();
      if (n == 0) continue;
      const at::Tensor delta = all[r].narrow(0, 1 + 2 * view * d, d) - mean;
      const double t = k + n;
      mean = mean + delta * (n / t);
      m2 = m2 + all[r].narrow(0, 1 + (2 * view + 1) * d, d) + delta.square() * (k * n / t);
      k = t;
    }
    views[view] = {static_cast<int64_t>(k), mean, m2 / std::max(k - 1, 1.0)};
  }
  return {views[0], views[1]};
}

// sum_r S_r and alpha * G Zc for one view's own rows, from the gathered centred rows [M, D] (zero rows add nothing).
double GramBlocks(const at::Tensor& own, const at::Tensor& gathered, double alpha, at::Tensor& gradient) {
  double sum_of_squares = 0;
  for (int64_t start = 0; start < gathered.size(0) && own.size(0) > 0; start += kBlockRows) {
    const at::Tensor block = gathered.narrow(0, start, std::min(kBlockRows, gathered.size(0) - start));
    const at::Tensor g = own.mm(block.t());
    sum_of_squares += g.square().sum(at::kDouble).item<double>();
    gradient.addmm_(g, block, /*beta=*/1, alpha);
  }
  return sum_of_squares;
}

// Carries gradients computed in forward: dL/dX and dL/dY times whatever comes from above.
struct KnownGradient : torch::autograd::Function<KnownGradient> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& y, const at::Tensor& gx,
                            const at::Tensor& gy, double value) {
    context->save_for_backward({gx, gy});
    (void)y;
    return at::full({}, value, x.options());
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context, torch::autograd::tensor_list above) {
    if (at::GradMode::is_enabled()) throw std::logic_error("the VICReg loss has no second derivative");
    const auto saved = context->get_saved_variables();
    return {saved[0] * above[0], saved[1] * above[0], at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct ViewValues {
  double variance = 0, std_mean = 0, std_min = 0, std_below = 0, sum_v = 0, sum_v2 = 0;
};

ViewValues Values(const Moments& m, const at::Tensor& s) {
  ViewValues values;
  values.variance = (kGamma - s).clamp_min(0).mean().item<double>();
  // clamp drops NaN on some paths; the spread itself must not hide it
  if (!std::isfinite(s.sum().item<double>())) values.variance = s.sum().item<double>();
  values.std_mean = s.mean().item<double>();
  values.std_min = s.min().item<double>();
  values.std_below = (s < kGamma).to(at::kDouble).mean().item<double>();
  values.sum_v = m.variance.sum().item<double>();
  values.sum_v2 = m.variance.square().sum().item<double>();
  return values;
}

}  // namespace

VicregResult VicregLoss(const at::Tensor& x_in, const at::Tensor& y_in, const VicregWeights& weights, recipe::LossForm form, Group& group,
                        double grad_scale) {
  if (x_in.dim() != 2 || x_in.sizes() != y_in.sizes() || x_in.scalar_type() != y_in.scalar_type() || x_in.size(1) == 0) {
    throw std::invalid_argument("VICReg needs two [rows, D] tensors of one shape and dtype, D >= 1");
  }
  at::Tensor gx, gy;
  VicregTerms terms;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor x = x_in.detach(), y = y_in.detach();
    const auto [mx, my] = GlobalMoments(x, y, group);
    const int64_t n = mx.rows, d = x.size(1), own_rows = x.size(0);
    if (n < 2) throw std::invalid_argument("VICReg needs at least 2 rows over all ranks; found " + std::to_string(n));
    const double rows = static_cast<double>(n), dims = static_cast<double>(d);
    const Moments moments[2] = {mx, my};
    const at::Tensor z[2] = {x, y};
    const at::Tensor difference = x - y;
    const bool gram = form == recipe::LossForm::kGram || (form == recipe::LossForm::kAuto && d > n);

    at::Tensor gradients[2], centred[2];
    ViewValues values[2];
    for (int view = 0; view < 2; ++view) {
      const at::Tensor s = (moments[view].variance + kEpsilon).sqrt();
      values[view] = Values(moments[view], s);
      centred[view] = z[view] - moments[view].mean.to(z[view].scalar_type());
      // Variance term, and what the Gram form subtracts: both are a factor per column of the centred rows.
      at::Tensor w = (s < kGamma).to(at::kDouble) / s * (-weights.mu_per_view / (dims * (rows - 1)));
      if (gram) w = w - moments[view].variance * (4 * weights.nu_per_view / (dims * (rows - 1)));
      gradients[view] = centred[view] * w.to(z[view].scalar_type());
      gradients[view].add_(difference, (view == 0 ? 1 : -1) * weights.lambda_ * 2 / (rows * dims));
    }

    double own_sums[3] = {difference.square().sum(at::kDouble).item<double>(), 0, 0};
    double covariance[2];
    if (gram) {
      at::Tensor counts = group.AllGather(at::full({1}, own_rows, at::TensorOptions().dtype(at::kLong)));
      const int64_t most = counts.max().item<int64_t>();
      at::Tensor padded = at::zeros({2, most, d}, x.options());
      for (int view = 0; view < 2; ++view) padded[view].narrow(0, 0, own_rows).copy_(centred[view]);
      const at::Tensor gathered = group.AllGather(padded);  // [W, 2, most, D]
      const double alpha = 4 * weights.nu_per_view / (dims * (rows - 1) * (rows - 1));
      for (int view = 0; view < 2; ++view) {
        own_sums[1 + view] = GramBlocks(centred[view], gathered.select(1, view).reshape({-1, d}), alpha, gradients[view]);
      }
    } else {
      at::Tensor c = at::stack({centred[0].t().mm(centred[0]), centred[1].t().mm(centred[1])});
      group.AllReduceSum(c);
      c.div_(rows - 1);
      for (int view = 0; view < 2; ++view) {
        c[view].fill_diagonal_(0);
        covariance[view] = c[view].square().sum(at::kDouble).item<double>() / dims;
        gradients[view].addmm_(centred[view], c[view], 1, 4 * weights.nu_per_view / (dims * (rows - 1)));
      }
    }
    // Added in rank order, so that every rank reports the same bits.
    const at::Tensor sums = group.AllGather(at::tensor({own_sums[0], own_sums[1], own_sums[2]}, at::kDouble));
    double total[3] = {0, 0, 0};
    for (int64_t r = 0; r < group.size(); ++r) {
      for (int i = 0; i < 3; ++i) total[i] += sums[r][i].item<double>();
    }
    if (gram) {
      for (int view = 0; view < 2; ++view) covariance[view] = (total[1 + view] / ((rows - 1) * (rows - 1)) - values[view].sum_v2) / dims;
    }

    terms.invariance = total[0] / (rows * dims);
    terms.variance = values[0].variance + values[1].variance;
    terms.covariance = covariance[0] + covariance[1];
    terms.invariance_weighted = weights.lambda_ * terms.invariance;
    terms.variance_weighted = weights.mu_per_view * terms.variance;
    terms.covariance_weighted = weights.nu_per_view * terms.covariance;
    terms.loss = terms.invariance_weighted + terms.variance_weighted + terms.covariance_weighted;
    terms.z_std_mean = std::min(values[0].std_mean, values[1].std_mean);
    terms.z_std_min = std::min(values[0].std_min, values[1].std_min);
    terms.z_std_below = std::max(values[0].std_below, values[1].std_below);
    for (const ViewValues& v : values) terms.covariance_noise_floor += (v.sum_v * v.sum_v - v.sum_v2) / (dims * (rows - 1));
    terms.mismatch = terms.invariance / std::max((values[0].sum_v + values[1].sum_v) / dims, 1e-300);
    terms.nonfinite_term = !std::isfinite(terms.invariance)   ? "invariance"
                           : !std::isfinite(terms.variance)   ? "variance"
                           : !std::isfinite(terms.covariance) ? "covariance"
                                                              : "";
    gx = gradients[0].mul_(grad_scale);
    gy = gradients[1].mul_(grad_scale);
  }
  return {KnownGradient::apply(x_in, y_in, gx, gy, terms.loss), terms};
}

}  // namespace vicreg::train
