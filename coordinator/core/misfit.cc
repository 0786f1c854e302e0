#include "coordinator/core/misfit.h"

#include <algorithm>

namespace vicreg::core {
namespace {

bool Has(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

std::string List(const std::set<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list.empty() ? "none" : list;
}

std::string Called(const Job& job) { return job.name + " (" + job.id.substr(0, 8) + ")"; }

}  // namespace

std::string Count(int count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

std::string Misfit::Needs() const {
  const std::string what = job.slot_kind + " slot";
  if (job.min_world == job.max_world) return "needs " + Count(job.min_world, what);
  return "needs " + std::to_string(job.min_world) + " to " + Count(job.max_world, what);
}

int Misfit::Free() const {
  int free = 0;
  for (const std::size_t i : eligible) free += static_cast<int>(slots.places()[i].free.size());
  return free;
}

int Misfit::Total() const {
  int total = 0;
  for (const std::size_t i : eligible) total += slots.places()[i].total;
  return total;
}

std::optional<Explanation> Misfit::Never() const {
  // Each answer below means that this is not so; the usual answer is worth no look at every node.
  if (Total() >= job.min_world && FitsWhenEmpty(slots, eligible, job.min_world, job.topology)) return std::nullopt;
  std::set<std::string> offered, labels;
  int ready = 0, offering = 0, closed = 0;
  for (const Node* node : nodes) {
    if (node->state != NodeState::kReady) continue;
    if (node->admin != AdminState::kOpen) {
      ++closed;
      continue;
    }
    ++ready;
    offered.insert(node->data_roots.begin(), node->data_roots.end());
    if (!Has(node->data_roots, shape.data_root)) continue;
    ++offering;
    labels.insert(node->labels.begin(), node->labels.end());
  }
  if (ready == 0 && closed > 0) {
    return Explanation{Reason::kNoNodes, Needs() + "; every ready node is cordoned or draining (" +
                                             std::to_string(closed) + "): `vicreg node uncordon NODE`"};
  }
  if (ready == 0) {
    return Explanation{Reason::kNoNodes,
                       Needs() + "; no node is ready: start a worker (`vicreg up`, or `vicreg-worker`)"};
  }
  if (offering == 0) {
    return Explanation{Reason::kDataRootMissing, "no ready node offers data root " + shape.data_root +
                                                     "; offered: " + List(offered) +
                                                     ": start a worker with --data-root " + shape.data_root + "=PATH"};
  }
  if (eligible.empty() && !shape.labels.empty()) {
    return Explanation{Reason::kNoMatchingNode, "no ready node with data root " + shape.data_root + " has the labels " +
                                                    List({shape.labels.begin(), shape.labels.end()}) + "; there are: " +
                                                    List(labels) + ": start a worker with --label, or ask for others"};
  }
  if (Total() < job.min_world) {
    return Explanation{Reason::kNotEnoughSlots,
                       Needs() + "; the cluster has " + std::to_string(Total()) + " (" + std::to_string(Free()) +
                           " free) on " + Count(static_cast<int>(eligible.size()), "ready node") + ": add " +
                           std::to_string(job.min_world - Total()) + " more, or lower world_size"};
  }
  if (!FitsWhenEmpty(slots, eligible, job.min_world, job.topology)) {
    int largest = 0;
    for (const std::size_t i : eligible) largest = std::max(largest, slots.places()[i].total);
    return Explanation{Reason::kTopology, Needs() + " on one " + Name(job.topology.level) +
                                              ", as placement.topology requires; the largest node has " +
                                              std::to_string(largest) + ", all together " + std::to_string(Total()) +
                                              ": lower world_size, or do not require it"};
  }
  return std::nullopt;
}

Explanation Misfit::QueueClosed() const {
  return {Reason::kQueueClosed, "queue " + job.queue + " of project " + job.project +
                                    " is closed: an operator opens it with `vicreg queue set " + job.queue +
                                    " --project " + job.project + " --open`"};
}

Explanation Misfit::OverQuota(int quota, int held) const {
  const std::string limit = "project " + job.project + " may hold " + Count(quota, job.slot_kind + " slot");
  if (quota < job.min_world) {
    return {Reason::kQuota,
            Needs() + "; " + limit + ": raise it with `vicreg quota set " + job.project + "`, or lower world_size"};
  }
  return {Reason::kQuota,
          Needs() + "; " + limit + " and holds " + std::to_string(held) + ": next when jobs of the project end"};
}

Explanation Misfit::InUse() const {
  const int free = Free();
  // Enough, but not near enough to each other.
  if (free >= job.min_world) {
    return {Reason::kTopology, Needs() + " on one " + Name(job.topology.level) + "; " + std::to_string(free) + " of " +
                                   std::to_string(Total()) + " are free, on several: next when one has enough"};
  }
  return {Reason::kSlotsInUse, Needs() + "; " + std::to_string(free) + " of " + std::to_string(Total()) +
                                   " are free: next when running jobs end"};
}

Explanation Misfit::Behind(const Job& first) const {
  return {Reason::kQueuedBehind, "waits behind " + Called(first) + ", which goes first and waits for " +
                                     Count(first.min_world, "slot") + "; what is free is kept for it"};
}

Explanation Misfit::Stopping() const {
  return {Reason::kPreempting, Needs() + "; gangs that are stopping will free them"};
}

std::string Misfit::Preempts(const Job& victim) const {
  return "preempted by " + Called(job) + " of priority " + std::to_string(job.priority) + " (this job has " +
         std::to_string(victim.priority) + ")";
}

}  // namespace vicreg::core
