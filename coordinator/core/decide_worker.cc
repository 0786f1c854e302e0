#include <algorithm>

#include "common/planted.h"
#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"
#include "coordinator/core/node_timers.h"
#include "coordinator/core/probation.h"

namespace vicreg::core {
namespace {

bool IsHeld(const std::vector<Held>& held, const Job& job, const Rank& rank) {
  return std::any_of(held.begin(), held.end(), [&](const Held& h) {
    return h.job_id == job.id && h.attempt == job.attempt && h.rank == rank.rank;
  });
}

// What the node was told and may not have heard, and what it should hold and does not.
void Reconcile(Transaction& tx, const std::string& node, std::int64_t incarnation, bool same_process,
               const std::vector<Held>& held) {
  for (const Job* found : tx.HoldingJobs()) {
    if (NodesOf(*found).count(node) == 0) continue;
    Job& job = tx.EditJob(found->id);
    if (job.state == JobState::kReserved) {
      if (same_process) {
        tx.Send(node, SendPrepare{job.id});
      } else {
        Unreserve(tx, job, "worker " + node + " restarted", "worker");
      }
      continue;
    }
    if (!HoldsProcesses(job)) continue;
    bool gone = false, launch = false;
    for (Rank& rank : job.ranks) {
      if (rank.node != node || rank.settled() || IsHeld(held, job, rank)) continue;
      if (same_process && rank.state == RankState::kAssigned && job.state == JobState::kStarting) {
        launch = true;  // the Launch was lost with the connection
        continue;
      }
      rank.state = RankState::kLost;
      rank.exit_reason = ExitReason::kLost;
      rank.exit_message =
          same_process ? "worker " + node + " no longer holds it" : "worker " + node + " restarted and did not find it";
      gone = true;
    }
    for (Rank& rank : job.ranks) {
      if (rank.node == node && !rank.settled()) rank.incarnation = incarnation;
    }
    if (launch && !Planted(Plant::kLaunchNotRepeated)) tx.Send(node, SendLaunch{job.id});
    if (job.state == JobState::kStopping) {
      if (job.destination != Destination::kByOutcome) {
        tx.Send(node, SendStop{job.id, job.attempt, 10, job.message});
      } else {
        tx.Send(node, SendAbort{job.id, job.attempt, job.message});
      }
    }
    if (gone) OnRankGone(tx, job, "worker");
  }
}

// Of a node whose worker registers. One that is back before it was lost, on the same boot, needs no probe.
NodeState StateAfter(const Node* known, bool rebooted) {
  if (known == nullptr) return NodeState::kProbing;
  if (known->state == NodeState::kQuarantined) return NodeState::kQuarantined;
  const bool probed = rebooted || known->state == NodeState::kLost || known->state == NodeState::kProbing;
  return probed ? NodeState::kProbing : NodeState::kReady;
}

}  // namespace

absl::StatusOr<Welcome> Register(Transaction& tx, const Registration& registration) {
  const Node* known = tx.FindNode(registration.node.name);
  const bool same_process = known != nullptr && registration.node.incarnation != 0;
  if (same_process && registration.node.incarnation != known->incarnation) {
    ++tx.fenced;
    return absl::AbortedError("node " + known->name + " is at incarnation " + std::to_string(known->incarnation) +
                              ", this worker at " + std::to_string(registration.node.incarnation) +
                              ": a newer worker took its place; this one must end");
  }
  const bool rebooted = known != nullptr && known->boot_id != registration.node.boot_id;
  if (rebooted && known->last_heard != TimePoint{} &&
      tx.now - known->last_heard < TimersFor(tx.Nodes(), tx.options).suspect) {
    return absl::AlreadyExistsError(
        "node name " + known->name + " is in use by another machine, heard " +
        std::to_string(std::chrono::duration_cast<std::chrono::seconds>(tx.now - known->last_heard).count()) +
        " s ago: give this worker another --node name");
  }
  Node next = registration.node;
  next.incarnation = same_process ? known->incarnation : (known == nullptr ? 0 : known->incarnation) + 1;
  next.message = same_process ? "connected again" : "registered";
  next.state = StateAfter(known, rebooted);
  if (next.state == NodeState::kProbing) next.message += ": probed before anything is placed there";
  if (known != nullptr) {
    next.admin = known->admin;
    next.strikes = known->strikes;
    next.probe = known->probe;
    if (next.state == NodeState::kQuarantined) next.message = known->message;
  }
  next.problem.clear();
  next.last_heard = tx.now;
  next.last_heard_us = tx.wall_us;
  Node& node = known == nullptr ? tx.AddNode(next) : (tx.EditNode(next.name) = next);
  if (node.state == NodeState::kProbing) AskProbe(tx, node);
  Reconcile(tx, next.name, next.incarnation, same_process, registration.held);
  Welcome welcome{next.incarnation, {}, {}};
  for (const Held& held : registration.held) {
    const Job* job = tx.FindJob(held.job_id);
    if (job == nullptr || held.attempt != job->attempt) continue;  // fenced: the worker kills it
    const auto rank = std::find_if(job->ranks.begin(), job->ranks.end(),
                                   [&](const Rank& r) { return r.rank == held.rank && r.node == next.name; });
    if (rank == job->ranks.end() || rank->settled()) continue;
    welcome.keep.push_back(held);
    welcome.cursors.push_back(rank->acked);
  }
  return welcome;
}

absl::Status Heartbeat(Transaction& tx, const std::string& name, std::int64_t incarnation) {
  const Node* node = tx.FindNode(name);
  if (node == nullptr || node->incarnation != incarnation) {
    ++tx.fenced;
    return absl::AbortedError("heartbeat of incarnation " + std::to_string(incarnation) + " of node " + name +
                              " is not current: register again");
  }
  // LOST is left by registering alone: its ranks were given up.
  if (node->state == NodeState::kLost && !Planted(Plant::kLostForgiven))
    return absl::AbortedError("node " + name + " was lost: register again");
  const bool returned = node->state == NodeState::kSuspect || node->state == NodeState::kLost;
  Node& edited = returned ? tx.EditNode(name) : tx.TouchNode(name);
  edited.last_heard = tx.now;
  edited.last_heard_us = tx.wall_us;
  if (returned) {
    edited.state = NodeState::kReady;
    edited.message = "heard again";
  }
  return absl::OkStatus();
}

void OnPrepared(Transaction& tx, const std::string& node, std::int64_t incarnation, const std::string& job_id,
                int attempt, const std::string& refusal) {
  const Job* found = tx.FindJob(job_id);
  const Node* sender = tx.FindNode(node);
  if (found == nullptr || sender == nullptr || sender->incarnation != incarnation || found->attempt != attempt ||
      found->state != JobState::kReserved || NodesOf(*found).count(node) == 0) {
    ++tx.fenced;
    return;
  }
  Job& job = tx.EditJob(job_id);
  if (!refusal.empty()) {
    Unreserve(tx, job, "worker " + node + " refused: " + refusal, "worker");
    return;
  }
  job.prepared.insert(node);
  LaunchIfReady(tx, job, "worker");
}

namespace {

// Of a report that does not count.
std::string WhyNotCurrent(const Job* job, const std::string& node, std::int64_t incarnation, const Report& report) {
  if (job == nullptr) return "there is no such job";
  if (job->attempt != report.attempt) return "its attempt is " + std::to_string(job->attempt);
  for (const Rank& rank : job->ranks) {
    if (rank.rank != report.rank) continue;
    if (rank.node != node) return "that rank belongs to node " + rank.node;
    if (rank.incarnation != incarnation)
      return "that rank belongs to the node's incarnation " + std::to_string(rank.incarnation);
    return rank.state == RankState::kLost ? "that rank was given up" : std::string("it is ") + Name(job->state);
  }
  return "it has no such rank now";
}

}  // namespace

void OnReport(Transaction& tx, const std::string& node, std::int64_t incarnation, const Report& report) {
  const auto answer = [&](bool fenced) {
    tx.Send(node, SendAck{report.job_id, report.attempt, report.rank, report.sequence, fenced});
  };
  const Job* found = tx.FindJob(report.job_id);
  const auto position = [&](const Job& j) {
    return std::find_if(j.ranks.begin(), j.ranks.end(), [&](const Rank& r) {
      return r.rank == report.rank && r.node == node && r.incarnation == incarnation;
    });
  };
  // Nothing was launched for a reservation, and what a rank does after it was given up is not committed.
  const bool current = found != nullptr && (found->attempt == report.attempt || Planted(Plant::kAttemptFenceDropped)) &&
                       found->state != JobState::kReserved && position(*found) != found->ranks.end() &&
                       position(*found)->state != RankState::kLost;
  if (!current) {
    ++tx.fenced;
    tx.refusal = "refused a report by node " + node + " (incarnation " + std::to_string(incarnation) + ") about job " +
                 report.job_id.substr(0, 80) + " attempt " + std::to_string(report.attempt) + " rank " +
                 std::to_string(report.rank) + ": " + WhyNotCurrent(found, node, incarnation, report);
    // Whoever said it has ended, or is about to. A newer worker of that node would take the answer for its own, and end
    // the rank that it has adopted.
    const Node* sender = tx.FindNode(node);
    if (sender == nullptr || sender->incarnation == incarnation) answer(true);
    return;
  }
  const Rank& before = *position(*found);
  if (report.sequence <= before.acked || before.settled()) {
    answer(false);
    return;
  }
  Job& job = tx.EditJob(report.job_id);
  Rank& rank = job.ranks[static_cast<std::size_t>(position(job) - job.ranks.begin())];
  rank.acked = report.sequence;
  ++job.version;
  switch (report.kind) {
    case Report::Kind::kNothing:
      break;
    case Report::Kind::kSpawned:
      rank.pid = report.pid;
      if (rank.state == RankState::kAssigned) rank.state = RankState::kSpawned;
      break;
    case Report::Kind::kConnected:
      rank.state = std::max(rank.state, RankState::kConnected);
      if (report.total_steps > 0) job.total_steps = report.total_steps;
      break;
    case Report::Kind::kStepping:
      rank.state = RankState::kStepping;
      if (job.state == JobState::kStarting && std::all_of(job.ranks.begin(), job.ranks.end(), [](const Rank& r) {
            return r.state == RankState::kStepping;
          })) {
        job.running_since = tx.now;
        tx.Move(job, JobState::kRunning, Reason::kTraining,
                job.resumed_step > 0 ? "training on from step " + std::to_string(job.resumed_step) : "training",
                "RUNNING", "worker");
      }
      break;
    case Report::Kind::kCheckpoint: {
      // The newest checkpoint only moves forward, and not at all while the job is on its way back to an older one.
      if (report.checkpoint.step > NewestStep(job) && job.rollback_to < 0) {
        job.checkpoints.insert(job.checkpoints.begin(), report.checkpoint);
        if (job.checkpoints.size() > static_cast<std::size_t>(std::max(job.checkpoint_keep, 2)))
          job.checkpoints.erase(Planted(Plant::kNewestPruned) ? job.checkpoints.begin() : job.checkpoints.end() - 1);
        job.charges = 0;
        job.checkpoint_time = tx.now;
        tx.Note(job, Reason::kTraining, "checkpoint of step " + std::to_string(report.checkpoint.step) + " committed",
                "CHECKPOINT", "rank");
      }
      break;
    }
    case Report::Kind::kExported:
      if (job.export_path == report.export_path) break;  // said again by a rank whose worker was replaced
      job.export_path = report.export_path;
      tx.Note(job, Reason::kTraining, "encoder exported", "EXPORTED", "rank");
      break;
    case Report::Kind::kExited:
      rank.state = RankState::kExited;
      rank.pid = 0;
      rank.exit_reason = report.exit_reason;
      rank.exit_message = report.exit_message;
      rank.nonfinite_step = report.nonfinite_step;
      rank.last_step = report.last_step;
      OnRankGone(tx, job, "worker");
      break;
  }
  answer(false);
}

}  // namespace vicreg::core
