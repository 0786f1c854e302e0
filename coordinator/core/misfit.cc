#include "coordinator/core/misfit.h"

#include <algorithm>

namespace vicreg::core {
namespace {

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

std::string Misfit::Probing() const {
  const Offers::All& all = offers.all();
  if (all.probing == 0) return "";
  const std::string who = "; " + Count(all.probing, "node") + (all.probing == 1 ? " is" : " are") + " being probed";
  return who + (all.failed.empty() ? ": next when one passes, in seconds" : ", of which " + all.failed);
}

const Offers::All& Offers::all() {
  if (all_) return *all_;
  all_ = All{};
  for (const Node* node : nodes_) {
    if (node->state == NodeState::kProbing) {
      ++all_->probing;
      if (!node->problem.empty() && all_->failed.empty()) all_->failed = node->name + " failed: " + node->problem;
    }
    if (node->state != NodeState::kReady) continue;
    if (node->admin != AdminState::kOpen) {
      ++all_->closed;
      continue;
    }
    ++all_->ready;
    all_->roots.insert(node->data_roots.begin(), node->data_roots.end());
    for (const std::string& root : node->data_roots)
      all_->labels[root].insert(node->labels.begin(), node->labels.end());
  }
  return *all_;
}

std::optional<Explanation> Misfit::Never() const {
  // Each answer below means that this is not so; the usual answer is worth no look at every node.
  if (total >= job.min_world &&
      (MaySpread(job.topology) || FitsWhenEmpty(slots, eligible, job.min_world, job.topology)))
    return std::nullopt;
  const Offers::All& all = offers.all();
  const auto labels = all.labels.find(shape.data_root);
  if (all.ready == 0 && all.closed > 0) {
    return Explanation{Reason::kNoNodes, Needs() + "; every ready node is cordoned or draining (" +
                                             std::to_string(all.closed) + "): `vicreg node uncordon NODE`" + Probing()};
  }
  if (all.ready == 0 && all.probing > 0)
    return Explanation{Reason::kNoNodes, Needs() + "; no node is ready" + Probing()};
  if (all.ready == 0) {
    return Explanation{Reason::kNoNodes,
                       Needs() + "; no node is ready: start a worker (`vicreg up`, or `vicreg-worker`)"};
  }
  if (labels == all.labels.end()) {
    return Explanation{Reason::kDataRootMissing,
                       "no ready node offers data root " + shape.data_root + "; offered: " + List(all.roots) +
                           ": start a worker with --data-root " + shape.data_root + "=PATH" + Probing()};
  }
  if (eligible.empty() && !shape.labels.empty()) {
    return Explanation{Reason::kNoMatchingNode, "no ready node with data root " + shape.data_root + " has the labels " +
                                                    List({shape.labels.begin(), shape.labels.end()}) +
                                                    "; there are: " + List(labels->second) +
                                                    ": start a worker with --label, or ask for others" + Probing()};
  }
  if (total < job.min_world) {
    return Explanation{Reason::kNotEnoughSlots,
                       Needs() + "; the cluster has " + std::to_string(total) + " (" + std::to_string(free) +
                           " free) on " + Count(static_cast<int>(eligible.size()), "ready node") + ": add " +
                           std::to_string(job.min_world - total) + " more, or lower world_size" + Probing()};
  }
  if (!FitsWhenEmpty(slots, eligible, job.min_world, job.topology)) {
    int largest = 0;
    for (const std::size_t i : eligible) largest = std::max(largest, slots.places()[i].total);
    return Explanation{Reason::kTopology, Needs() + " on one " + Name(job.topology.level) +
                                              ", as placement.topology requires; the largest node has " +
                                              std::to_string(largest) + ", all together " + std::to_string(total) +
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
  // Enough, but not near enough to each other.
  if (free >= job.min_world) {
    return {Reason::kTopology, Needs() + " on one " + Name(job.topology.level) + "; " + std::to_string(free) + " of " +
                                   std::to_string(total) + " are free, on several: next when one has enough"};
  }
  return {Reason::kSlotsInUse, Needs() + "; " + std::to_string(free) + " of " + std::to_string(total) +
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
