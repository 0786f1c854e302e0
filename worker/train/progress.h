#pragma once

// Where a rank's training is, for whoever watches it. Written by the training thread at every step of its way, read by
// the thread that talks to the worker, so that a rank that stands still says so. No torch, gRPC or protobuf here.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <utility>

namespace vicreg::train {

class Progress {
 public:
  // Numbers equal vicreg.v1.Progress.Phase.
  enum class Phase { kSetup = 1, kStep = 2, kEvaluation = 3, kCheckpoint = 4, kLeaving = 5 };

  struct Seen {
    Phase phase = Phase::kSetup;
    std::int64_t step = 0;                // finished ones
    std::int64_t units = 0;               // finished steps, evaluation batches and checkpoints since the start
    std::int64_t collectives = 0;         // begun
    bool waits_for_peers = false;         // the training thread is inside a collective
    std::int64_t written_bytes = 0;       // of checkpoints and exports, synced
    std::chrono::milliseconds slowest{};  // of the units of `phase` that ended since the last look
  };

  void Enter(Phase phase) {
    const std::lock_guard lock(mutex_);
    if (phase != seen_.phase) seen_.slowest = {};
    seen_.phase = phase;
    begun_ = std::chrono::steady_clock::now();
  }

  // One more unit of the current phase.
  void Done(std::int64_t step) {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    seen_.step = step;
    ++seen_.units;
    seen_.slowest = std::max(seen_.slowest, std::chrono::ceil<std::chrono::milliseconds>(now - begun_));
    begun_ = now;
  }
  void Done() {
    const std::lock_guard lock(mutex_);
    ++seen_.units;
  }

  void Wrote(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    seen_.written_bytes += static_cast<std::int64_t>(bytes);
  }

  Seen Look() {
    const std::lock_guard lock(mutex_);
    seen_.collectives = collectives_;
    seen_.waits_for_peers = waiting_ > 0;
    Seen seen = seen_;
    seen_.slowest = {};
    return seen;
  }

  // While it lives the training thread waits for its peers. `progress` may be null.
  class Waiting {
   public:
    explicit Waiting(Progress* progress) : progress_(progress) {
      if (progress_ == nullptr) return;
      ++progress_->collectives_;
      ++progress_->waiting_;
    }
    ~Waiting() {
      if (progress_ != nullptr) --progress_->waiting_;
    }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Progress* const progress_;
  };

 private:
  std::mutex mutex_;
  Seen seen_;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::atomic<std::int64_t> collectives_{0};
  std::atomic<int> waiting_{0};
};

}  // namespace vicreg::train
