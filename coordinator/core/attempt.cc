#include "coordinator/core/attempt.h"

#include <algorithm>

#include "coordinator/core/restart.h"

namespace vicreg::core {
namespace {

const char* RestartCause(const AttemptEnd& end) {
  switch (end.reason) {
    case ExitReason::kLost:
      return "node_lost";
    case ExitReason::kHung:
      return "hang";
    case ExitReason::kNumeric:
      return "rollback";
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

void Settle(Transaction& tx, Job& job, const std::string& actor) {
  // Also when every rank completed meanwhile: an acknowledged wish is kept.
  if (job.cancel) {
    tx.Move(job, JobState::kCancelled, Reason::kCancelRequested, "cancelled; all ranks have ended", "CANCELLED", actor);
    return;
  }
  const AttemptEnd end = CauseOf(job.ranks);
  const std::int64_t newest = job.checkpoints.empty() ? 0 : job.checkpoints.front().step;
  const NextMove next = DecideAfterEnd(job, end, newest, tx.options);
  job.charges = next.charges;
  switch (next.kind) {
    case NextMove::Kind::kSucceed:
      tx.Move(job, JobState::kSucceeded, next.reason, next.message, "SUCCEEDED", actor);
      return;
    case NextMove::Kind::kFail:
      tx.Move(job, JobState::kFailed, next.reason, next.message, "FAILED", "restart policy");
      return;
    case NextMove::Kind::kRetry:
      ++job.restarts[RestartCause(end)];
      if (next.substitute_step > 0) job.substituted_step = next.substitute_step;
      job.not_before = tx.now + next.delay;
      tx.Move(job, JobState::kBackoff, next.reason, next.message, "BACKOFF", "restart policy");
  }
}

}  // namespace

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
  if (std::all_of(job.ranks.begin(), job.ranks.end(), [](const Rank& r) { return r.settled(); }))
    Settle(tx, job, actor);
}

void Unreserve(Transaction& tx, Job& job, const std::string& why, const std::string& actor) {
  job.ranks.clear();
  job.prepared.clear();
  // A moment's pause, or a worker that always refuses would be asked without end.
  job.not_before = tx.now + tx.options.backoff_first;
  tx.Move(job, JobState::kBackoff, Reason::kRetryDelay, "not placed: " + why, "NOT_PLACED", actor);
}

}  // namespace vicreg::core
