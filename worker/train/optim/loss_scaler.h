#pragma once

// The factor that keeps fp16 gradients from vanishing (Micikevicius et al., 2018, arXiv 1710.03740, section 3.2), with
// the rule of torch.amp.GradScaler: twice as large after 2000 updates without an overflow, half as large after one.
// Whether a gradient overflowed is asked of the reduced one, so that all ranks agree. For fp32 and bf16 it stays 1 and
// nothing is skipped.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/train/model/parameters.h"

namespace vicreg::train {

class LossScaler {
 public:
  static constexpr std::int64_t kMostInARow = 20;

  explicit LossScaler(bool enabled);

  bool enabled() const { return enabled_; }
  double scale() const;
  // After each backward: whether the update may be taken. Sets the factor of the next one.
  bool Decide(bool finite);
  std::int64_t skipped() const;           // of all updates
  std::int64_t skipped_in_a_row() const;  // up to the newest

  // "loss_scaler": [scale, updates since it changed, skipped, skipped in a row], fp64, for checkpoints.
  NamedTensor State() const { return {"loss_scaler", state_}; }

 private:
  const bool enabled_;
  at::Tensor state_;
};

}  // namespace vicreg::train
