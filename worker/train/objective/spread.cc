#include "worker/train/objective/spread.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace vicreg::train {

std::string NonfiniteTerm(const LossTerms& terms) {
  return !std::isfinite(terms.invariance)   ? "invariance"
         : !std::isfinite(terms.variance)   ? "variance"
         : !std::isfinite(terms.covariance) ? "covariance"
                                            : "";
}

at::Tensor Deviations(const at::Tensor& variance) { return (variance + kSpreadEpsilon).sqrt(); }

std::vector<Spread> Spreads(const at::Tensor& variance) {
  const at::Tensor s = Deviations(variance);
  const at::Tensor numbers =
      at::stack({(kGamma - s).clamp_min(0).mean(1), s.mean(1), s.amin(1), (s < kGamma).to(at::kDouble).mean(1),
                 variance.sum(1), variance.square().sum(1)},
                1)
          .cpu();
  const auto number = numbers.accessor<double, 2>();
  std::vector<Spread> views;
  for (std::int64_t k = 0; k < variance.size(0); ++k) {
    views.push_back({number[k][0], number[k][1], number[k][2], number[k][3], number[k][4], number[k][5]});
    // The hinge of an infinite spread is 0; the term must not hide it.
    if (!std::isfinite(views.back().std_mean)) views.back().hinge = views.back().std_mean;
  }
  return views;
}

void ReportSpread(const std::vector<Spread>& views, LossTerms& terms) {
  terms.z_std_mean = views[0].std_mean;
  terms.z_std_min = views[0].std_min;
  terms.z_std_below = views[0].std_below;
  for (const Spread& view : views) {
    terms.z_std_mean = std::min(terms.z_std_mean, view.std_mean);
    terms.z_std_min = std::min(terms.z_std_min, view.std_min);
    terms.z_std_below = std::max(terms.z_std_below, view.std_below);
  }
}

}  // namespace vicreg::train
