#pragma once

// The order in which a coordinator does everything, without its threads, locks and wire: commands are decided on one
// transaction, which is committed once and then made true in memory; only then is anybody answered, and only then are
// messages sent. Run by the shell (service/coordinator.h) on its thread, and by the simulation in simulated time.

#include <functional>
#include <vector>

#include "common/status.h"
#include "coordinator/core/transaction.h"

namespace vicreg::core {

// What is durable.
class Store {
 public:
  virtual ~Store() = default;
  // Everything, as of the last commit.
  virtual absl::StatusOr<State> Load() = 0;
  // OK: all of it survives a power cut. Else this coordinator will not see any of it again. Aborted: another
  // coordinator has begun a newer term, and this one must decide nothing more.
  virtual absl::Status Commit(const Transaction& transaction) = 0;
  // Writes something small, to learn whether commits work again after one that failed.
  virtual absl::Status Probe() = 0;
};

struct Command {
  // An error means that nothing was changed.
  std::function<absl::Status(Transaction&)> decide;
  std::function<void(absl::Status)> done;
};

// Commands that are decided together, on their way.
struct Batch {
  std::vector<Command> commands;
  std::vector<absl::Status> answers;  // of commands
  Transaction transaction;
  absl::Status saved;   // not OK: nothing of the transaction is true
  bool probed = false;  // nothing to save; the store was asked whether it works
  absl::Status works;   // the store, as far as this batch has seen
};

class Leader {
 public:
  // Both outlive it.
  Leader(Store& store, const Options& options) : store_(store), options_(options) {}

  // Loads the state and settles what the coordinator before it left open. Errors are the store's.
  absl::Status Start(TimePoint now, std::int64_t wall_us);

  // Decides and commits. Only reads state().
  Batch Decide(TimePoint now, std::int64_t wall_us, std::vector<Command> commands);
  // Makes it true in memory: under the lock of those who read state() meanwhile.
  void Apply(Batch& batch);
  // Tells everybody what became of their command. After Apply; messages are sent after it.
  static void Answer(Batch& batch);

  // Attempts whose beginning the metric history may have missed, if the coordinator before this one ended right after
  // it committed them. Also of jobs that stop: their ranks may have rows to tell.
  std::vector<const Job*> BegunAttempts() const;

  const State& state() const { return state_; }
  // OK, or why nothing can be committed.
  const absl::Status& degraded() const { return degraded_; }
  // Another coordinator leads: for good, as everything it knows is older than what is stored.
  bool deposed() const { return absl::IsAborted(degraded_); }
  // Since when timers could act: what is late for longer than that was forgotten.
  TimePoint uninterrupted_since() const { return uninterrupted_since_; }

 private:
  Store& store_;
  const Options& options_;
  State state_;
  absl::Status degraded_;
  // Since when heard workers could also be recorded as heard: the start, or the end of the last store outage or of the
  // last stretch in which we did not run. No silence counts from before.
  TimePoint uninterrupted_since_{};
  TimePoint decided_{};  // the newest batch
  TimePoint next_probe_{}, next_timers_{};
};

}  // namespace vicreg::core
