#include "worker/train/objective/barlow_twins.h"

#include <ATen/ATen.h>

#include <stdexcept>

#include "worker/train/objective/cross_correlation.h"
#include "worker/train/objective/forward_scope.h"
#include "worker/train/objective/known_gradient.h"
#include "worker/train/objective/moments.h"
#include "worker/train/objective/spread.h"

namespace vicreg::train {
namespace {

constexpr double kEpsilon = 1e-5;  // batch norm's

void Check(const std::vector<at::Tensor>& views) {
  if (views.size() != 2)
    throw std::invalid_argument("Barlow Twins needs exactly 2 views; found " + std::to_string(views.size()));
  for (const at::Tensor& z : views) {
    if (z.dim() != 2 || z.sizes() != views[0].sizes() || z.scalar_type() != views[0].scalar_type() ||
        !z.is_floating_point() || z.size(1) == 0) {
      throw std::invalid_argument("Barlow Twins needs [rows, D] tensors of one shape and floating dtype, D >= 1");
    }
  }
}

// variance: [2, D] of the standardised views; h: the redundancy weight.
LossTerms Terms(const CrossCorrelation& k, double h, const at::Tensor& variance, double rows, double dims) {
  LossTerms terms;
  terms.invariance = terms.invariance_weighted = (1 - k.diagonal).square().sum().item<double>();
  terms.covariance = k.squares[0].sum().item<double>();
  terms.covariance_weighted = h * terms.covariance;
  const std::vector<Spread> spreads = Spreads(variance);
  ReportSpread(spreads, terms);
  for (const Spread& spread : spreads) terms.variance += spread.hinge;
  // Of independent columns E K_ij^2 is 1 / (N - 1).
  terms.covariance_noise_floor = dims * (dims - 1) / (rows - 1);
  terms.mismatch = 1 - k.diagonal.mean().item<double>();
  terms.redundancy = dims > 1 ? terms.covariance / (dims * (dims - 1)) : 0;
  terms.loss = terms.invariance_weighted + terms.covariance_weighted;
  terms.nonfinite_term = NonfiniteTerm(terms);
  return terms;
}

}  // namespace

LossResult BarlowTwinsLoss(const std::vector<at::Tensor>& inputs, double redundancy, recipe::LossForm form,
                           Group& group, double grad_scale) {
  Check(inputs);
  LossResult result;
  std::vector<at::Tensor> gradients;
  {
    const ForwardScope scope;
    const at::Tensor nothing = at::zeros({}, inputs[0].options().dtype(at::kDouble));
    const Moments moments = GatherMoments({inputs[0].detach(), inputs[1].detach()}, nothing, group);
    if (moments.rows < 2) {
      throw std::invalid_argument("Barlow Twins needs at least 2 rows over all ranks; found " +
                                  std::to_string(moments.rows));
    }
    const double n = static_cast<double>(moments.rows), d = static_cast<double>(inputs[0].size(1));
    const at::Tensor biased = moments.variance * ((n - 1) / n), s = (biased + kEpsilon).sqrt();
    const at::ScalarType type = moments.centred.scalar_type();
    at::Tensor standardised = moments.centred;
    standardised.div_(s.to(type));

    const bool gram =
        form == recipe::LossForm::kGram || (form == recipe::LossForm::kAuto && inputs[0].size(1) > moments.rows);
    CrossCorrelation k = gram ? CorrelateByGram(standardised, moments.rows, moments.most_rows, group)
                              : CorrelateByColumns(standardised, moments.rows, group);
    const at::Tensor u = -2 * (1 - k.diagonal);
    for (const int of : {0, 1}) {
      const at::Tensor own = standardised.select(1, of), other = standardised.select(1, 1 - of);
      const at::Tensor m = (2 * redundancy * k.squares[of] + u * k.diagonal) / n;
      at::Tensor g = k.products[of].mul_(2 * redundancy / n).addcmul_(other, (u / n).to(type));
      gradients.push_back(g.addcmul_(own, m.to(type), -1).mul_((grad_scale / s[of]).to(type)));
    }
    result.form = gram ? recipe::LossForm::kGram : recipe::LossForm::kCovariance;
    result.terms = Terms(k, redundancy, moments.variance / s.square(), n, d);
  }
  result.loss = WithKnownGradient(inputs, std::move(gradients), result.terms.loss);
  return result;
}

}  // namespace vicreg::train
