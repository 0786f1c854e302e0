// How ranks are ended: the commands they get, the signals that follow, and what is done about their peers.

#include <signal.h>

#include <algorithm>

#include "worker/core/supervisor.h"

namespace vicreg::worker {
namespace {

using std::chrono::milliseconds;
// Before the deadline of a stop: SIGTERM, for a rank that does not listen to its socket.
constexpr milliseconds kTermLead{40'000};
constexpr milliseconds kKillAgain{1000};

}  // namespace

void Supervisor::CommandAll(TimePoint now, const std::string& job_id, int attempt, v1::Command::Kind kind,
                            const std::string& cause, milliseconds kill_after) {
  for (auto& [key, rank] : ranks_) {
    if (std::get<0>(key) == job_id && std::get<1>(key) == attempt) Command(now, key, rank, kind, cause, kill_after);
  }
}

void Supervisor::Command(TimePoint now, const Key& key, Rank& rank, v1::Command::Kind kind, const std::string& cause,
                         milliseconds kill_after) {
  if (rank.wait_status) return;
  rank.kill_at = std::min(rank.kill_at, now + kill_after);
  if (kind == v1::Command::KIND_STOP) rank.term_at = std::max(now, rank.kill_at - kTermLead);
  rank.asked.emplace();
  rank.asked->set_kind(kind);
  rank.asked->set_cause(cause);
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
    if (rank.kill_at <= now) {
      Logs(Log::Level::kWarning, Text(key) + ": killing process " + std::to_string(rank.pid));
      effects_.push_back(Signal{key, rank.pid, SIGKILL, true});
      rank.kill_at = now + kKillAgain;
    }
  }
  std::erase_if(ranks_, [](const auto& e) { return e.second.forgotten(); });
  return Take();
}

TimePoint Supervisor::NextTimer() const {
  TimePoint next = TimePoint::max();
  for (const auto& [key, rank] : ranks_) {
    if (rank.cleared) continue;
    next = std::min(next, !rank.wait_status ? std::min(rank.term_at, rank.kill_at)
                          : rank.connected  ? rank.finalize_at
                                            : TimePoint{});
  }
  return next;
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
  Command(now, key, rank, v1::Command::KIND_FENCE, "fenced", kAbortGrace);
}

}  // namespace vicreg::worker
