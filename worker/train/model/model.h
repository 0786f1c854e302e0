#pragma once

// Everything that a job's samples pass on their way to the objective: the network that is trained, and where the recipe
// has them a predictor on top of it and a momentum target beside it.

#include <cstdint>
#include <optional>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/model/momentum_target.h"
#include "worker/train/model/network.h"
#include "worker/train/model/predictor.h"
#include "worker/train/objective/objective.h"

namespace vicreg::train {

class Model {
 public:
  // All of it lies on `device`, and so do the samples it is given.
  explicit Model(const recipe::Recipe& recipe, at::ScalarType dtype = at::kFloat, at::Device device = at::kCPU);

  // Views as Network::Forward takes them. Targets are left out.
  Embedded Forward(const std::vector<at::Tensor>& views, Group& group);
  // Of the momentum target; empty without one.
  std::vector<at::Tensor> Targets(const std::vector<at::Tensor>& views, Group& group);
  // After update number `step` (1-based) of `total` was taken: the target follows.
  void Updated(std::int64_t step, std::int64_t total);

  const Network& network() const { return network_; }
  // Of the network and the predictor.
  const Parameters& parameters() const { return network_.parameters(); }
  // What else a checkpoint holds; the tensors themselves.
  std::vector<NamedTensor> TargetState() const;

 private:
  Network network_;
  std::optional<Predictor> predictor_;
  std::optional<MomentumTarget> target_;
  const double momentum_;  // of the target, at the first step
};

}  // namespace vicreg::train
