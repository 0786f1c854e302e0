#include "worker/train/optim/loss_scaler.h"

#include <ATen/ATen.h>

namespace vicreg::train {
namespace {

constexpr double kFirst = 65536;
constexpr double kGoodBeforeGrowth = 2000;

enum Index { kScale, kGood, kSkipped, kInARow, kCount };

}  // namespace

LossScaler::LossScaler(bool enabled) : enabled_(enabled), state_(at::zeros({kCount}, at::kDouble)) {
  state_.mutable_data_ptr<double>()[kScale] = enabled ? kFirst : 1;
}

double LossScaler::scale() const { return state_.const_data_ptr<double>()[kScale]; }
std::int64_t LossScaler::skipped() const {
  return static_cast<std::int64_t>(state_.const_data_ptr<double>()[kSkipped]);
}
std::int64_t LossScaler::skipped_in_a_row() const {
  return static_cast<std::int64_t>(state_.const_data_ptr<double>()[kInARow]);
}

bool LossScaler::Decide(bool finite) {
  if (!enabled_) return finite;
  double* s = state_.mutable_data_ptr<double>();
  if (!finite) {
    s[kScale] /= 2;
    s[kGood] = 0;
    ++s[kSkipped];
    ++s[kInARow];
    return false;
  }
  s[kInARow] = 0;
  if (++s[kGood] >= kGoodBeforeGrowth) {
    s[kScale] *= 2;
    s[kGood] = 0;
  }
  return true;
}

}  // namespace vicreg::train
