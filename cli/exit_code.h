#pragma once

// What the shell sees. 0 ok, 1 internal, 2 usage or spec, 3 not placed in time (submit --wait-placed), 4 forbidden, 5
// conflict, 6 coordinator unavailable (retry), 7 not found; from commands that wait for a job: 100 FAILED, 101 the wait
// timed out, 103 CANCELLED, 104 FAILED for its deadline or because it was preempted and may not start again, 130
// detached.

#include "common/status.h"
#include "vicreg/v1/jobs_service.pb.h"

namespace vicreg::cli {

inline constexpr int kUsage = 2, kNotPlaced = 3, kConflict = 5, kUnavailable = 6, kNotFound = 7, kJobFailed = 100,
                     kWaitTimedOut = 101, kJobCancelled = 103, kJobOutOfTime = 104, kDetached = 130;

int ExitCode(const absl::Status& status);

// Of a job that has ended; 1 for one that has not.
int ExitCode(const v1::Job& job);

bool HasEnded(v1::JobState state);

}  // namespace vicreg::cli
