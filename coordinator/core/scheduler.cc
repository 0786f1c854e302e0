#include "coordinator/core/scheduler.h"

#include <algorithm>
#include <climits>
#include <optional>

#include "common/planted.h"
#include "coordinator/core/fit.h"
#include "coordinator/core/index.h"
#include "coordinator/core/misfit.h"
#include "coordinator/core/order.h"
#include "coordinator/core/preempt.h"

namespace vicreg::core {
namespace {

// One pass over everybody who waits.
class Pass {
 public:
  explicit Pass(const Transaction& state)
      : state_(state), nodes_(state.Nodes()), preemptions_(state.RecentPreemptions()), running_(state.HoldingJobs()) {}

  Plan Make() {
    std::map<std::string, int> held;
    for (const Job* job : running_) {
      held[job->project] += job->world_size;
      held_[{job->project, job->slot_kind}] += job->world_size;
    }
    Order order(std::move(held), state_);
    while (const Job* job = order.Next()) {
      if (const int slots = Give(*job, order.alike()); slots > 0) {
        order.Placed(slots);
      } else {
        order.Drop();
      }
    }
    for (const Job* job : running_) Grow(*job);
    return std::move(plan_);
  }

 private:
  // Nodes for one shape, and their slots as of some number of changes of the pool.
  struct Candidates {
    Eligible nodes;
    int total = 0, free = 0, available = 0;
    int as_of = -1;
  };

  struct Pool {
    Slots now;        // free and not promised
    Slots soon;       // as if gangs that are stopping had stopped
    int changes = 0;  // of `now`
    // By shape and, where some nodes failed under the job, smallest gang: which nodes are trusted then depends on both.
    std::map<std::pair<Shape, int>, Candidates> candidates;
    const Job* promised_to = nullptr;
    bool waits = false;  // somebody waits for slots of this kind
  };

  Pool& PoolOf(const std::string& kind) {
    const auto found = pools_.find(kind);
    if (found != pools_.end()) return found->second;
    const Slots all(nodes_, kind);
    Pool pool{all, all, 0, {}, nullptr, false};
    for (const Job* job : running_) {
      if (job->slot_kind != kind) continue;
      if (Planted(Plant::kDoubleClaim) && job->state == JobState::kReserved) continue;
      for (const Rank& rank : job->ranks) {
        // A lost rank keeps its claim until its attempt is settled, so that nothing shares the slot with a live
        // process.
        pool.now.Take({rank.node, rank.slot});
        if (job->state != JobState::kStopping) pool.soon.Take({rank.node, rank.slot});
      }
    }
    return pools_.emplace(kind, std::move(pool)).first->second;
  }

  static const Candidates& CandidatesOf(Pool& pool, const Shape& shape, int min_world) {
    const auto [found, added] = pool.candidates.try_emplace({shape, shape.excluded.empty() ? 0 : min_world});
    Candidates& here = found->second;
    if (added) {
      here.nodes = EligibleFor(pool.now, shape, min_world);
      for (const std::size_t i : here.nodes) here.total += pool.now.places()[i].total;
    }
    if (here.as_of != pool.changes) {
      here.free = here.available = 0;
      for (const std::size_t i : here.nodes) {
        here.free += static_cast<int>(pool.now.places()[i].free.size());
        here.available += pool.now.places()[i].available();
      }
      here.as_of = pool.changes;
    }
    return here;
  }

  // Of a job whose gang must not have both of two nodes.
  static Candidates Narrowed(const Pool& pool, const Candidates& all, const Shape& shape, const Job& job) {
    Candidates rest;
    rest.nodes = WithoutBadPairs(pool.now, all.nodes, shape, job.min_world, job.topology);
    for (const std::size_t i : rest.nodes) {
      const Place& place = pool.now.places()[i];
      rest.total += place.total;
      rest.free += static_cast<int>(place.free.size());
      rest.available += place.available();
    }
    return rest;
  }

  int HeldBy(const Job& job) { return held_[{job.project, job.slot_kind}]; }
  int QuotaOf(const Job& job) const { return state_.FindProject(job.project).Quota(job.slot_kind); }
  // Slots that its project's quota leaves.
  int AllowedTo(const Job& job) {
    const int quota = QuotaOf(job);
    return quota < 0 || Planted(Plant::kQuotaIgnored) ? INT_MAX : std::max(0, quota - HeldBy(job));
  }

  // Slots it was given; 0: its class waits, and why.
  int Give(const Job& job, const std::string& alike) {
    Pool& pool = PoolOf(job.slot_kind);
    const Queue* queue = state_.FindQueue({job.project, job.queue});
    const Shape shape = ShapeOf(job, queue);
    const Candidates& all = CandidatesOf(pool, shape, job.min_world);
    std::optional<Candidates> narrowed;
    if (!shape.bad_pairs.empty()) narrowed = Narrowed(pool, all, shape, job);
    const Candidates& candidates = narrowed ? *narrowed : all;
    const Eligible& eligible = candidates.nodes;
    const int allowed = AllowedTo(job);
    const Misfit misfit{job, shape, offers_, pool.now, eligible, candidates.total, candidates.free};

    const auto wait = [&](Explanation why) {
      plan_.waiting[alike] = std::move(why);
      return 0;
    };
    if (queue != nullptr && !queue->open) return wait(misfit.QueueClosed());
    // What the cluster could not hold even when empty keeps nobody waiting.
    if (auto never = misfit.Never()) return wait(*std::move(never));
    if (allowed < job.min_world) return wait(misfit.OverQuota(QuotaOf(job), HeldBy(job)));

    std::vector<Slot> slots = SameAgain(job, pool.now, eligible, allowed);
    if (slots.empty() && candidates.available >= job.min_world)
      slots = Pick(pool.now, eligible, job.min_world, std::min(job.max_world, allowed), job.topology);
    if (!slots.empty()) {
      for (const Slot& slot : slots) {
        pool.now.Take(slot);
        pool.soon.Take(slot);
      }
      ++pool.changes;
      const int count = static_cast<int>(slots.size());
      held_[{job.project, job.slot_kind}] += count;
      plan_.placements.push_back({job.id, std::move(slots)});
      return count;
    }
    pool.waits = true;
    if (pool.promised_to != nullptr)
      return wait(misfit.free >= job.min_world ? misfit.Behind(*pool.promised_to) : misfit.InUse());
    Explanation why = misfit.InUse();
    const bool coming =
        !Pick(pool.soon, eligible, job.min_world, std::min(job.max_world, allowed), job.topology).empty();
    if (coming) {
      why = misfit.Stopping();
    } else if (const Victims victims = ChooseVictims(job, pool.soon, eligible, allowed, running_, preemptions_, state_);
               !victims.jobs.empty()) {
      for (const Job* victim : victims.jobs) {
        plan_.preemptions.push_back({victim->id, job.id, misfit.Preempts(*victim)});
        preemptions_.push_back(state_.now);
      }
      why = misfit.Stopping();
    } else {
      plan_.next_pass = std::min(plan_.next_pass, victims.later);
    }
    Earmark(pool.now, eligible, job.min_world, job.topology);
    ++pool.changes;
    pool.promised_to = &job;
    return wait(std::move(why));
  }

  // After a crash a gang returns to the slots it had: caches are warm, and whose fault it was shows.
  static std::vector<Slot> SameAgain(const Job& job, const Slots& slots, const Eligible& eligible, int allowed) {
    const int world = static_cast<int>(job.last_slots.size());
    if (world < job.min_world || world > std::min(job.max_world, allowed)) return {};
    std::map<std::string, int> wanted;
    for (const Slot& slot : job.last_slots) {
      const auto place = std::find_if(eligible.begin(), eligible.end(),
                                      [&](std::size_t i) { return slots.places()[i].node->name == slot.node; });
      if (place == eligible.end()) return {};
      const Place& there = slots.places()[*place];
      if (!std::binary_search(there.free.begin(), there.free.end(), slot.index)) return {};
      if (++wanted[slot.node] > there.available()) return {};
    }
    return job.last_slots;
  }

  // One gang a pass, when nobody waits for its slots: a resize costs a restart.
  void Grow(const Job& job) {
    if (job.one_attempt || job.state != JobState::kRunning || job.world_size >= job.max_world || !plan_.growths.empty())
      return;
    Pool& pool = PoolOf(job.slot_kind);
    if (pool.waits) return;
    const TimePoint ripe = std::max(job.running_since, state_.began()) + state_.options.min_runtime;
    if (state_.now < ripe) {
      plan_.next_pass = std::min(plan_.next_pass, ripe);
      return;
    }
    const int most = job.world_size + std::min(job.max_world - job.world_size, AllowedTo(job));
    Slots without = pool.now;
    for (const Rank& rank : job.ranks) without.Free({rank.node, rank.slot});
    const Shape shape = ShapeOf(job, state_.FindQueue({job.project, job.queue}));
    Eligible eligible = EligibleFor(without, shape, job.min_world);
    if (!shape.bad_pairs.empty()) eligible = WithoutBadPairs(without, eligible, shape, job.min_world, job.topology);
    const auto slots = Pick(without, eligible, job.min_world, most, job.topology);
    if (static_cast<int>(slots.size()) > job.world_size)
      plan_.growths.push_back({job.id, static_cast<int>(slots.size())});
  }

  const Transaction& state_;
  const std::vector<const Node*> nodes_;
  Offers offers_{nodes_};
  std::vector<TimePoint> preemptions_;  // of the last hour, those of this pass too
  const std::vector<const Job*> running_;
  std::map<std::pair<std::string, std::string>, int> held_;  // by project and kind
  std::map<std::string, Pool> pools_;
  Plan plan_;
};

}  // namespace

Plan MakePlan(const Transaction& state) { return Pass(state).Make(); }

Explanation Explain(const Job& job, const std::map<std::string, Explanation>& waiting) {
  if (job.state == JobState::kQueued) {
    if (const auto found = waiting.find(ClassOf(job)); found != waiting.end()) return found->second;
  }
  return {job.reason, job.message};
}

}  // namespace vicreg::core
