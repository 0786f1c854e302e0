#pragma once

// The coordinator's core and its SQLite store without threads and network, and workers that answer at once. Time is
// simulated: it jumps over what nobody does anything in, and while the core decides and commits it passes as it really
// does. So a replay takes as long as it would with this scheduler, and ends as soon as its work is done.
//
// A batch is what Coordinator::RunBatch does: up to kMaxBatch commands, timers, a pass where one is due, one commit.

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "coordinator/core/decide.h"
#include "coordinator/store/sqlite_store.h"

namespace vicreg::bench {

class Cluster {
 public:
  using Command = std::function<void(core::Transaction&)>;
  using Milliseconds = std::chrono::milliseconds;

  // `folder`: of the store, made anew. Throws std::runtime_error where the store cannot be opened.
  Cluster(const std::string& folder, const core::Options& options);

  // Nodes of `slots` CPU slots, `per_rack` to a rack, each heard every `heartbeat` from now on.
  void AddNodes(int count, int slots, int per_rack, Milliseconds heartbeat);

  // To be decided at `when`, or as soon after as the core has time.
  void At(core::TimePoint when, Command command);
  void Submit(core::TimePoint when, core::Job job, const std::string& id);
  // Every rank of the gang exits as COMPLETED at `when`.
  void Complete(core::TimePoint when, const std::string& id);

  // Batch after batch until `done`, asked between two, or until nobody has anything to do.
  void Run(const std::function<bool()>& done);
  // Until every command that is due, and what it led to, was decided: before time moves on.
  void Settle();

  core::TimePoint now() const { return now_; }
  const core::State& state() const { return state_; }
  // What core and store have really taken so far, batches and commands of them.
  double busy_seconds() const { return busy_; }
  std::int64_t batches() const { return batches_; }
  std::int64_t commands() const { return commands_; }

  // Its Launch was sent to every node of the gang: with the whole attempt in state().
  std::function<void(const core::Job&)> on_launch = [](const core::Job&) {};
  // Committed: RESERVED.
  std::function<void(const core::Job&)> on_placed = [](const core::Job&) {};
  std::function<void(const core::Job&)> on_ended = [](const core::Job&) {};

 private:
  struct Timer {
    core::TimePoint when;
    std::int64_t order;
    Command command;
    bool operator>(const Timer& other) const { return std::pair(when, order) > std::pair(other.when, other.order); }
  };

  void RunBatch();
  void Answer(const core::Transaction& tx);
  void Beat(const std::string& node, Milliseconds every);
  bool Next();

  const core::Options options_;
  std::unique_ptr<store::SqliteStore> store_;
  core::State state_;
  core::TimePoint now_, next_timers_;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::deque<Command> due_;
  std::int64_t order_ = 0, batches_ = 0, commands_ = 0;
  std::int64_t beats_ = 0;  // of timers_: nothing that work waits for
  double busy_ = 0;
};

}  // namespace vicreg::bench
