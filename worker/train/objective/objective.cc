#include "worker/train/objective/objective.h"

#include <ATen/ATen.h>

#include <stdexcept>

#include "worker/train/objective/barlow_twins.h"
#include "worker/train/objective/cosine.h"
#include "worker/train/objective/vicreg.h"

namespace vicreg::train {
namespace {

class Vicreg : public Objective {
 public:
  explicit Vicreg(const recipe::Recipe& recipe) : weights_{recipe.loss.lambda_, {}}, form_(recipe.loss.form) {
    for (const recipe::Branch& view : recipe::Views(recipe)) weights_.views.push_back({view.mu, view.nu});
  }
  LossResult Loss(const Embedded& batch, Group& group, double grad_scale) const override {
    return VicregLoss(batch.embeddings, weights_, form_, group, grad_scale);
  }

 private:
  VicregWeights weights_;
  const recipe::LossForm form_;
};

// VICReg's variance and covariance terms on the embeddings of another objective (VICReg paper, section 5 and table 4):
// its loss with an invariance of weight 0. Without weights it measures.
class Regularisation {
 public:
  explicit Regularisation(const recipe::Loss& loss) : terms_(loss.regularize), form_(loss.form) {}

  bool on() const { return terms_.variance != 0 || terms_.covariance != 0; }

  LossResult Loss(const std::vector<at::Tensor>& embeddings, Group& group, double grad_scale) const {
    std::vector<at::Tensor> views;
    for (const at::Tensor& z : embeddings) {
      const at::Tensor seen = on() ? z : z.detach();
      views.push_back(on() && terms_.on == recipe::RegularizeOn::kRaw ? seen : Directions(seen));
    }
    const VicregWeights weights{0, std::vector<ViewWeights>(views.size(), {terms_.variance, terms_.covariance})};
    return VicregLoss(views, weights, form_, group, grad_scale);
  }

 private:
  const recipe::Regularize terms_;
  const recipe::LossForm form_;
};

// The weighted terms add up to the loss.
void AddUp(LossTerms& terms) {
  terms.loss = terms.invariance_weighted + terms.variance_weighted + terms.covariance_weighted;
  terms.nonfinite_term = NonfiniteTerm(terms);
}

class BarlowTwins : public Objective {
 public:
  explicit BarlowTwins(const recipe::Loss& loss)
      : redundancy_(loss.redundancy), form_(loss.form), regularisation_(loss) {}

  LossResult Loss(const Embedded& batch, Group& group, double grad_scale) const override {
    LossResult result = BarlowTwinsLoss(batch.embeddings, redundancy_, form_, group, grad_scale);
    if (!regularisation_.on()) return result;
    const LossResult beside = regularisation_.Loss(batch.embeddings, group, grad_scale);
    result.loss = result.loss + beside.loss;
    LossTerms& terms = result.terms;
    terms.variance = beside.terms.variance;
    terms.variance_weighted = beside.terms.variance_weighted;
    terms.covariance += beside.terms.covariance;
    terms.covariance_weighted += beside.terms.covariance_weighted;
    terms.z_std_mean = beside.terms.z_std_mean;
    terms.z_std_min = beside.terms.z_std_min;
    terms.z_std_below = beside.terms.z_std_below;
    AddUp(terms);
    return result;
  }

 private:
  const double redundancy_;
  const recipe::LossForm form_;
  const Regularisation regularisation_;
};

// SimSiam and BYOL: a constant and a multiple of the negative cosine.
class Cosine : public Objective {
 public:
  Cosine(const recipe::Loss& loss, double constant, double factor)
      : constant_(constant), factor_(factor), regularisation_(loss) {}

  LossResult Loss(const Embedded& batch, Group& group, double grad_scale) const override {
    const auto& predictions = batch.predictions.empty() ? batch.embeddings : batch.predictions;
    // The cosine lets no gradient into its targets, so embeddings are held constant by being targets.
    const auto& targets = batch.targets.empty() ? batch.embeddings : batch.targets;
    const CosineResult compared = NegativeCosine(predictions, targets, group, grad_scale);
    LossResult result = regularisation_.Loss(batch.embeddings, group, grad_scale);
    const at::Tensor loss = compared.loss * factor_ + constant_;
    result.loss = regularisation_.on() ? loss + result.loss : loss;
    result.terms.invariance = result.terms.invariance_weighted = constant_ - factor_ * compared.cosine;
    AddUp(result.terms);
    return result;
  }

 private:
  const double constant_, factor_;
  const Regularisation regularisation_;
};

}  // namespace

std::unique_ptr<Objective> MakeObjective(const recipe::Recipe& recipe) {
  switch (recipe.loss.objective) {
    case recipe::Objective::kVicreg:
      return std::make_unique<Vicreg>(recipe);
    case recipe::Objective::kBarlowTwins:
      return std::make_unique<BarlowTwins>(recipe.loss);
    case recipe::Objective::kSimSiam:
      return std::make_unique<Cosine>(recipe.loss, 0, 1);
    case recipe::Objective::kByol:
      return std::make_unique<Cosine>(recipe.loss, 4, 4);
  }
  throw std::invalid_argument("the recipe names an objective that has no maker");
}

}  // namespace vicreg::train
