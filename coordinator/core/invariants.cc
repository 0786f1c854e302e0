#include "coordinator/core/invariants.h"

#include "coordinator/core/index.h"

namespace vicreg::core {

std::vector<std::string> Broken(const State& state) {
  std::vector<std::string> broken = BrokenIndexes(state);
  std::map<std::pair<std::string, int>, std::string> claims;
  for (const auto& [id, job] : state.jobs) {
    const bool active = HoldsSlots(job.state);
    if (active && static_cast<int>(job.ranks.size()) != job.world_size)
      broken.push_back(id + " is " + Name(job.state) + " with part of its gang");
    if (active && job.attempt < 1) broken.push_back(id + " is " + Name(job.state) + " without an attempt");
    for (const Rank& rank : job.ranks) {
      if (!active) continue;
      if (const auto [other, added] = claims.emplace(std::pair(rank.node + "/" + job.slot_kind, rank.slot), id);
          !added) {
        broken.push_back("slot " + std::to_string(rank.slot) + " of " + rank.node + " is claimed by " + id + " and " +
                         other->second);
      }
    }
    if (IsTerminal(job.state) && job.reason == Reason::kNone) broken.push_back(id + " ended without a reason");
    if (job.state == JobState::kRunning) {
      for (const Rank& rank : job.ranks) {
        if (rank.settled() && rank.exit_reason != ExitReason::kCompleted)
          broken.push_back(id + " is RUNNING although rank " + std::to_string(rank.rank) + " is gone");
      }
    }
  }
  return broken;
}

}  // namespace vicreg::core
