#include "coordinator/core/in_place.h"

#include <algorithm>

#include "common/planted.h"
#include "coordinator/core/attempt.h"
#include "coordinator/core/fit.h"
#include "coordinator/core/index.h"
#include "coordinator/core/order.h"

namespace vicreg::core {
namespace {

// What projects hold, in slots.
struct Held {
  std::map<std::string, int> by_others;  // than the job, of any kind
  int of_kind = 0;                       // by the job's project, its own too
};

Held HeldBeside(const Transaction& tx, const Job& job) {
  Held held;
  for (const Job* other : tx.HoldingJobs()) {
    if (other->id != job.id) held.by_others[other->project] += other->world_size;
    if (other->project == job.project && other->slot_kind == job.slot_kind) held.of_kind += other->world_size;
  }
  return held;
}

bool NodesAreGood(const Transaction& tx, const Job& job, const Shape& shape) {
  return std::all_of(job.ranks.begin(), job.ranks.end(), [&](const Rank& rank) {
    const Node* node = tx.FindNode(rank.node);
    return node != nullptr && node->placeable() && rank.slot < node->Slots(job.slot_kind) &&
           shape.excluded.count(rank.node) == 0 && Suits(*node, shape);
  });
}

// Could it be given one of the nodes, now or when more is free?
bool CouldUse(const Transaction& tx, const Job& waiting, const std::set<std::string>& nodes,
              const std::string& project) {
  const Queue* queue = tx.FindQueue({waiting.project, waiting.queue});
  if (queue != nullptr && !queue->open) return false;
  // The newest pass knows who waits for something else. What it has not seen yet counts.
  if (const auto why = tx.waiting().find(ClassOf(waiting)); why != tx.waiting().end()) {
    if (why->second.reason == Reason::kNotEnoughSlots) return false;
    if (why->second.reason == Reason::kQuota && waiting.project != project) return false;
  }
  const Shape shape = ShapeOf(waiting, queue);
  return std::any_of(nodes.begin(), nodes.end(), [&](const auto& n) { return Suits(*tx.FindNode(n), shape); });
}

}  // namespace

bool MayStay(const Transaction& tx, const Job& job) {
  const int world = static_cast<int>(job.ranks.size());
  if (job.held || world < job.min_world || world > job.max_world) return false;
  const Queue* queue = tx.FindQueue({job.project, job.queue});
  if (queue != nullptr && !queue->open) return false;
  const std::set<std::string> nodes = NodesOf(job);
  if (std::any_of(job.bad_pairs.begin(), job.bad_pairs.end(),
                  [&](const NodePair& p) { return nodes.count(p.first) + nodes.count(p.second) == 2; }))
    return false;
  // Before all that looks at other jobs: when a node is lost, this answers for every job that was there.
  if (!NodesAreGood(tx, job, ShapeOf(job, queue))) return false;
  const Held held = HeldBeside(tx, job);
  const int quota = tx.FindProject(job.project).Quota(job.slot_kind);
  if (quota >= 0 && held.of_kind > quota && !Planted(Plant::kQuotaIgnored)) return false;
  const auto turn_of = [&](const Job& other) {
    const auto found = held.by_others.find(other.project);
    const double slots = found == held.by_others.end() ? 0 : found->second;
    return Turn{other.priority, slots / tx.FindProject(other.project).weight, other.queue_seq};
  };
  const Turn mine = turn_of(job);
  return !tx.AnyOldestQueued([&](const Job& waiting) {
    return waiting.slot_kind == job.slot_kind && waiting.priority >= job.priority && Before(turn_of(waiting), mine) &&
           CouldUse(tx, waiting, nodes, job.project);
  });
}

}  // namespace vicreg::core
