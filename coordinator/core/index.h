#pragma once

// The state's indexes of live jobs, so that a decision looks at those it is about and never at all of them.

#include <string>

#include "coordinator/core/state.h"

namespace vicreg::core {

// Adds the job, or puts it in the place of the one with its id, in the indexes too. The only way a job enters a state.
void Put(State& state, Job job);

// Jobs alike in all that placement looks at are one class, and this is its name.
std::string ClassOf(const Job& job);

inline Age AgeOf(const Job& job) { return {job.queue_seq, job.id}; }

// A sentence for each index that is not what the jobs themselves say.
std::vector<std::string> BrokenIndexes(const State& state);

}  // namespace vicreg::core
