#pragma once

// How training code ends a rank. No torch.

#include <cstdint>
#include <stdexcept>
#include <string>

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

}  // namespace vicreg::train
