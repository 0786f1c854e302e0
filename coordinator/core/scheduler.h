#pragma once

// Gang scheduling as one pure function: jobs choose in order (order.h), a job gets all its slots at once or none
// (fit.h). The first that does not fit is promised the slots it waits for; others use the rest, so that neither a wide
// job starves nor slots stand idle. Where stopping less important gangs helps, it says which (preempt.h). Jobs alike
// are one class: a misfit answers for all of them, in one reason and one sentence.

#include <map>
#include <string>
#include <vector>

#include "coordinator/core/transaction.h"

namespace vicreg::core {

struct Placement {
  std::string job_id;
  std::vector<Slot> slots;  // of rank 0, 1, ...
};

// A gang that must stop, and for whom.
struct Preemption {
  std::string victim, for_job;
  std::string message;
};

// A gang that could be larger with slots nobody waits for.
struct Growth {
  std::string job_id;
  int world_size = 0;
};

struct Plan {
  std::vector<Placement> placements;
  std::vector<Preemption> preemptions;
  std::vector<Growth> growths;
  std::map<std::string, Explanation> waiting;  // by class
  // When the passing of time alone makes another pass worth while.
  TimePoint next_pass = TimePoint::max();
};

Plan MakePlan(const Transaction& state);

// What people read of a job: its own reason and sentence, or why its class waits.
Explanation Explain(const Job& job, const std::map<std::string, Explanation>& waiting);

}  // namespace vicreg::core
