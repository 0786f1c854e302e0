#include "worker/train/learner.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "common/recipe/networks.h"
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

// Rows of part i of each view.
std::vector<at::Tensor> Part(const std::vector<at::Tensor>& views, std::int64_t i, std::int64_t parts) {
  const std::int64_t rows = views[0].size(0);
  std::vector<at::Tensor> part;
  for (const at::Tensor& view : views) part.push_back(view.slice(0, i * rows / parts, (i + 1) * rows / parts));
  return part;
}

// A rank of few rows has no part without any.
std::int64_t Parts(const std::vector<at::Tensor>& views, std::int64_t wanted) {
  return std::clamp<std::int64_t>(views[0].size(0), 1, wanted);
}

// A leaf for each view, of its rows of all parts.
std::vector<at::Tensor> Joined(const std::vector<Embedded>& parts, std::vector<at::Tensor> Embedded::*member) {
  std::vector<at::Tensor> views((parts[0].*member).size());
  for (std::size_t k = 0; k < views.size(); ++k) {
    std::vector<at::Tensor> rows;
    for (const Embedded& part : parts) rows.push_back((part.*member)[k]);
    views[k] = at::cat(rows).set_requires_grad(true);
  }
  return views;
}

}  // namespace

Learner::Learner(const recipe::Recipe& recipe, Group& group, at::Device device, const LearnerOptions& options)
    : recipe_(recipe),
      group_(group),
      norms_(options.own_rows_norms ? alone_ : group),
      model_(recipe, at::kFloat, device),
      objective_(MakeObjective(recipe)),
      optimizer_(MakeOptimizer(recipe.optimizer, model_.parameters().trained())),
      scaler_(recipe.precision == recipe::Precision::kFp16) {
  std::vector<at::Tensor> parameters;
  for (const NamedTensor& p : model_.parameters().trained()) parameters.push_back(p.value);
  reducer_ = std::make_unique<GradientReducer>(parameters, group_, options.bucket_bytes);
}

Learner::~Learner() = default;

std::vector<NamedTensor> Learner::optimizer_state() const {
  std::vector<NamedTensor> state = optimizer_->State();
  if (scaler_.enabled()) state.push_back(scaler_.State());
  for (NamedTensor& t : model_.TargetState()) state.push_back(std::move(t));
  return state;
}

std::vector<at::Tensor> Learner::Samples(Batch& batch) const {
  const auto values = static_cast<std::int64_t>(batch.views.size());
  // The loss waits for the copy, and so for the last use of `batch`.
  const at::Tensor all =
      at::from_blob(batch.views.data(), {values}, at::kFloat).to(model_.network().device(), /*non_blocking=*/true);
  std::vector<at::Tensor> views;
  std::int64_t first = 0;
  for (const recipe::Branch& view : recipe::Views(recipe_)) {
    std::vector<std::int64_t> shape = recipe::SampleShape(view);
    shape.insert(shape.begin(), batch.rows);
    const std::int64_t count = c10::multiply_integers(shape);
    views.push_back(all.narrow(0, first, count).view(shape));
    first += count;
  }
  return views;
}

Embedded Learner::Forward(const std::vector<at::Tensor>& views) {
  const Autocast autocast(views[0].device().type(), TypeOf(recipe_.precision));
  Embedded batch = model_.Forward(views, norms_);
  batch.targets = model_.Targets(views, norms_);
  return batch;
}

// Gradient accumulation that is exact for every objective, as long as rows pass the network alone (Gao et al., 2021,
// arXiv 2101.06983): what the loss is of is the whole batch's; only graphs are of a part.
Embedded Learner::ForwardInParts(const std::vector<at::Tensor>& views) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = Parts(views, recipe_.accumulate);
  std::vector<Embedded> parts;
  for (std::int64_t i = 0; i < count; ++i) parts.push_back(Forward(Part(views, i, count)));
  return {Joined(parts, &Embedded::embeddings), Joined(parts, &Embedded::predictions),
          Joined(parts, &Embedded::targets)};
}

void Learner::BackwardInParts(const std::vector<at::Tensor>& views, const Embedded& whole) {
  const std::int64_t count = Parts(views, recipe_.accumulate);
  for (std::int64_t i = 0; i < count; ++i) {
    Embedded part;
    {
      const Autocast autocast(views[0].device().type(), TypeOf(recipe_.precision));
      part = model_.Forward(Part(views, i, count), norms_);
    }
    std::vector<at::Tensor> outputs, gradients;
    for (const auto member : {&Embedded::embeddings, &Embedded::predictions}) {
      std::vector<at::Tensor> own;  // gradients of the whole, a view each; none where the loss does not look at it
      for (const at::Tensor& z : whole.*member) {
        if (z.grad().defined()) own.push_back(z.grad());
      }
      if (own.empty()) continue;
      outputs.insert(outputs.end(), (part.*member).begin(), (part.*member).end());
      for (const at::Tensor& g : Part(own, i, count)) gradients.push_back(g);
    }
    if (i + 1 == count) reducer_->Prepare(outputs[0]);
    torch::autograd::backward(outputs, gradients);
  }
}

Update Learner::Learn(Batch& batch, double learning_rate, std::int64_t step, std::int64_t total) {
  phase = "forward";
  const bool in_parts = recipe_.accumulate > 1;
  const std::vector<at::Tensor> views = Samples(batch);
  const Embedded embedded = in_parts ? ForwardInParts(views) : Forward(views);
  // The reducer averages over W ranks.
  const LossResult result = objective_->Loss(embedded, group_, group_.size());
  if (!result.terms.nonfinite_term.empty()) Numeric(result.terms.nonfinite_term + " term", step);

  phase = "backward";
  optimizer_->ZeroGrad();
  Update update{result.terms, 0, scaler_.scale()};
  const at::Tensor loss = scaler_.enabled() ? result.loss * update.loss_scale : result.loss;
  if (!in_parts) reducer_->Prepare(loss);
  loss.backward();
  if (in_parts) BackwardInParts(views, embedded);
  if (scaler_.enabled()) optimizer_->ScaleGradients(1 / update.loss_scale);
  update.grad_norm = optimizer_->GradientNorm();

  phase = "optimizer";
  if (scaler_.Decide(std::isfinite(update.grad_norm))) {
    optimizer_->Step(learning_rate, step);
    model_.Updated(step, total);
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
