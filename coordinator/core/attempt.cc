#include "coordinator/core/attempt.h"

#include <algorithm>
#include <utility>

#include "common/planted.h"
#include "coordinator/core/in_place.h"
#include "coordinator/core/restart.h"
#include "coordinator/core/strikes.h"

namespace vicreg::core {
namespace {

// Of one job; placement tries every way to avoid them.
constexpr std::size_t kMaxBadPairs = 4;

const char* RestartCause(const AttemptEnd& end) {
  switch (end.reason) {
    case ExitReason::kLost:
      return "node_lost";
    case ExitReason::kHung:
      return "hang";
    case ExitReason::kNumeric:
      return "rollback";
    case ExitReason::kDeviceOom:
    case ExitReason::kHostOom:
      return "oom";
    case ExitReason::kRendezvous:
    case ExitReason::kCollective:
    case ExitReason::kStorage:
    case ExitReason::kDevice:
    case ExitReason::kStartFailed:
      return "infra";
    default:
      return "crash";
  }
}

// Of restarts that were wished for, by others than the job's user; null: the user's own.
const char* MoveCause(Reason cause) {
  if (cause == Reason::kPreempted) return "preempt";
  return cause == Reason::kDrained || cause == Reason::kResized ? "move" : nullptr;
}

// A failure that is the node's: it counts against the node, and the job goes elsewhere.
bool BlamesNode(ExitReason reason) { return reason == ExitReason::kDevice || reason == ExitReason::kStartFailed; }

void Blame(Transaction& tx, Job& job, const AttemptEnd& end) {
  if (!BlamesNode(end.reason) || end.rank < 0) return;
  const std::string name = job.ranks[static_cast<std::size_t>(end.rank)].node;
  job.excluded.insert(name);
  if (tx.FindNode(name) != nullptr) AddStrike(tx, name, job.id, end.what);
}

// A gang of two nodes that do not reach each other, with nothing else the matter with them: twice in a row it is their
// link, and the job's gangs have one of them from now on. What it says; empty: nothing.
std::string BlameLink(const Transaction& tx, Job& job, const AttemptEnd& end) {
  const NodePair before = std::exchange(job.suspect_pair, {});
  if (end.reason != ExitReason::kCollective && end.reason != ExitReason::kRendezvous) return {};
  const std::set<std::string> nodes = NodesOf(job);
  if (nodes.size() != 2) return {};
  const bool good = std::all_of(nodes.begin(), nodes.end(), [&](const std::string& name) {
    const Node* node = tx.FindNode(name);
    return node != nullptr && node->state == NodeState::kReady && job.excluded.count(name) == 0;
  });
  if (!good) return {};
  const NodePair pair(*nodes.begin(), *nodes.rbegin());
  if (pair != before) {
    job.suspect_pair = pair;
    return {};
  }
  // With more of them it is no link that is bad; INFRA_HOLD ends that.
  if (job.bad_pairs.size() >= kMaxBadPairs || !job.bad_pairs.insert(pair).second) return {};
  return "; twice in a row between " + pair.first + " and " + pair.second + ": it goes to one of them from now on";
}

// What came after the checkpoint that a restart was asked from is given up.
void RollBack(Transaction& tx, Job& job) {
  if (job.rollback_to < 0) return;
  std::erase_if(job.checkpoints, [&](const Checkpoint& c) { return c.step > job.rollback_to; });
  tx.Note(job, Reason::kRestarted, "goes back to step " + std::to_string(job.rollback_to), "ROLLED_BACK", "user");
  job.rollback_to = -1;
}

bool TooManyInfraEnds(const Transaction& tx, Job& job) {
  const std::int64_t oldest = tx.wall_us - std::chrono::microseconds(tx.options.infra_window).count();
  std::erase_if(job.infra_ends_us, [&](std::int64_t at) { return at < oldest; });
  job.infra_ends_us.push_back(tx.wall_us);
  return static_cast<int>(job.infra_ends_us.size()) > tx.options.infra_ends;
}

// "2 s", "1.5 s".
std::string Seconds(std::chrono::milliseconds time) {
  std::string text = std::to_string(time.count() / 1000);
  if (time.count() % 1000 != 0) text += "." + std::to_string(1000 + time.count() % 1000).substr(1);
  return text + " s";
}

// Of a job that was told to end.
std::string WhyFailed(const Job& job, Reason cause) {
  const std::string saved = job.checkpoints.empty()
                                ? "nothing was saved"
                                : "its checkpoint of step " + std::to_string(NewestStep(job)) + " is kept";
  if (cause == Reason::kDeadline) return PastDeadline(job) + ": all ranks have ended, " + saved;
  return "it had started and was stopped, and `restart: never` allows no other attempt: " + saved;
}

void Settle(Transaction& tx, Job& job, const std::string& actor) {
  // Also when every rank completed meanwhile: an acknowledged wish is kept.
  if (job.destination == Destination::kCancel && !Planted(Plant::kCancelLost)) {
    tx.Move(job, JobState::kCancelled, Reason::kCancelRequested, "cancelled; all ranks have ended", "CANCELLED", actor);
    return;
  }
  const AttemptEnd end = CauseOf(job.ranks);
  const NextMove next = DecideAfterEnd(job, end, NewestStep(job), tx.options);
  job.last_slots.clear();
  for (const Rank& rank : job.ranks) job.last_slots.push_back({rank.node, rank.slot});
  if (next.kind == NextMove::Kind::kSucceed) {
    tx.Move(job, JobState::kSucceeded, next.reason, next.message, "SUCCEEDED", actor);
    return;
  }
  // A planned stop is nobody's fault, whatever ranks said while they were being stopped, but for what no retry mends.
  if (job.destination != Destination::kByOutcome && !next.final) {
    RollBack(tx, job);
    job.ranks.clear();
    job.last_slots.clear();
    const Destination destination = std::exchange(job.destination, Destination::kByOutcome);
    const Reason cause = std::exchange(job.cause, Reason::kNone);
    if (Planted(Plant::kPreemptionCharged)) ++job.charges;
    const std::string goes_on = "from step " + std::to_string(NewestStep(job));
    if (destination == Destination::kFail) {
      tx.Move(job, JobState::kFailed, cause, WhyFailed(job, cause), "FAILED", actor);
    } else if (destination == Destination::kPause) {
      tx.Move(job, JobState::kPaused, cause, "paused: `vicreg resume` goes on " + goes_on, "PAUSED", actor);
    } else {
      if (const char* moved = MoveCause(cause); moved != nullptr) ++job.restarts[moved];
      Requeue(tx, job, cause, "stopped; queued again, its age kept, to go on " + goes_on, actor);
    }
    return;
  }
  job.charges = next.charges;
  if (next.crash) job.crash = *next.crash;
  if (next.kind == NextMove::Kind::kFail) {
    tx.Move(job, JobState::kFailed, next.reason, next.message, "FAILED", "restart policy");
    return;
  }
  Blame(tx, job, end);
  const std::string after = next.message + BlameLink(tx, job, end);
  if (Spent(job)) {
    tx.Move(job, JobState::kFailed, next.reason == Reason::kRollback ? Reason::kNumeric : next.reason,
            end.what + "; `restart: never` allows no other attempt", "FAILED", "restart policy");
    return;
  }
  ++job.restarts[RestartCause(end)];
  if (next.substitute_step > 0) job.substituted_step = next.substitute_step;
  if (next.reason == Reason::kInfra && TooManyInfraEnds(tx, job)) {
    job.ranks.clear();
    tx.Move(job, JobState::kPaused, Reason::kInfraHold,
            end.what + "; infrastructure ended it " + std::to_string(job.infra_ends_us.size()) +
                " times in 30 min: look at the nodes, then `vicreg resume`",
            "PAUSED", "restart policy");
    return;
  }
  const std::string from = " from step " + std::to_string(NewestStep(job));
  if (next.delay < tx.options.reservation && MayStay(tx, job)) {
    Reserve(tx, job, job.last_slots, tx.now + next.delay, next.reason,
            "attempt " + std::to_string(job.attempt + 1) + " on the same slots" +
                (next.delay.count() == 0 ? "" : " in " + Seconds(next.delay)) + from + ", after " + after,
            "restart policy");
    return;
  }
  job.not_before = tx.now + next.delay;
  tx.Move(job, JobState::kBackoff, next.reason,
          after + "; next attempt in " + std::to_string(next.delay.count()) + " ms" + from, "BACKOFF",
          "restart policy");
}

}  // namespace

std::string PastDeadline(const Job& job) {
  return "its deadline of " + std::to_string(job.deadline_us / 1'000'000) + " s after its submit is over";
}

std::set<std::string> NodesOf(const Job& job) {
  std::set<std::string> nodes;
  for (const Rank& rank : job.ranks) nodes.insert(rank.node);
  return nodes;
}

void OnRankGone(Transaction& tx, Job& job, const std::string& actor) {
  const bool bad = std::any_of(job.ranks.begin(), job.ranks.end(),
                               [](const Rank& r) { return r.settled() && r.exit_reason != ExitReason::kCompleted; });
  if (bad && (job.state == JobState::kStarting || job.state == JobState::kRunning)) {
    const AttemptEnd end = CauseOf([&] {
      std::vector<Rank> gone;
      std::copy_if(job.ranks.begin(), job.ranks.end(), std::back_inserter(gone),
                   [](const Rank& r) { return r.settled(); });
      return gone;
    }());
    tx.Move(job, JobState::kStopping, end.reason == ExitReason::kLost ? Reason::kNodeLost : Reason::kCrash,
            end.what + "; stopping its peers", "STOPPING", actor);
    // Peers would otherwise wait for a collective that can never finish.
    for (const std::string& node : NodesOf(job)) tx.Send(node, SendAbort{job.id, job.attempt, end.what});
  }
  if (std::all_of(job.ranks.begin(), job.ranks.end(), [](const Rank& r) { return r.settled(); })) {
    Settle(tx, job, actor);
    tx.CountEnd(job.reason);
  }
}

void Requeue(Transaction& tx, Job& job, Reason reason, const std::string& message, const std::string& actor) {
  if (job.held && !Planted(Plant::kHoldIgnored)) {
    tx.Move(job, JobState::kPaused, Reason::kHeld, message + "; held: `vicreg release` lets it start", "PAUSED", actor);
  } else {
    tx.Move(job, JobState::kQueued, reason, message, "QUEUED", actor);
  }
}

bool HoldsProcesses(const Job& job) { return HoldsSlots(job.state) && job.state != JobState::kReserved; }

void Stop(Transaction& tx, Job& job, Destination destination, Reason cause, double grace_seconds,
          const std::string& message, const std::string& actor) {
  if (destination == Destination::kRequeue && Spent(job)) {
    destination = Destination::kFail;
    cause = Reason::kPreempted;
  }
  if (!HoldsProcesses(job)) {
    RollBack(tx, job);
    job.ranks.clear();
    job.prepared.clear();
    if (destination == Destination::kCancel) {
      job.destination = destination;
      tx.Move(job, JobState::kCancelled, cause, message, "CANCELLED", actor);
    } else if (destination == Destination::kFail) {
      job.destination = destination;
      tx.Move(job, JobState::kFailed, cause, message, "FAILED", actor);
    } else if (destination == Destination::kPause) {
      tx.Move(job, JobState::kPaused, cause, message, "PAUSED", actor);
    } else {
      Requeue(tx, job, cause, message, actor);
    }
    return;
  }
  const bool graver = Graver(destination, job.destination);
  if (graver && (job.state != JobState::kStopping || !Planted(Plant::kCancelWhileStopping)))
    job.destination = destination;
  if (job.state == JobState::kStopping) {
    if (job.cause == Reason::kNone || (graver && destination == Destination::kFail)) job.cause = cause;
    if (graver) tx.Note(job, cause, message + ", while stopping", "STOPPING", actor);
    return;
  }
  job.cause = cause;
  tx.Move(job, JobState::kStopping, cause,
          message + "; ranks get " + std::to_string(static_cast<int>(grace_seconds)) + " s", "STOPPING", actor);
  for (const std::string& node : NodesOf(job)) tx.Send(node, SendStop{job.id, job.attempt, grace_seconds, message});
}

void Reserve(Transaction& tx, Job& job, const std::vector<Slot>& slots, TimePoint not_before, Reason reason,
             const std::string& message, const std::string& actor) {
  // Committed before any message names it: this is the fence.
  if (!Planted(Plant::kAttemptReused) || job.attempt == 0) ++job.attempt;
  job.world_size = static_cast<int>(slots.size());
  job.destination = Destination::kByOutcome;
  job.cause = Reason::kNone;
  job.running_since = job.checkpoint_time = {};
  job.ranks.clear();
  job.prepared.clear();
  for (std::size_t i = 0; i < slots.size(); ++i) {
    Rank rank;
    rank.rank = static_cast<int>(i);
    rank.node = slots[i].node;
    rank.slot = slots[i].index;
    rank.incarnation = tx.FindNode(rank.node)->incarnation;
    job.ranks.push_back(rank);
  }
  job.resumed_step = NewestStep(job);
  if (Planted(Plant::kResumesFromOldest) && !job.checkpoints.empty()) job.resumed_step = job.checkpoints.back().step;
  job.not_before = not_before;
  job.deadline = std::max(not_before, tx.now) + tx.options.reservation;
  tx.Move(job, JobState::kReserved, reason, message, "RESERVED", actor);
  for (const std::string& node : NodesOf(job)) tx.Send(node, SendPrepare{job.id});
}

void LaunchIfReady(Transaction& tx, Job& job, const std::string& actor) {
  const std::set<std::string> nodes = NodesOf(job);
  if (job.prepared.size() != nodes.size() && !Planted(Plant::kLaunchBeforeAllConfirm)) return;
  if (tx.now < job.not_before && !Planted(Plant::kLaunchBeforeDelay)) return;
  tx.Move(job, JobState::kStarting, Reason::kLaunching,
          (nodes.size() == 1 ? "the worker" : "all " + std::to_string(nodes.size()) + " workers") +
              std::string(" confirmed; starting ") + std::to_string(job.world_size) + " ranks",
          "STARTING", actor);
  if (job.started_us == 0) job.started_us = tx.wall_us;
  tx.BeginAttempt(job.id);
  for (const std::string& name : nodes) tx.Send(name, SendLaunch{job.id});
}

void Unreserve(Transaction& tx, Job& job, const std::string& why, const std::string& actor) {
  job.ranks.clear();
  job.prepared.clear();
  // A moment's pause, or a worker that always refuses would be asked without end; and what is left of a delay.
  job.not_before = std::max(job.not_before, tx.now + tx.options.backoff_first);
  tx.CountEnd(Reason::kRetryDelay);
  tx.Move(job, JobState::kBackoff, Reason::kRetryDelay, "not placed: " + why, "NOT_PLACED", actor);
}

}  // namespace vicreg::core
