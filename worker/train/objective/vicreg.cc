#include "worker/train/objective/vicreg.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "worker/train/objective/covariance.h"
#include "worker/train/objective/forward_scope.h"
#include "worker/train/objective/gram.h"
#include "worker/train/objective/known_gradient.h"
#include "worker/train/objective/moments.h"
#include "worker/train/objective/spread.h"

namespace vicreg::train {
namespace {

void Check(const std::vector<at::Tensor>& views, const VicregWeights& weights) {
  if (views.size() < 2)
    throw std::invalid_argument("VICReg needs at least 2 views; found " + std::to_string(views.size()));
  if (weights.views.size() != views.size()) {
    throw std::invalid_argument("VICReg has weights for " + std::to_string(weights.views.size()) + " views; expected " +
                                std::to_string(views.size()));
  }
  for (const at::Tensor& z : views) {
    if (z.dim() != 2 || z.sizes() != views[0].sizes() || z.scalar_type() != views[0].scalar_type() ||
        !z.is_floating_point() || z.size(1) == 0) {
      throw std::invalid_argument("VICReg needs [rows, D] tensors of one shape and floating dtype, D >= 1");
    }
  }
}

// own_sum: sum over pairs of ||Z_k - Z_l||^2. gradients[k]: V Z_k - sum_l Z_l, to be scaled once N is known.
// Pair by pair, as the difference of two large numbers is exact where they are close; a mean of the views is not.
struct Invariance {
  at::Tensor own_sum;  // fp64
  std::vector<at::Tensor> gradients;
};

Invariance OwnInvariance(const std::vector<at::Tensor>& views) {
  const at::ScalarType type = views[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Invariance own{at::zeros({}, views[0].options().dtype(at::kDouble)), std::vector<at::Tensor>(views.size())};
  for (std::size_t k = 0; k < views.size(); ++k) {
    for (std::size_t l = k + 1; l < views.size(); ++l) {
      const at::Tensor difference = views[k].to(type) - views[l];
      own.own_sum.add_(SumOfSquares(difference));
      at::Tensor &of_k = own.gradients[k], &of_l = own.gradients[l];
      of_l = of_l.defined() ? of_l.sub_(difference) : difference.neg();
      of_k = of_k.defined() ? of_k.add_(difference) : difference;
    }
  }
  return own;
}

LossTerms Terms(double invariance, const std::vector<Spread>& spreads, const std::vector<double>& covariance,
                const VicregWeights& weights, double rows, double dims) {
  LossTerms terms;
  terms.invariance = invariance;
  terms.invariance_weighted = weights.lambda_ * invariance;
  ReportSpread(spreads, terms);
  double mean_v = 0;
  for (std::size_t k = 0; k < spreads.size(); ++k) {
    terms.variance += spreads[k].hinge;
    terms.covariance += covariance[k];
    terms.variance_weighted += weights.views[k].mu * spreads[k].hinge;
    terms.covariance_weighted += weights.views[k].nu * covariance[k];
    const double floor = spreads[k].NoiseFloor(rows, dims);
    terms.covariance_noise_floor += floor;
    if (floor > 0) terms.redundancy = std::max(terms.redundancy, covariance[k] / (floor * (rows - 1)));
    mean_v += spreads[k].sum_v / (dims * static_cast<double>(spreads.size()));
  }
  terms.mismatch = invariance / std::max(2 * mean_v, 1e-300);
  terms.loss = terms.invariance_weighted + terms.variance_weighted + terms.covariance_weighted;
  terms.nonfinite_term = NonfiniteTerm(terms);
  return terms;
}

}  // namespace

VicregWeights WeightsFor(recipe::Convention convention, double lambda, double mu, double nu, int views) {
  return {lambda,
          std::vector<ViewWeights>(static_cast<std::size_t>(views), recipe::WeightsPerView(convention, mu, nu, views))};
}

LossResult VicregLoss(const std::vector<at::Tensor>& inputs, const VicregWeights& weights, recipe::LossForm form,
                      Group& group, double grad_scale) {
  Check(inputs, weights);
  LossResult result;
  std::vector<at::Tensor> gradients;
  {
    const ForwardScope scope;
    std::vector<at::Tensor> views;
    for (const at::Tensor& z : inputs) views.push_back(z.detach());
    Invariance own = OwnInvariance(views);
    const Moments moments = GatherMoments(views, own.own_sum, group);
    if (moments.rows < 2)
      throw std::invalid_argument("VICReg needs at least 2 rows over all ranks; found " + std::to_string(moments.rows));

    const double rows = static_cast<double>(moments.rows), dims = static_cast<double>(views[0].size(1)),
                 v = static_cast<double>(views.size());
    const bool gram =
        form == recipe::LossForm::kGram || (form == recipe::LossForm::kAuto && views[0].size(1) > moments.rows);
    // The largest of what is sent; until Wait the invariance and variance terms are computed.
    std::optional<Gathering> gathering;
    if (gram) gathering = StartGatherRows(moments.centred, moments.most_rows, group);

    const at::Tensor s = Deviations(moments.variance);
    // Invariance and variance terms; and what the Gram form subtracts, also a factor per column of the centred rows.
    std::vector<double> scale;
    for (std::size_t k = 0; k < views.size(); ++k) {
      const auto index = static_cast<std::int64_t>(k);
      const double of_covariance = grad_scale * 4 * weights.views[k].nu / (dims * (rows - 1));
      at::Tensor column =
          (s[index] < kGamma).to(at::kDouble) / s[index] * (-grad_scale * weights.views[k].mu / (dims * (rows - 1)));
      if (gram) column.sub_(moments.variance[index], of_covariance);
      own.gradients[k].mul_(grad_scale * weights.lambda_ * 4 / (v * (v - 1) * rows * dims));
      own.gradients[k].addcmul_(moments.centred.select(1, index), column.to(moments.centred.scalar_type()));
      scale.push_back(gram ? of_covariance / (rows - 1) : of_covariance);
    }
    gradients = std::move(own.gradients);

    std::vector<double> covariance;
    std::vector<Spread> spreads;
    if (gram) {
      Gathering shares = AddGramGradient(moments.centred, *gathering, scale, gradients, group);
      gathering.reset();
      spreads = Spreads(moments.variance);  // while the shares are under way
      covariance = SumInRankOrder(shares);
      for (std::size_t k = 0; k < views.size(); ++k)
        covariance[k] = (covariance[k] / ((rows - 1) * (rows - 1)) - spreads[k].sum_v2) / dims;
    } else {
      covariance = AddCovarianceGradient(moments.centred, moments.rows, scale, gradients, group);
      for (double& c : covariance) c /= dims;
      spreads = Spreads(moments.variance);
    }
    result.form = gram ? recipe::LossForm::kGram : recipe::LossForm::kCovariance;
    result.terms = Terms(2 * moments.own_sums / (v * (v - 1) * rows * dims), spreads, covariance, weights, rows, dims);
  }
  result.loss = WithKnownGradient(inputs, std::move(gradients), result.terms.loss);
  return result;
}

}  // namespace vicreg::train
