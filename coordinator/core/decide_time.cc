#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"
#include "coordinator/core/scheduler.h"

namespace vicreg::core {
namespace {

void GiveUp(Transaction& tx, const std::string& node) {
  for (const Job* found : tx.LiveJobs()) {
    if (NodesOf(*found).count(node) == 0) continue;
    if (found->state == JobState::kReserved) {
      Unreserve(tx, tx.EditJob(found->id), "node " + node + " was lost", "coordinator");
      continue;
    }
    if (found->state != JobState::kStarting && found->state != JobState::kRunning &&
        found->state != JobState::kStopping)
      continue;
    Job& job = tx.EditJob(found->id);
    for (Rank& rank : job.ranks) {
      if (rank.node != node || rank.settled()) continue;
      rank.state = RankState::kLost;
      rank.exit_reason = ExitReason::kLost;
      rank.exit_message = "node " + node + " was silent for 20 s";
    }
    OnRankGone(tx, job, "coordinator");
  }
}

}  // namespace

void OnTime(Transaction& tx, std::chrono::milliseconds since_start) {
  for (const Node* found : tx.Nodes()) {
    if (found->state != NodeState::kReady && found->state != NodeState::kSuspect && found->state != NodeState::kJoining)
      continue;
    const auto silent = found->last_heard == TimePoint{}
                            ? std::chrono::duration_cast<std::chrono::nanoseconds>(since_start)
                            : tx.now - found->last_heard;
    if (found->state == NodeState::kReady && silent >= tx.options.suspect) {
      Node& node = tx.EditNode(found->name);
      node.state = NodeState::kSuspect;
      node.message = "silent for 5 s: nothing new is placed there";
    } else if (found->state != NodeState::kReady && silent >= tx.options.lost &&
               since_start >= tx.options.failover_grace) {
      const std::string name = found->name;
      Node& node = tx.EditNode(name);
      node.state = NodeState::kLost;
      node.message = "silent for 20 s: its ranks are given up";
      GiveUp(tx, name);
    }
  }
  for (const Job* found : tx.LiveJobs()) {
    if (found->state == JobState::kReserved && tx.now >= found->deadline) {
      Unreserve(tx, tx.EditJob(found->id), "workers did not confirm within 10 s", "coordinator");
    } else if (found->state == JobState::kBackoff && tx.now >= found->not_before) {
      Job& job = tx.EditJob(found->id);
      job.ranks.clear();
      tx.Move(job, JobState::kQueued, Reason::kNone, "delay over, queued again", "QUEUED", "coordinator");
    }
  }
}

void Schedule(Transaction& tx) {
  const Plan plan = MakePlan(tx);
  for (const Placement& placement : plan.placements) {
    Job& job = tx.EditJob(placement.job_id);
    ++job.attempt;  // committed before any message names it: this is the fence
    job.ranks.clear();
    job.prepared.clear();
    for (std::size_t i = 0; i < placement.slots.size(); ++i) {
      Rank rank;
      rank.rank = static_cast<int>(i);
      rank.node = placement.slots[i].first;
      rank.slot = placement.slots[i].second;
      rank.incarnation = tx.FindNode(rank.node)->incarnation;
      job.ranks.push_back(rank);
    }
    job.resumed_step = job.checkpoints.empty() ? 0 : job.checkpoints.front().step;
    job.deadline = tx.now + tx.options.reservation;
    const std::set<std::string> nodes = NodesOf(job);
    std::string where;
    for (const std::string& node : nodes) where += (where.empty() ? "" : ", ") + node;
    tx.Move(job, JobState::kReserved, Reason::kReserving,
            "attempt " + std::to_string(job.attempt) + ": " + std::to_string(job.world_size) + " slots on " + where,
            "RESERVED", "scheduler");
    for (const std::string& node : nodes) tx.Send(node, SendPrepare{job.id});
  }
  for (const Waiting& waiting : plan.waiting) {
    const Job* job = tx.FindJob(waiting.job_id);
    if (job->reason == waiting.reason && job->message == waiting.message) continue;
    tx.Explain(tx.EditJob(waiting.job_id), waiting.reason, waiting.message);
  }
}

void Recover(Transaction& tx) {
  for (const Job* found : tx.LiveJobs()) {
    if (found->state == JobState::kReserved)
      Unreserve(tx, tx.EditJob(found->id), "the coordinator restarted before all workers confirmed", "coordinator");
  }
}

}  // namespace vicreg::core
