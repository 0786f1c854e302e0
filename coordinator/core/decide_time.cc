#include <algorithm>

#include "common/planted.h"
#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"
#include "coordinator/core/in_place.h"
#include "coordinator/core/index.h"
#include "coordinator/core/node_timers.h"
#include "coordinator/core/probation.h"
#include "coordinator/core/restart.h"
#include "coordinator/core/scheduler.h"

namespace vicreg::core {
namespace {

void GiveUp(Transaction& tx, const std::string& node, const std::string& why) {
  for (const Job* found : tx.HoldingJobs()) {
    if (NodesOf(*found).count(node) == 0) continue;
    if (found->state == JobState::kReserved) {
      Unreserve(tx, tx.EditJob(found->id), "node " + node + " was lost", "coordinator");
      continue;
    }
    if (found->state != JobState::kStarting && found->state != JobState::kRunning &&
        (found->state != JobState::kStopping || Planted(Plant::kLostWhileStopping)))
      continue;
    Job& job = tx.EditJob(found->id);
    for (Rank& rank : job.ranks) {
      if (rank.node != node || rank.settled()) continue;
      rank.state = RankState::kLost;
      rank.exit_reason = ExitReason::kLost;
      rank.exit_message = "node " + node + " was " + why;
    }
    OnRankGone(tx, job, "coordinator");
  }
}

// How often it is stored how long a job has lived: so much may be lost when the coordinator restarts.
std::chrono::microseconds LivedStep(const Job& job) {
  return std::max<std::chrono::microseconds>(std::chrono::minutes(1), std::chrono::microseconds(job.deadline_us / 100));
}

void EndLate(Transaction& tx) {
  for (const Job* found : tx.TimedJobs()) {
    const auto lived = Lived(*found, tx.now, tx.began());
    if (lived.count() < found->deadline_us || Planted(Plant::kDeadlineIgnored)) {
      if (lived.count() - found->lived_us < LivedStep(*found).count()) continue;
      Job& job = tx.EditJob(found->id);
      job.lived_us = lived.count();
      job.lived_as_of = tx.now;
    } else if (Graver(Destination::kFail, found->destination)) {
      Stop(tx, tx.EditJob(found->id), Destination::kFail, Reason::kDeadline, tx.options.stop_grace_seconds,
           PastDeadline(*found), "coordinator");
    }
  }
}

// A retry in place that waited for its delay alone: it keeps its slots only if it still may.
void AfterDelay(Transaction& tx, Job& job) {
  if (MayStay(tx, job)) return LaunchIfReady(tx, job, "coordinator");
  Unreserve(tx, job, "since its delay began, a node was closed or a job that goes first wants its slots",
            "coordinator");
}

}  // namespace

void OnTime(Transaction& tx, std::chrono::milliseconds since_start) {
  const std::vector<const Node*> nodes = tx.Nodes();
  const NodeTimers timers = TimersFor(nodes, tx.options);
  const auto seconds = [](std::chrono::milliseconds time) { return std::to_string(time.count() / 1000) + " s"; };
  for (const Node* found : nodes) {
    if (found->state == NodeState::kLost) continue;
    const auto silent =
        found->last_heard == TimePoint{}  ? std::chrono::duration_cast<std::chrono::nanoseconds>(since_start)
        : Planted(Plant::kWallClockLease) ? std::chrono::nanoseconds((tx.wall_us - found->last_heard_us) * 1000)
                                          : tx.now - found->last_heard;
    if (found->state == NodeState::kReady && silent >= timers.suspect) {
      Node& node = tx.EditNode(found->name);
      node.state = NodeState::kSuspect;
      node.message = "silent for " + seconds(timers.suspect) + ": nothing new is placed there";
    } else if (found->state != NodeState::kReady && silent >= timers.lost &&
               (since_start >= tx.options.failover_grace || Planted(Plant::kNoGrace))) {
      const std::string name = found->name;
      Node& node = tx.EditNode(name);
      node.state = NodeState::kLost;
      node.message = "silent for " + seconds(timers.lost) + ": its ranks are given up";
      GiveUp(tx, name, node.message);
    } else {
      ProbeWhenDue(tx, *found);
    }
  }
  for (const Job* found : tx.HoldingJobs()) {
    if (found->state != JobState::kReserved) continue;
    if (tx.now >= found->deadline) {
      Unreserve(tx, tx.EditJob(found->id), "workers did not confirm within 10 s", "coordinator");
    } else if (tx.now >= found->not_before && !found->prepared.empty() && found->prepared == NodesOf(*found)) {
      AfterDelay(tx, tx.EditJob(found->id));
    }
  }
  EndLate(tx);
  for (const Job* found : tx.DelayedJobs()) {
    if (tx.now >= found->not_before) {
      Job& job = tx.EditJob(found->id);
      job.ranks.clear();
      Requeue(tx, job, Reason::kNone, "delay over, queued again", "coordinator");
    }
  }
}

namespace {

void Place(Transaction& tx, const Placement& placement) {
  Job& job = tx.EditJob(placement.job_id);
  std::set<std::string> nodes;
  for (const Slot& slot : placement.slots) nodes.insert(slot.node);
  std::string where;
  for (const std::string& node : nodes) where += (where.empty() ? "" : ", ") + node;
  Reserve(tx, job, placement.slots, tx.now, Reason::kReserving,
          "attempt " + std::to_string(job.attempt + 1) + ": " + std::to_string(placement.slots.size()) + " slots on " +
              where,
          "scheduler");
}

}  // namespace

void Schedule(Transaction& tx) {
  Plan plan = MakePlan(tx);
  for (const Placement& placement : plan.placements) Place(tx, placement);
  for (const Preemption& preemption : plan.preemptions) {
    Job& victim = tx.EditJob(preemption.victim);
    const std::chrono::duration<double> unsaved = victim.running_since == TimePoint{}
                                                      ? std::chrono::duration<double>{}
                                                      : tx.now - std::max(victim.running_since, victim.checkpoint_time);
    tx.CountPreemption(victim.world_size * std::max(unsaved.count(), 0.0));
    Stop(tx, victim, Destination::kRequeue, Reason::kPreempted, tx.options.stop_grace_seconds, preemption.message,
         "scheduler");
  }
  for (const Growth& growth : plan.growths) {
    Job& job = tx.EditJob(growth.job_id);
    Stop(tx, job, Destination::kRequeue, Reason::kResized, tx.options.stop_grace_seconds,
         std::to_string(job.world_size) + " -> " + std::to_string(growth.world_size) +
             " ranks, as slots are free that nobody waits for",
         "scheduler");
  }
  tx.Explain(std::move(plan.waiting), plan.next_pass);
  tx.Rest();
}

Foreseen PlanOf(const Transaction& tx, Job job) {
  Transaction trial = tx;
  job.id = "planned";
  const std::string alike = ClassOf(job);
  trial.AddJob(std::move(job)).state = JobState::kQueued;
  const Plan plan = MakePlan(trial);
  Foreseen foreseen;
  for (const Placement& placement : plan.placements) {
    if (placement.job_id == "planned") foreseen.slots = placement.slots;
  }
  for (const Preemption& preemption : plan.preemptions) {
    if (preemption.for_job == "planned") foreseen.displaces.push_back(preemption.victim);
  }
  if (const auto why = plan.waiting.find(alike); foreseen.slots.empty() && why != plan.waiting.end())
    foreseen.why = why->second;
  return foreseen;
}

void Recover(Transaction& tx) {
  for (const Job* found : tx.HoldingJobs()) {
    if (found->state != JobState::kReserved) continue;
    Job& job = tx.EditJob(found->id);
    if (job.charges > 0) job.not_before = tx.now + BackoffAfter(job.charges, tx.options);  // below
    Unreserve(tx, job, "the coordinator restarted before all workers confirmed", "coordinator");
  }
  // When a delay began is not stored: it begins anew, so that our restarts do not make a crash loop faster.
  for (const Job* found : tx.DelayedJobs()) {
    if (found->not_before != TimePoint{}) continue;
    tx.EditJob(found->id).not_before = tx.now + BackoffAfter(found->charges, tx.options);
  }
}

}  // namespace vicreg::core
