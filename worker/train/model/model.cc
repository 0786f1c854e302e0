#include "worker/train/model/model.h"

#include <ATen/ATen.h>

namespace vicreg::train {

Model::Model(const recipe::Recipe& recipe, at::ScalarType dtype, at::Device device)
    : network_(recipe, dtype, device), momentum_(recipe.loss.momentum.value_or(0)) {
  if (recipe.loss.predictor > 0)
    predictor_.emplace(recipe, recipe::Views(recipe).front().expander.back(), network_.parameters());
  if (recipe.loss.momentum) target_.emplace(recipe, network_, dtype);
}

Embedded Model::Forward(const std::vector<at::Tensor>& views, Group& group) {
  Embedded batch;
  batch.embeddings = network_.Forward(views, group);
  if (predictor_) batch.predictions = predictor_->Forward(batch.embeddings, group);
  return batch;
}

std::vector<at::Tensor> Model::Targets(const std::vector<at::Tensor>& views, Group& group) {
  return target_ ? target_->Forward(views, group) : std::vector<at::Tensor>();
}

void Model::Updated(std::int64_t step, std::int64_t total) {
  if (target_) target_->Follow(TargetMomentum(step, total, momentum_));
}

std::vector<NamedTensor> Model::TargetState() const { return target_ ? target_->State() : std::vector<NamedTensor>(); }

}  // namespace vicreg::train
