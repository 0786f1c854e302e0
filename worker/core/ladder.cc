// How ranks are ended: the commands they get, the signals that follow, and what is done about their peers.

#include <signal.h>

#include <algorithm>

#include "common/planted.h"
#include "worker/core/exit.h"
#include "worker/core/supervisor.h"

namespace vicreg::worker {
namespace {

using std::chrono::milliseconds;
// Before the deadline of a stop: SIGTERM, for a rank that does not listen to its socket.
constexpr milliseconds kTermLead{40'000};
constexpr milliseconds kKillAgain{1000};
// Between two calls of OnTime: longer, and the worker itself did not run. Its ranks may have moved unseen.
constexpr milliseconds kOwnStall{5000};

}  // namespace

void Supervisor::CommandAll(TimePoint now, const std::string& job_id, int attempt, v1::Command::Kind kind,
                            const std::string& cause, milliseconds kill_after) {
  for (auto& [key, rank] : ranks_) {
    if (std::get<0>(key) == job_id && std::get<1>(key) == attempt) Command(now, key, rank, kind, cause, kill_after);
  }
}

void Supervisor::Command(TimePoint now, const Key& key, Rank& rank, v1::Command::Kind kind, const std::string& cause,
                         milliseconds kill_after, bool nobody_confirms) {
  if (rank.wait_status) return;
  if (!Planted(Plant::kNeverKilled)) rank.kill_at = std::min(rank.kill_at, now + kill_after);
  if (kind == v1::Command::KIND_STOP) {
    rank.term_at = std::max(now, rank.kill_at - kTermLead);
    // Not of one without grace, and not longer than this worker itself stays.
    const bool may_be_put_off = kill_after > milliseconds{} && !stopping_;
    rank.stop_by =
        may_be_put_off ? std::optional(std::min(rank.stop_by.value_or(rank.kill_at), rank.kill_at)) : std::nullopt;
  } else {
    rank.stop_by.reset();
  }
  rank.asked.emplace();
  rank.asked->set_kind(kind);
  rank.asked->set_cause(cause);
  rank.asked->set_nobody_confirms(nobody_confirms);
  if (rank.connected) {
    v1::AttachResponse message;
    *message.mutable_command() = *rank.asked;
    Says(key, std::move(message));
  } else if (kind != v1::Command::KIND_STOP) {
    rank.kill_at = now;  // it cannot hear
  }
}

Effects Supervisor::StopAll(TimePoint now, milliseconds grace) {
  stopping_ = true;
  for (auto& [key, rank] : ranks_) Command(now, key, rank, v1::Command::KIND_STOP, "the worker is stopping", grace);
  return Take();
}

Effects Supervisor::OnTime(TimePoint now) {
  const bool stalled = looked_ && now - *looked_ > kOwnStall;
  looked_ = now;
  EndHung(now, stalled);
  StopOrphans(now, stalled);
  for (auto& [key, rank] : ranks_) {
    if (rank.cleared) continue;
    if (rank.wait_status) {
      if (!rank.connected || rank.finalize_at <= now) Finalize(key, rank);
      continue;
    }
    if (rank.term_at <= now) {
      Logs(Log::Level::kInfo, Text(key) + ": SIGTERM to process " + std::to_string(rank.pid));
      effects_.push_back(Signal{key, rank.pid, SIGTERM, false});
      rank.term_at = TimePoint::max();
    }
    if (rank.kill_at <= now && IsPutOff(now, key, rank)) {
      rank.kill_at = std::min(now + kPutOff, *rank.stop_by + kMostPutOff);
      Logs(Log::Level::kInfo, Text(key) + ": its grace is over, and its checkpoint still being written: it gets more");
    }
    if (rank.kill_at <= now) {
      Logs(Log::Level::kWarning, Text(key) + ": killing process " + std::to_string(rank.pid));
      effects_.push_back(Signal{key, rank.pid, SIGKILL, true});
      rank.kill_at = now + kKillAgain;
      rank.killed = true;
    }
  }
  std::erase_if(ranks_, [](const auto& e) { return e.second.forgotten(); });
  return Take();
}

TimePoint Supervisor::NextTimer() const {
  TimePoint next = TimePoint::max();
  for (const auto& [key, rank] : ranks_) {
    if (rank.cleared) continue;
    // Overdue and not to blame: look again in a while.
    if (rank.watched() && looked_)
      next = std::min(next, std::max(rank.watch.Deadline(), *looked_ + std::chrono::seconds(1)));
    if (rank.can_be_orphan() && alone_since_) next = std::min(next, *alone_since_ + orphans_.grace);
    next = std::min(next, !rank.wait_status ? std::min(rank.term_at, rank.kill_at)
                          : rank.connected  ? rank.finalize_at
                                            : TimePoint{});
  }
  return next;
}

bool Supervisor::IsPutOff(TimePoint now, const Key& key, const Rank& rank) const {
  if (rank.killed || !rank.stop_by || now >= *rank.stop_by + kMostPutOff) return false;
  // A peer that was killed would take along the one that writes.
  return std::any_of(ranks_.begin(), ranks_.end(), [&](const auto& other) {
    return std::get<0>(other.first) == std::get<0>(key) && std::get<1>(other.first) == std::get<1>(key) &&
           !other.second.wait_status && other.second.watch.Wrote(now, kPutOff);
  });
}

void Supervisor::StopOrphans(TimePoint now, bool stalled) {
  if (!alone_since_ || stalled) alone_since_ = now;
  if (lease_.renewed()) alone_since_ = std::max(*alone_since_, *lease_.renewed());
  if (now < *alone_since_ + orphans_.grace || Planted(Plant::kOrphansKept)) return;
  const auto minutes = std::chrono::duration_cast<std::chrono::minutes>(orphans_.grace).count();
  const std::string cause = "no coordinator for " + std::to_string(minutes) + " min";
  for (auto& [key, rank] : ranks_) {
    if (!rank.can_be_orphan()) continue;
    Logs(Log::Level::kWarning, Text(key) + ": " + cause + ": asking it to stop");
    Command(now, key, rank, v1::Command::KIND_STOP, cause, orphans_.stop_grace, true);
  }
}

void Supervisor::EndHung(TimePoint now, bool stalled) {
  std::map<std::pair<std::string, int>, std::vector<Key>> gangs;
  for (auto& [key, rank] : ranks_) {
    if (!rank.watched()) continue;
    if (!rank.watch.begun()) rank.watch.Begin(now);
    // What it says waits unread while its buffer is full.
    if (stalled || rank.paused || rank.awaits_coordinator() ||
        (rank.watch.Leaves() && Planted(Plant::kLeavingUnlimited)))
      rank.watch.Forgive(now);
    gangs[{std::get<0>(key), std::get<1>(key)}].push_back(key);
  }
  for (const auto& [attempt, keys] : gangs) {
    std::vector<const ProgressWatch*> watches;
    for (const Key& key : keys) watches.push_back(&ranks_.at(key).watch);
    if (const auto culprit = Culprit(now, watches)) DeclareHung(now, keys[*culprit], ranks_.at(keys[*culprit]));
  }
}

void Supervisor::DeclareHung(TimePoint now, const Key& key, Rank& rank) {
  rank.hung = rank.watch.Sentence(now);
  Logs(Log::Level::kError, Text(key) + " hangs: " + rank.hung);
  effects_.push_back(Dump{key, rank.pid});
  Command(now, key, rank, v1::Command::KIND_ABORT, rank.hung, kAbortGrace);
  // Its peers have nothing to wait for where it had done its part.
  if (!rank.leaving || !EndsWell(rank.leaving->reason())) AbortPeers(now, key, Text(key) + " hangs: " + rank.hung);
}

void Supervisor::AbortPeers(TimePoint now, const Key& gone, const std::string& cause) {
  for (auto& [key, rank] : ranks_) {
    if (key == gone || std::get<0>(key) != std::get<0>(gone) || std::get<1>(key) != std::get<1>(gone)) continue;
    // The first cause is the one to tell: the others end because of it.
    const bool leaving_now = rank.asked && rank.asked->kind() != v1::Command::KIND_STOP;
    if (!leaving_now) Command(now, key, rank, v1::Command::KIND_ABORT, cause, kAbortGrace);
  }
}

void Supervisor::Fence(TimePoint now, const Key& key, Rank& rank) {
  rank.reports = ReportBuffer();
  rank.exit_reported = true;  // nobody to report to
  if (Planted(Plant::kFencedLeftAlive)) return;
  Command(now, key, rank, v1::Command::KIND_FENCE, "fenced", kAbortGrace);
}

}  // namespace vicreg::worker
