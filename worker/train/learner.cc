#include "worker/train/learner.h"

#include <ATen/ATen.h>

#include <cmath>
#include <optional>

#include "worker/train/autocast.h"
#include "worker/train/error.h"

namespace vicreg::train {
namespace {

std::optional<at::ScalarType> TypeOf(recipe::Precision precision) {
  switch (precision) {
    case recipe::Precision::kFp32:
      return std::nullopt;
    case recipe::Precision::kBf16:
      return at::kBFloat16;
    case recipe::Precision::kFp16:
      return at::kHalf;
  }
  return std::nullopt;
}

[[noreturn]] void Numeric(const std::string& what, std::int64_t step) {
  throw NumericError(step, what + " is not finite at step " + std::to_string(step) +
                               "; no rank took the step: lower the learning rate");
}

}  // namespace

Learner::Learner(const recipe::Recipe& recipe, Group& group, at::Device device)
    : recipe_(recipe),
      group_(group),
      network_(recipe, at::kFloat, device),
      optimizer_(MakeOptimizer(recipe.optimizer, network_.parameters().trained())),
      scaler_(recipe.precision == recipe::Precision::kFp16) {
  std::vector<at::Tensor> parameters;
  for (const NamedTensor& p : network_.parameters().trained()) parameters.push_back(p.value);
  reducer_ = std::make_unique<GradientReducer>(parameters, group_);
}

Learner::~Learner() = default;

std::vector<NamedTensor> Learner::optimizer_state() const {
  std::vector<NamedTensor> state = optimizer_->State();
  if (scaler_.enabled()) state.push_back(scaler_.State());
  return state;
}

LossResult Learner::Forward(Batch& batch) {
  const std::int64_t side = recipe_.augmentation.size;
  const at::Tensor images =
      at::from_blob(batch.views.data(), {2 * batch.rows, recipe_.data.channels, side, side}, at::kFloat)
          .to(network_.device(), /*non_blocking=*/true);  // the loss waits for it, and so for the last use of `batch`
  std::vector<at::Tensor> views;
  {
    const Autocast autocast(images.device().type(), TypeOf(recipe_.precision));
    views = network_.Forward(images.chunk(2), group_);
  }
  const VicregWeights weights{recipe_.loss.lambda_, std::vector<ViewWeights>(views.size(), {recipe_.loss.mu_per_view,
                                                                                            recipe_.loss.nu_per_view})};
  // The reducer averages over W ranks.
  return VicregLoss(views, weights, recipe_.loss.form, group_, group_.size());
}

Update Learner::Learn(Batch& batch, double learning_rate, std::int64_t step) {
  phase = "forward";
  const LossResult result = Forward(batch);
  if (!result.terms.nonfinite_term.empty()) Numeric(result.terms.nonfinite_term + " term", step);

  phase = "backward";
  optimizer_->ZeroGrad();
  Update update{result.terms, 0, scaler_.scale()};
  const at::Tensor loss = scaler_.enabled() ? result.loss * update.loss_scale : result.loss;
  reducer_->Prepare(loss);
  loss.backward();
  if (scaler_.enabled()) optimizer_->ScaleGradients(1 / update.loss_scale);
  update.grad_norm = optimizer_->GradientNorm();

  phase = "optimizer";
  if (scaler_.Decide(std::isfinite(update.grad_norm))) {
    optimizer_->Step(learning_rate, step);
    return update;
  }
  if (!scaler_.enabled()) Numeric("gradient", step);
  if (scaler_.skipped_in_a_row() >= LossScaler::kMostInARow) {
    Numeric("fp16 gradient, " + std::to_string(LossScaler::kMostInARow) +
                " times in a row and down to a loss scale of " + std::to_string(scaler_.scale()) + ",",
            step);
  }
  return update;  // nothing moved; skipped() has grown
}

}  // namespace vicreg::train
