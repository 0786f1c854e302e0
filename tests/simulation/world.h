#pragma once

// One run: a coordinator, a few machines, users, and what goes wrong.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/core/transaction.h"
#include "tests/simulation/clients.h"
#include "tests/simulation/coordinator.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/machine.h"
#include "tests/simulation/plan.h"

namespace vicreg::simulation {

struct World {
  World(const Plan& plan, bool keep_trace);
  ~World();

  // Everything that is planned, then the healing. Stops at the first thing that is wrong.
  void Run();

  void Note(const std::string& line) { trace.Add(events.now(), line); }
  void Wrong(const std::string& sentence);
  std::int64_t WallMicros() const;
  std::chrono::microseconds CommitTime();
  Gang& GangOf(const worker::Key& key);

  void StartCoordinator();
  // Another begins, on the same store, while the one that leads lives on and knows nothing of it.
  void TakeOver(std::chrono::nanoseconds lives_on);
  void EndOlder(std::uint64_t generation);
  // Null: it has ended.
  Coordinator* CoordinatorOf(std::uint64_t generation);
  // `away`: until another starts; 0: as it happens.
  void KillCoordinator(const std::string& why, bool power_cut, microseconds away = {});

  const Plan& plan;
  Events events;
  Trace trace;
  Random random;
  core::Options options;
  Disk disk;
  MetricDisk metric_disk;
  Ledger ledger;
  Clients clients;
  std::unique_ptr<Coordinator> coordinator;
  std::unique_ptr<Coordinator> older;  // that was taken over and has not ended
  std::uint64_t coordinators = 0;
  std::vector<std::unique_ptr<Machine>> machines;
  std::map<std::string, std::int64_t> artifacts;  // checkpoint folders that are complete
  std::map<std::pair<std::string, int>, std::unique_ptr<Gang>> gangs;
  std::vector<std::string> wrong;
  bool repeats = false;  // messages are said twice
  bool healing = false;
  bool disk_slow = false;
  TimePoint slow_until{};  // steps take long, so that ranks are still there when a long outage ends
  std::int64_t wall_jump_us = 0;

 private:
  void Do(const Step& step);
  void DoToRanks(const Step& step, Random& draw);
  void DoToMachines(const Step& step, Random& draw);
  void DoToCoordinator(const Step& step, Random& draw);
  RankProcess* AnyRank(Random& draw);
  Machine& AnyMachine(Random& draw);
  bool Next();
  void Heal();
  // Why the run has not come to rest; empty: it has.
  std::string Unrest() const;
  void Watch();

  std::vector<std::string> late_;  // what was at the last look
  int calm_ = 0;                   // looks in a row at a coordinator that nothing hindered
};

}  // namespace vicreg::simulation
