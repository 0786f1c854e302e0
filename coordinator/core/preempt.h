#pragma once

// Which gangs must stop so that a more important one can start. Whole gangs of lower priority that have run for
// min_runtime; those that may start again first, then those that cost least (slot-seconds since their checkpoint, and a
// restart); none at all unless what they free is enough.

#include <vector>

#include "coordinator/core/fit.h"
#include "coordinator/core/transaction.h"

namespace vicreg::core {

struct Victims {
  std::vector<const Job*> jobs;  // empty: preemption does not help
  // When more may be allowed: a gang is old enough, or enough of the hour's budget is back.
  TimePoint later = TimePoint::max();
};

// `slots`: with everything free that is, or is about to be. `recent`: preemptions of the last hour, oldest first.
Victims ChooseVictims(const Job& job, const Slots& slots, const Eligible& eligible, int allowed_by_quota,
                      const std::vector<const Job*>& running, const std::vector<TimePoint>& recent,
                      const Transaction& state);

// What stopping the gang now would waste, in slot-seconds.
double StopCost(const Job& job, TimePoint now, const Options& options);

}  // namespace vicreg::core
