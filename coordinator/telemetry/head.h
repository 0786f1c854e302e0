#pragma once

// What becomes of rows and attempts in the metric history, so that each step's row is there exactly once. Pure.

#include <cstdint>
#include <string>

#include "common/planted.h"
#include "common/status.h"

namespace vicreg::telemetry {

// Of a job: its newest attempt that has begun, and that attempt's newest step (where it resumed, before its first row).
struct Head {
  int attempt = 0;
  std::int64_t step = 0;
};

inline absl::Status Fenced(const Head& head, const std::string& job_id, int attempt) {
  return absl::FailedPreconditionError("attempt " + std::to_string(attempt) + " of job " + job_id.substr(0, 80) +
                                       " is over; the newest is " + std::to_string(head.attempt));
}

// May rows of `attempt` be taken? FailedPrecondition: a newer one has begun. Unavailable: it has not begun here yet.
inline absl::Status CheckAttempt(const Head& head, const std::string& job_id, int attempt) {
  if (attempt > head.attempt) {
    return absl::UnavailableError("attempt " + std::to_string(attempt) + " of job " + job_id.substr(0, 80) +
                                  " has not begun in the metric history yet: send its rows again");
  }
  return attempt < head.attempt ? Fenced(head, job_id, attempt) : absl::OkStatus();
}

enum class RowFate { kTake, kDuplicate, kGap };
inline RowFate FateOf(const Head& head, std::int64_t step) {
  if (step <= head.step && !Planted(Plant::kRowsTwice)) return RowFate::kDuplicate;
  return step == head.step + 1 || Planted(Plant::kRowGaps) || Planted(Plant::kRowsTwice) ? RowFate::kTake
                                                                                         : RowFate::kGap;
}

}  // namespace vicreg::telemetry
