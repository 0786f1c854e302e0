#include "coordinator/core/scheduler.h"

#include <algorithm>
#include <set>

namespace vicreg::core {
namespace {

using Slot = std::pair<std::string, int>;

bool Offers(const Node& node, const std::string& root) {
  return std::find(node.data_roots.begin(), node.data_roots.end(), root) != node.data_roots.end();
}

struct Pool {
  std::map<std::string, std::vector<int>> free;  // per node that is ready and offers the root
  int total = 0, free_count = 0, nodes = 0;
};

Pool PoolFor(const Job& job, const std::vector<const Node*>& nodes, const std::map<std::string, std::set<Slot>>& used) {
  Pool pool;
  const auto taken = used.find(job.slot_kind);
  for (const Node* node : nodes) {
    if (node->state != NodeState::kReady || !Offers(*node, job.data_root)) continue;
    ++pool.nodes;
    for (int slot = 0; slot < node->Slots(job.slot_kind); ++slot) {
      ++pool.total;
      if (taken != used.end() && taken->second.count({node->name, slot}) != 0) continue;
      pool.free[node->name].push_back(slot);
      ++pool.free_count;
    }
  }
  return pool;
}

// One node when one fits (the fullest that does), else nodes with most room first.
std::vector<Slot> Choose(const Pool& pool, int wanted) {
  std::vector<std::pair<std::string, std::vector<int>>> nodes(pool.free.begin(), pool.free.end());
  std::stable_sort(nodes.begin(), nodes.end(), [&](const auto& a, const auto& b) {
    const bool fits_a = static_cast<int>(a.second.size()) >= wanted,
               fits_b = static_cast<int>(b.second.size()) >= wanted;
    if (fits_a != fits_b) return fits_a;
    return fits_a ? a.second.size() < b.second.size() : a.second.size() > b.second.size();
  });
  std::vector<Slot> slots;
  for (const auto& [node, free] : nodes) {
    for (const int slot : free) {
      if (static_cast<int>(slots.size()) < wanted) slots.emplace_back(node, slot);
    }
  }
  return slots;
}

std::string Count(int count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

Waiting Unplaceable(const Job& job, const Pool& pool, const std::vector<const Node*>& nodes) {
  const bool any_ready =
      std::any_of(nodes.begin(), nodes.end(), [](const Node* n) { return n->state == NodeState::kReady; });
  const std::string needs = "needs " + Count(job.world_size, job.slot_kind + " slot");
  if (!any_ready)
    return {job.id, Reason::kNoNodes, needs + "; no node is ready: start a worker (`vicreg up`, or `vicreg-worker`)"};
  if (pool.nodes == 0) {
    std::set<std::string> offered;
    for (const Node* node : nodes) {
      if (node->state == NodeState::kReady) offered.insert(node->data_roots.begin(), node->data_roots.end());
    }
    std::string list;
    for (const std::string& root : offered) list += (list.empty() ? "" : ", ") + root;
    return {job.id, Reason::kDataRootMissing,
            "no ready node offers data root " + job.data_root + "; offered: " + (list.empty() ? "none" : list) +
                ": start a worker with --data-root " + job.data_root + "=PATH"};
  }
  return {job.id, Reason::kNotEnoughSlots,
          needs + "; the cluster has " + std::to_string(pool.total) + " (" + std::to_string(pool.free_count) +
              " free) on " + Count(pool.nodes, "ready node") + ": add " + std::to_string(job.world_size - pool.total) +
              " more, or lower world_size"};
}

}  // namespace

Plan MakePlan(const Transaction& state) {
  Plan plan;
  const std::vector<const Node*> nodes = state.Nodes();
  const std::vector<const Job*> jobs = state.LiveJobs();
  std::map<std::string, std::set<Slot>> used;  // by slot kind
  for (const Job* job : jobs) {
    for (const Rank& rank : job->ranks) {
      // A lost rank keeps its claim until its attempt is settled, so that nothing shares the slot with a live process.
      if (job->state != JobState::kQueued && job->state != JobState::kBackoff)
        used[job->slot_kind].insert({rank.node, rank.slot});
    }
  }
  std::map<std::string, const Job*> head;  // by slot kind: the first job that waits for slots in use
  for (const Job* job : jobs) {
    if (job->state == JobState::kBackoff) continue;
    if (job->state != JobState::kQueued) continue;
    const Pool pool = PoolFor(*job, nodes, used);
    if (pool.total < job->world_size) {
      plan.waiting.push_back(Unplaceable(*job, pool, nodes));
      continue;
    }
    if (const Job* first = head[job->slot_kind]; first != nullptr) {
      plan.waiting.push_back({job->id, Reason::kQueuedBehind,
                              "waits behind " + first->name + " (" + first->id.substr(0, 8) +
                                  "), which was submitted earlier and waits for " + Count(first->world_size, "slot")});
      continue;
    }
    if (pool.free_count < job->world_size) {
      head[job->slot_kind] = job;
      plan.waiting.push_back({job->id, Reason::kSlotsInUse,
                              "needs " + Count(job->world_size, job->slot_kind + " slot") + "; " +
                                  std::to_string(pool.free_count) + " of " + std::to_string(pool.total) +
                                  " are free: next when running jobs end"});
      continue;
    }
    Placement placement{job->id, Choose(pool, job->world_size)};
    for (const Slot& slot : placement.slots) used[job->slot_kind].insert(slot);
    plan.placements.push_back(std::move(placement));
  }
  return plan;
}

}  // namespace vicreg::core
