#pragma once

// How training code ends a rank. No torch.

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace vicreg::train {

// Same names as vicreg.v1.ExitReason.
enum class ExitReason {
  kCompleted,
  kStopped,
  kConfig,
  kData,
  kFingerprint,
  kNoValidCheckpoint,
  kNumeric,
  kMismatch,
  kRendezvous,
  kCollective,
  kStorage,
  kDevice,
  kDeviceOom,
  kInternal
};

// Thrown anywhere below Run (trainer.h), caught there.
class RankError : public std::runtime_error {
 public:
  RankError(ExitReason reason, const std::string& what) : std::runtime_error(what), reason(reason) {}
  const ExitReason reason;
};

// The loss or gradient of the update with this 1-based number is not finite: another try may substitute its batch.
class NumericError : public RankError {
 public:
  NumericError(std::int64_t step, const std::string& what) : RankError(ExitReason::kNumeric, what), step(step) {}
  const std::int64_t step;
};

// What an error that torch threw is about: its type does not say, its text does. Every call between ranks is a
// collective of gloo's or NCCL's, which name themselves.
inline ExitReason ReasonOf(std::string_view text) {
  const auto says = [&](std::initializer_list<std::string_view> words) {
    for (const std::string_view word : words) {
      if (text.find(word) != std::string_view::npos) return true;
    }
    return false;
  };
  if (says({"gloo", "Connection closed", "NCCL"})) return ExitReason::kCollective;
  if (says({"CUDA out of memory"})) return ExitReason::kDeviceOom;
  if (says({"CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS"})) return ExitReason::kDevice;
  return ExitReason::kInternal;
}

}  // namespace vicreg::train
