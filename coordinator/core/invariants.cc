#include "coordinator/core/invariants.h"

namespace vicreg::core {

std::vector<std::string> Broken(const State& state) {
  std::vector<std::string> broken;
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
    if (IsTerminal(job.state) == (state.live.count({job.queue_seq, id}) != 0))
      broken.push_back(id + " is wrong in the index of live jobs");
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
