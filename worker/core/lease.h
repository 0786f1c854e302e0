#pragma once

// A worker's permission to start ranks, on its own clock. Only a round trip renews it: it counts from the moment when
// what the coordinator answered was sent, so that an answer that lay in a socket while this process did not run renews
// nothing. Pure.
//
// It lasts 7.5 heartbeats (15 s) and the coordinator gives a node up after 10 (coordinator/core/node_timers.h): whoever
// may still start ranks has not been given up. What is right is decided by incarnation and attempt all the same; the
// lease keeps a worker from starting what nobody wants any more.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

namespace vicreg::worker {

class Lease {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // Just now.
  void RegisterSent(TimePoint now) { registered_ = now; }
  void HeartbeatSent(TimePoint now, std::int64_t sequence) {
    heartbeats_.emplace_back(sequence, now);
    if (heartbeats_.size() > kMostUnanswered) heartbeats_.pop_front();
  }

  // What came back. `heartbeat_ms`: from now on; 0: as before.
  void Welcomed(int heartbeat_ms) {
    if (registered_) Renew(*registered_, heartbeat_ms);
  }
  void Answered(std::int64_t sequence, int heartbeat_ms) {
    while (!heartbeats_.empty() && heartbeats_.front().first <= sequence) {
      if (heartbeats_.front().first == sequence) Renew(heartbeats_.front().second, heartbeat_ms);
      heartbeats_.pop_front();
    }
  }

  bool Holds(TimePoint now) const { return renewed_ && now - *renewed_ < length_; }
  // When it was sent what the coordinator answered last; nullopt: it never answered.
  std::optional<TimePoint> renewed() const { return renewed_; }

 private:
  // Older ones would renew nothing.
  static constexpr std::size_t kMostUnanswered = 64;

  void Renew(TimePoint sent, int heartbeat_ms) {
    renewed_ = renewed_ ? std::max(*renewed_, sent) : sent;
    if (heartbeat_ms > 0) length_ = std::chrono::milliseconds(std::int64_t{heartbeat_ms} * 15 / 2);
  }

  std::optional<TimePoint> registered_, renewed_;
  std::deque<std::pair<std::int64_t, TimePoint>> heartbeats_;  // not answered, oldest first
  std::chrono::milliseconds length_{15'000};
};

}  // namespace vicreg::worker
