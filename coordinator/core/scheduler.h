#pragma once

// FIFO gang scheduling: a job gets all its slots at once or none, oldest first. A job the cluster could not hold even
// when empty does not keep those behind it waiting. Pure and deterministic; every job that waits gets one reason and a
// sentence.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/transaction.h"

namespace vicreg::core {

struct Placement {
  std::string job_id;
  std::vector<std::pair<std::string, int>> slots;  // of rank 0, 1, ...: (node, slot)
};

struct Waiting {
  std::string job_id;
  Reason reason;
  std::string message;
};

struct Plan {
  std::vector<Placement> placements;
  std::vector<Waiting> waiting;
};

Plan MakePlan(const Transaction& state);

}  // namespace vicreg::core
