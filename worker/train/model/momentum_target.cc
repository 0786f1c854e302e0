#include "worker/train/model/momentum_target.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <numbers>
#include <stdexcept>

namespace vicreg::train {

double TargetMomentum(std::int64_t step, std::int64_t total, double base) {
  const double passed = static_cast<double>(step - 1) / static_cast<double>(total);
  return 1 - (1 - base) * (1 + std::cos(std::numbers::pi * passed)) / 2;
}

MomentumTarget::MomentumTarget(const recipe::Recipe& recipe, const Network& online, at::ScalarType dtype)
    : network_(recipe, dtype, online.device()) {
  // Initial weights are a function of (seed, name): both have the same.
  for (const NamedTensor& p : network_.parameters().trained()) {
    const NamedTensor& followed = online.parameters().trained().at(own_.size());
    if (followed.name != p.name) throw std::logic_error("the target has " + p.name + " for " + followed.name);
    own_.push_back(p.value.detach());
    online_.push_back(followed.value.detach());
  }
}

std::vector<at::Tensor> MomentumTarget::Forward(const std::vector<at::Tensor>& views, Group& group) {
  const at::NoGradGuard no_grad;
  return network_.Forward(views, group);
}

void MomentumTarget::Follow(double momentum) {
  const at::NoGradGuard no_grad;
  at::_foreach_lerp_(own_, online_, 1 - momentum);
}

std::vector<NamedTensor> MomentumTarget::State() const {
  std::vector<NamedTensor> state;
  for (const NamedTensor& t : network_.parameters().all()) state.push_back({"target." + t.name, t.value});
  return state;
}

}  // namespace vicreg::train
