// What a job minimises, and with which parts beside the network.

#include <algorithm>
#include <tuple>

#include "common/recipe/recipe_json.h"
#include "common/recipe/resolver.h"

namespace vicreg::recipe {
namespace {

constexpr std::int64_t kWidest = 65536;  // of a predictor

recipe::Objective ObjectiveOf(v1::Objective objective) {
  switch (objective) {
    case v1::OBJECTIVE_BARLOW_TWINS:
      return recipe::Objective::kBarlowTwins;
    case v1::OBJECTIVE_SIMSIAM:
      return recipe::Objective::kSimSiam;
    case v1::OBJECTIVE_BYOL:
      return recipe::Objective::kByol;
    default:
      return recipe::Objective::kVicreg;
  }
}

bool Predicts(recipe::Objective objective) {
  return objective == recipe::Objective::kSimSiam || objective == recipe::Objective::kByol;
}

}  // namespace

// Published values: Barlow Twins' weight, SimSiam's bottleneck of 512 of 2048, BYOL's hidden width, and the factor that
// the VICReg paper's appendix C.4 trains BYOL with.
void Resolver::FillObjective() {
  v1::LossSpec& loss = *s().mutable_loss();
  if (loss.objective() == v1::OBJECTIVE_UNSPECIFIED) loss.set_objective(v1::OBJECTIVE_VICREG);
  if (loss.form() == v1::LOSS_FORM_UNSPECIFIED) loss.set_form(v1::LOSS_FORM_AUTO);
  const recipe::Objective objective = ObjectiveOf(loss.objective());
  if (objective == recipe::Objective::kVicreg) {
    if (loss.convention() == v1::CONVENTION_UNSPECIFIED)
      loss.set_convention(PerView() ? v1::CONVENTION_PER_VIEW : v1::CONVENTION_AUTHORS);
    if (!loss.has_lambda()) loss.set_lambda(25);
    if (loss.convention() == v1::CONVENTION_PER_VIEW) return;
    if (!loss.has_mu()) loss.set_mu(25);
    if (!loss.has_nu()) loss.set_nu(1);
    return;
  }
  if (objective == recipe::Objective::kBarlowTwins && !loss.has_redundancy()) loss.set_redundancy(0.0051);
  if (objective == recipe::Objective::kByol && !loss.has_momentum()) loss.set_momentum(0.99);
  if (const std::int64_t width = EmbeddingWidth(); Predicts(objective) && !loss.has_predictor() && width > 0) {
    loss.set_predictor(objective == recipe::Objective::kByol ? 4096 : std::max<std::int64_t>(width / 4, 1));
  }
  if (loss.has_regularize() && loss.regularize_on() == v1::REGULARIZE_ON_UNSPECIFIED)
    loss.set_regularize_on(v1::REGULARIZE_ON_RAW);
}

void Resolver::CheckWeight(const std::string& field, double value) {
  if (!(value >= 0 && value <= kMost)) Bad(field, "found " + Number(value) + "; expected a number from 0 to 1e12");
}

// A key that the objective does not read would be obeyed by nobody.
void Resolver::RefuseOthersKeys(recipe::Objective objective) {
  const v1::LossSpec& loss = s().loss();
  const bool vicreg = objective == recipe::Objective::kVicreg, barlow = objective == recipe::Objective::kBarlowTwins;
  const std::string name = Name(objective);
  const auto refuse = [&](bool has, const char* field, const std::string& why) {
    if (has) Bad(std::string("loss.") + field, name + " " + why);
  };
  const std::string coefficients =
      "has no such coefficient: remove the key; for variance and covariance terms beside it use loss.regularize";
  refuse(!vicreg && loss.convention() != v1::CONVENTION_UNSPECIFIED, "convention",
         "has no coefficients for a convention to weigh: remove the key");
  refuse(!vicreg && loss.has_lambda(), "lambda", coefficients);
  refuse(!vicreg && loss.has_mu(), "mu", coefficients);
  refuse(!vicreg && loss.has_nu(), "nu", coefficients);
  refuse(!vicreg && loss.per_view_size() > 0, "per_view", coefficients);
  for (int i = 0; i < s().branches_size(); ++i) {
    const std::string branch = "branches[" + std::to_string(i) + "].";
    if (!vicreg && s().branches(i).has_mu()) Bad(branch + "mu", name + " " + coefficients);
    if (!vicreg && s().branches(i).has_nu()) Bad(branch + "nu", name + " " + coefficients);
  }
  refuse(!barlow && loss.has_redundancy(), "redundancy",
         "has no redundancy term: remove the key, or use objective: barlow_twins");
  refuse(!Predicts(objective) && loss.has_predictor(), "predictor",
         "compares embeddings without a predictor: remove the key, or use objective: simsiam or byol");
  refuse(objective != recipe::Objective::kByol && loss.has_momentum(), "momentum",
         "has no moving average as its target: remove the key, or use objective: byol");
  refuse(vicreg && loss.has_regularize(), "regularize",
         "has variance and covariance terms already: remove the key, their weights are loss.mu and loss.nu");
  refuse(vicreg && loss.regularize_on() != v1::REGULARIZE_ON_UNSPECIFIED, "regularize_on",
         "looks at embeddings as they are: remove the key, or use embedding_norm");
  refuse(!vicreg && !loss.has_regularize() && loss.regularize_on() != v1::REGULARIZE_ON_UNSPECIFIED, "regularize_on",
         "is not regularised in this job: remove the key, or add loss.regularize");
}

void Resolver::Objective() {
  const v1::LossSpec& loss = s().loss();
  Loss& out_loss = out.recipe.loss;
  out_loss.objective = ObjectiveOf(loss.objective());
  out_loss.form = loss.form() == v1::LOSS_FORM_GRAM         ? LossForm::kGram
                  : loss.form() == v1::LOSS_FORM_COVARIANCE ? LossForm::kCovariance
                                                            : LossForm::kAuto;
  RefuseOthersKeys(out_loss.objective);
  CheckViews();
  switch (out_loss.objective) {
    case recipe::Objective::kVicreg:
      return VicregCoefficients();
    case recipe::Objective::kBarlowTwins:
      CheckWeight("loss.redundancy", loss.redundancy());
      out_loss.redundancy = loss.redundancy();
      break;
    case recipe::Objective::kByol:
      if (!(loss.momentum() >= 0 && loss.momentum() <= 1))
        Bad("loss.momentum", "found " + Number(loss.momentum()) + "; expected a factor, 0 to 1");
      out_loss.momentum = loss.momentum();
      [[fallthrough]];
    case recipe::Objective::kSimSiam:
      Range<std::int64_t>("loss.predictor", loss.predictor(), 0, kWidest);
      out_loss.predictor = loss.predictor();
  }
  Regularisation();
}

// The others compare one view with one other.
void Resolver::CheckViews() {
  const bool branches = s().branches_size() > 0;
  const std::int32_t views = branches ? s().branches_size() : s().views();
  const std::string field = branches ? "branches" : "views";
  if (!Range(field, views, 2, kMostViews)) return;
  if (!branches) out.recipe.views = views;
  const recipe::Objective objective = out.recipe.loss.objective;
  if (objective != recipe::Objective::kVicreg && views != 2) {
    Bad(field, "found " + std::to_string(views) + "; expected 2, for which alone " + Name(objective) +
                   " is defined: " + (branches ? "name two" : "remove the key") + ", or use objective: vicreg");
  }
}

// Whether the job gives the weights of each view as they are.
bool Resolver::PerView() const {
  return given_.loss().convention() == v1::CONVENTION_PER_VIEW || BranchesHaveWeights() ||
         (given_.loss().per_view_size() > 0 && given_.branches_size() == 0);
}

void Resolver::VicregCoefficients() {
  const v1::LossSpec& loss = s().loss();
  CheckWeight("loss.lambda", loss.lambda());
  Loss& out_loss = out.recipe.loss;
  out_loss.lambda_ = loss.lambda();
  if (s().branches_size() > 0 && loss.per_view_size() > 0)
    Bad("loss.per_view", "stands beside branches, which have mu and nu: remove the key");
  if (loss.convention() == v1::CONVENTION_PER_VIEW)
    return s().branches_size() > 0 ? WeightsOfEachBranch() : WeightsOfEachView();
  CheckWeight("loss.mu", loss.mu());
  CheckWeight("loss.nu", loss.nu());
  if (loss.per_view_size() > 0 && s().branches_size() == 0) {
    Bad("loss.per_view",
        "stands beside a convention that weighs all views alike; expected convention: per_view: write "
        "that, or remove the key");
  }
  if (BranchesHaveWeights()) {
    Bad("loss.convention",
        "weighs all views alike, and branches have mu and nu of their own: write convention: per_view, or remove the "
        "key or theirs");
  }
  // vicreg: the published code halves mu by averaging both views' hinge, the paper does not, VICRegL halves nu as
  // well.
  out_loss.convention = loss.convention() == v1::CONVENTION_PAPER     ? Convention::kPaper
                        : loss.convention() == v1::CONVENTION_VICREGL ? Convention::kVicregl
                                                                      : Convention::kAuthors;
  const bool branches = s().branches_size() > 0;
  const ViewWeights each =
      WeightsPerView(out_loss.convention, loss.mu(), loss.nu(), branches ? s().branches_size() : out.recipe.views);
  for (recipe::Branch& branch : out.recipe.branches) {
    branch.mu = each.mu;
    branch.nu = each.nu;
  }
  if (branches) return;
  out_loss.mu_per_view = each.mu;
  out_loss.nu_per_view = each.nu;
}

void Resolver::WeightsOfEachBranch() {
  const v1::LossSpec& loss = s().loss();
  out.recipe.loss.convention = Convention::kPerView;
  for (const auto& [has, key] : {std::pair{loss.has_mu(), "loss.mu"}, {loss.has_nu(), "loss.nu"}}) {
    if (has) Bad(key, "weighs all views alike, and branches have mu and nu of their own: remove the key");
  }
  for (int i = 0; i < s().branches_size(); ++i) {
    const v1::BranchSpec& branch = s().branches(i);
    const std::string field = "branches[" + std::to_string(i) + "].";
    for (const auto& [has, value, key] :
         {std::tuple{branch.has_mu(), branch.mu(), "mu"}, {branch.has_nu(), branch.nu(), "nu"}}) {
      if (has) {
        CheckWeight(field + key, value);
      } else {
        Bad(field + key, "missing; expected a number from 0 to 1e12, as each branch has with convention per_view");
      }
    }
    out.recipe.branches[static_cast<std::size_t>(i)].mu = branch.mu();
    out.recipe.branches[static_cast<std::size_t>(i)].nu = branch.nu();
  }
}

void Resolver::WeightsOfEachView() {
  const v1::LossSpec& loss = s().loss();
  out.recipe.loss.convention = Convention::kPerView;
  for (const auto& [has, key] : {std::pair{loss.has_mu(), "loss.mu"}, {loss.has_nu(), "loss.nu"}}) {
    if (has) Bad(key, "weighs all views alike, convention per_view weighs each: remove the key");
  }
  const bool counted = s().views() >= 2 && s().views() <= kMostViews;  // else that is what is wrong
  if (counted && loss.per_view_size() != s().views()) {
    Bad("loss.per_view", "found weights of " + std::to_string(loss.per_view_size()) + " views; expected " +
                             std::to_string(s().views()) +
                             ", one entry {variance: 12.5, covariance: 1} for each of views");
  }
  for (int i = 0; i < loss.per_view_size(); ++i) {
    const v1::ViewWeightsSpec& view = loss.per_view(i);
    const std::string field = "loss.per_view[" + std::to_string(i) + "].";
    const auto weight = [&](const std::string& key, bool has, double value) {
      if (!has) {
        Bad(field + key, "missing; expected a number from 0 to 1e12");
      } else {
        CheckWeight(field + key, value);
      }
    };
    weight("variance", view.has_variance(), view.variance());
    weight("covariance", view.has_covariance(), view.covariance());
    out.recipe.loss.per_view.push_back({view.variance(), view.covariance()});
  }
}

void Resolver::Regularisation() {
  if (!s().loss().has_regularize()) return;
  const v1::RegularizeSpec& terms = s().loss().regularize();
  CheckWeight("loss.regularize.variance", terms.variance());
  CheckWeight("loss.regularize.covariance", terms.covariance());
  if (terms.variance() == 0 && terms.covariance() == 0)
    Bad("loss.regularize", "has no weight above 0; expected variance, covariance or both: give one or remove the key");
  const bool l2 = s().loss().regularize_on() == v1::REGULARIZE_ON_L2;
  out.recipe.loss.regularize = {terms.variance(), terms.covariance(), l2 ? RegularizeOn::kL2 : RegularizeOn::kRaw};
}

// Every objective is of the whole batch and takes its embeddings from wherever they come; batch norm is what a part
// cannot be passed through as if it were the batch.
void Resolver::Accumulation() {
  const std::int64_t parts = s().accumulate();
  if (!Range<std::int64_t>("accumulate", parts, 1, 1048576) || parts == 1) return;
  out.recipe.accumulate = parts;
  if (parts > s().batch_size()) {
    Bad("accumulate", "found " + std::to_string(parts) + " parts of a batch of " + std::to_string(s().batch_size()) +
                          " rows; expected at most one for each row: lower it");
  }
  std::string norm;
  for (const Branch& view : Views(out.recipe)) {
    const Architecture* found = FindArchitecture(view.encoder.name);
    if (found != nullptr && found->family != Family::kVit) norm = "encoder " + view.encoder.name;
  }
  if (out.recipe.embedding_norm == EmbeddingNorm::kStd) norm = "embedding_norm std";
  if (out.recipe.expander_norm == ExpanderNorm::kBatchNorm) norm = "the expander";
  if (norm.empty()) return;
  Bad("accumulate", "found " + std::to_string(parts) + " parts with batch norm in " + norm +
                        ", whose statistics of a part are not the batch's; expected 1, or a network without it: "
                        "encoder vit_ti16 or vit_s16, expander_norm: none, and no embedding_norm: std");
}

void Resolver::WarnOfObjective() {
  const v1::LossSpec& loss = s().loss();
  const auto warn = [&](const std::string& text) { out.warnings.push_back(text); };
  switch (out.recipe.loss.objective) {
    case recipe::Objective::kVicreg: {
      double mu = 0, nu = 0;  // over all views: one of them alone may go without
      for (const Branch& view : Views(out.recipe)) {
        mu += view.mu;
        nu += view.nu;
      }
      if (loss.lambda() == 0 || mu == 0 || nu == 0) {
        warn(
            "a loss coefficient is 0: without invariance views stay unrelated, without variance embeddings collapse, "
            "without covariance "
            "dimensions repeat each other");
      }
      if (loss.convention() == v1::CONVENTION_PER_VIEW) {
        for (const Branch& view : Views(out.recipe)) {
          if (view.nu < view.mu || view.nu == 0) continue;
          warn(
              "a view's covariance weight is not below its variance weight: the covariance term can pull the spread to "
              "zero faster than the variance term holds it");
          break;
        }
        return;
      }
      if (loss.nu() >= loss.mu())
        warn("nu >= mu: the covariance term can pull the spread to zero faster than the variance term holds it");
      if (loss.lambda() != loss.mu())
        warn("lambda != mu: the published results use equal weights for invariance and variance");
      return;
    }
    case recipe::Objective::kBarlowTwins:
      if (loss.redundancy() == 0) warn("redundancy is 0: nothing keeps dimensions from repeating each other");
      return;
    case recipe::Objective::kSimSiam:
    case recipe::Objective::kByol:
      if (loss.predictor() == 0 && loss.regularize().variance() == 0)
        warn("neither a predictor nor a variance term: embeddings collapse");
      if (loss.has_momentum() && loss.momentum() == 1) warn("momentum is 1: the target keeps its first weights");
  }
}

}  // namespace vicreg::recipe
