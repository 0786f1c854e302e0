#include "coordinator/core/strikes.h"

#include <algorithm>

#include "common/planted.h"

namespace vicreg::core {

bool MayQuarantine(const Transaction& tx) {
  const auto nodes = tx.Nodes();
  const auto quarantined =
      std::count_if(nodes.begin(), nodes.end(), [](const Node* n) { return n->state == NodeState::kQuarantined; });
  return Planted(Plant::kQuarantineUncapped) ||
         static_cast<double>(quarantined + 1) <= tx.options.quarantine_share * static_cast<double>(nodes.size());
}

void AddStrike(Transaction& tx, const std::string& name, const std::string& job_id, const std::string& what) {
  Node& node = tx.EditNode(name);
  const std::int64_t oldest = tx.wall_us - std::chrono::microseconds(tx.options.strike_window).count();
  std::erase_if(node.strikes, [&](const Strike& s) { return s.time_us < oldest; });
  node.strikes.push_back({tx.wall_us, job_id});
  std::set<std::string> jobs;
  for (const Strike& strike : node.strikes) jobs.insert(strike.job_id);
  const int strikes = static_cast<int>(node.strikes.size()), different = static_cast<int>(jobs.size());
  node.message = std::to_string(strikes) + " of " + std::to_string(tx.options.strikes) + " strikes: " + what;
  if (strikes < tx.options.strikes && different < tx.options.strike_jobs) return;
  if (node.state != NodeState::kReady && node.state != NodeState::kSuspect) return;
  if (!MayQuarantine(tx)) {
    node.message += "; not quarantined, as that would take more than a fifth of the nodes: look at it";
    return;
  }
  node.state = NodeState::kQuarantined;
  node.message = "quarantined after " + std::to_string(strikes) + " failures under " + std::to_string(different) +
                 (different == 1 ? " job" : " jobs") + ", the last: " + what +
                 "; `vicreg node uncordon` opens it again";
}

}  // namespace vicreg::core
