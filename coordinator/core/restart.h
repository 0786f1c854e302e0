#pragma once

// What happens to a job whose attempt has ended, by the reason its ranks gave. Pure; a table test holds it.

#include "coordinator/core/state.h"
#include "coordinator/core/transaction.h"

namespace vicreg::core {

// First the exit that started it: the worst non-ABORTED one; peers that were aborted or lost their connection follow
// from it.
struct AttemptEnd {
  ExitReason reason = ExitReason::kNone;
  int rank = -1;
  std::string what;                 // sentence
  std::int64_t nonfinite_step = 0;  // of that rank
  std::int64_t last_step = 0;       // of that rank
};

// Of settled ranks. kCompleted only when every rank completed.
AttemptEnd CauseOf(const std::vector<Rank>& ranks);

struct NextMove {
  enum class Kind { kSucceed, kRetry, kFail } kind;
  Reason reason;
  std::chrono::milliseconds delay{0};
  int charges = 0;                      // of the restart budget, after this attempt
  std::string message;                  // of a retry: after what; the caller says when and where
  std::int64_t substitute_step = 0;     // > 0: a rollback; the batch of this step gives way to another draw
  bool final = false;                   // kFail: no retry can mend it (bad config, bad data)
  std::optional<CrashSite> crash = {};  // a crash that is the user's, and whose step is known
};

// How long a job with so many charges waits before its next attempt.
std::chrono::milliseconds BackoffAfter(int charges, const Options& options);

// A loss that is not finite: once per job, back to the newest checkpoint with another batch in that step's place,
// uncharged; the second time the job has FAILED. `newest_step`: of the newest committed checkpoint. Progress since the
// attempt began forgives earlier crashes, but not that they were all of one rank at one step: the third ends the job
// whatever was saved in between. Infrastructure ends are never charged, but back off all the same.
NextMove DecideAfterEnd(const Job& job, const AttemptEnd& end, std::int64_t newest_step, const Options& options);

}  // namespace vicreg::core
