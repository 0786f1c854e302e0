#include "coordinator/core/probation.h"

#include "common/planted.h"
#include "coordinator/core/decide.h"
#include "coordinator/core/strikes.h"

namespace vicreg::core {

void AskProbe(Transaction& tx, Node& node) {
  if (Planted(Plant::kProbeAskedOnce) && node.probe > 0) return;
  ++node.probe;
  node.probed_at = tx.now;
  tx.Send(node.name, SendProbe{node.probe});
}

void ProbeWhenDue(Transaction& tx, const Node& found) {
  // Never asked by this coordinator: at its Register.
  if (found.state != NodeState::kProbing || found.probed_at == TimePoint{}) return;
  const bool failed = !found.problem.empty();
  if (tx.now - found.probed_at < (failed ? tx.options.probe_again : tx.options.probe)) return;
  Node& node = tx.EditNode(found.name);
  if (!failed) {
    node.message = "its worker has not answered a probe within " + std::to_string(tx.options.probe.count() / 1000) +
                   " s: asked again; its log says what it waits for";
  }
  AskProbe(tx, node);
}

namespace {

void FailProbe(Transaction& tx, Node& node, const ProbeAnswer& answer) {
  node.problem = answer.problem;
  node.probed_at = tx.now;
  node.message = "a probe by " + answer.actor + " failed: " + answer.problem;
  if (MayQuarantine(tx)) {
    node.state = NodeState::kQuarantined;
    node.message = "quarantined: " + node.message + "; `vicreg node probe " + node.name + "` tries it again";
  } else {
    node.message += "; nothing is placed there, and it is probed again every " +
                    std::to_string(tx.options.probe_again.count() / 1000) +
                    " s; not quarantined, as that would take more than a fifth of the nodes";
  }
}

}  // namespace

void OnProbed(Transaction& tx, const ProbeAnswer& answer) {
  const Node* found = tx.FindNode(answer.node);
  const bool own = answer.number != 0;
  if (found == nullptr || found->incarnation != answer.incarnation ||
      (own && (found->state != NodeState::kProbing ||
               (found->probe != answer.number && !Planted(Plant::kStaleProbeCounts))))) {
    ++tx.fenced;
    return;
  }
  Node& node = tx.EditNode(answer.node);
  if (answer.problem.empty()) {
    if (node.state == NodeState::kQuarantined) node.strikes.clear();
    if (node.state == NodeState::kQuarantined || node.state == NodeState::kProbing) node.state = NodeState::kReady;
    node.problem.clear();
    node.message = "passed a probe by " + answer.actor;
    return;
  }
  if (!own) AddStrike(tx, answer.node, "", "a probe by " + answer.actor + " failed: " + answer.problem);
  if (node.state == NodeState::kProbing) FailProbe(tx, node, answer);
}

}  // namespace vicreg::core
