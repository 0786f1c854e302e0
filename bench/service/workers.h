#pragma once

// Simulated workers, each on a connection and a stream of its own: they register, send heartbeats, confirm every
// reservation and say of every rank that it steps. A stream that ends is opened again after 0.2 s, growing to 10 s,
// with full jitter, as vicreg-worker does. Thread-safe.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace vicreg::bench {

class Worker;

class Workers {
 public:
  using Clock = std::chrono::steady_clock;

  struct Wanted {
    std::string address;
    int count = 1000;
    int slots = 8;
    // Also one node of one slot with the label size=tiny.
    bool tiny = false;
    std::chrono::milliseconds heartbeat{1000};  // of each worker
  };

  explicit Workers(const Wanted& wanted);
  ~Workers();

  // Until that many were welcomed since the start, or since they last lost the coordinator; false: not within `most`.
  bool WaitWelcomed(int count, std::chrono::milliseconds most);
  // When a node was first told to launch ranks of the job; Clock::time_point::max(): not within `most`.
  Clock::time_point WaitLaunched(const std::string& job_id, std::chrono::milliseconds most);

  int welcomed() const { return welcomed_; }
  // Since the last call: from sending a heartbeat to its answer, in seconds; how many streams ended.
  std::vector<double> TakeRoundTrips();
  std::int64_t lost_streams() const { return lost_; }

 private:
  friend class Worker;
  void Pace();
  void Launched(const std::string& job_id);
  void Welcomed(int by);
  void RoundTrip(double seconds);

  const Wanted wanted_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<int> welcomed_{0};
  std::atomic<std::int64_t> lost_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Clock::time_point> launched_;
  std::vector<double> round_trips_;
  std::atomic<bool> stopping_{false};
  std::thread pace_;
};

}  // namespace vicreg::bench
