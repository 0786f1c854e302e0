#include "tests/simulation/world.h"

#include <algorithm>
#include <exception>

#include "coordinator/core/invariants.h"
#include "coordinator/core/scheduler.h"

namespace vicreg::simulation {
namespace {

// Long enough for the failover grace, for nodes to be lost, for every rank to be stopped and every job to run.
constexpr std::chrono::minutes kHealing{45};

}  // namespace

World::World(const Plan& the_plan, bool keep_trace)
    : plan(the_plan), trace(keep_trace), random(the_plan.seed ^ 0x5bd1e995), ledger(*this), clients(*this) {
  options.min_runtime = seconds(15);
  options.stop_grace_seconds = 20;
  // Of three or four nodes a fifth is none.
  if (random.Chance(50)) options.quarantine_share = 0.34;
  const auto add = [&](const char* name, int slots, std::vector<std::string> roots, const char* rack) {
    machines.push_back(std::make_unique<Machine>(*this, name, slots, std::move(roots),
                                                 std::vector<std::string>{std::string("rack=") + rack}));
  };
  add("a", 2, {"x"}, "1");
  add("b", 2, {"x", "y"}, "1");
  add("c", 1, {"y"}, "2");
  if (random.Chance(50)) add("d", 3, {"x"}, "2");
}

// Ranks look for their gangs as they end.
World::~World() {
  older.reset();
  coordinator.reset();
  machines.clear();
}

void World::Wrong(const std::string& sentence) {
  Note("WRONG: " + sentence);
  wrong.push_back(sentence);
}

std::int64_t World::WallMicros() const {
  const auto elapsed = std::chrono::duration_cast<microseconds>(events.now().time_since_epoch());
  return 1'700'000'000'000'000 + elapsed.count() + wall_jump_us;
}

microseconds World::CommitTime() {
  return disk_slow ? random.Between(milliseconds(200), seconds(4)) : random.Between(microseconds(200), milliseconds(8));
}

Gang& World::GangOf(const worker::Key& key) {
  auto& gang = gangs[{std::get<0>(key), std::get<1>(key)}];
  if (!gang) gang = std::make_unique<Gang>(*this, std::get<0>(key), std::get<1>(key));
  return *gang;
}

// ---- the coordinator ----

void World::StartCoordinator() {
  if (coordinator) return;
  // What is on its way to the disk is there before anybody else can read it.
  if (older && older->busy()) return events.After(milliseconds(5), [this] { StartCoordinator(); });
  try {
    coordinator = std::make_unique<Coordinator>(*this);
    const absl::Status started = coordinator->Start();
    if (started.ok()) return;
    Note("coordinator did not start: " + std::string(started.message()));
  } catch (const Killed&) {
    Note("coordinator killed while it started");
    disk.OnKill(random);
  }
  coordinator.reset();
  events.After(random.Between(milliseconds(500), seconds(3)), [this] { StartCoordinator(); });
}

void World::KillCoordinator(const std::string& why, bool power_cut, microseconds away) {
  if (!coordinator) return;
  Note("coordinator killed " + why);
  coordinator.reset();
  if (power_cut) {
    disk.OnPowerCut(random);
  } else {
    disk.OnKill(random);
  }
  if (away == microseconds{})
    away = random.Chance(20) ? random.Between(seconds(5), seconds(90)) : random.Between(milliseconds(100), seconds(3));
  events.After(away, [this] { StartCoordinator(); });
}

void World::TakeOver(std::chrono::nanoseconds lives_on) {
  if (!coordinator || older) return;
  Note("another coordinator takes over, and the older one lives on");
  older = std::move(coordinator);
  disk.OnKill(random);
  events.After(lives_on, [this, generation = older->generation()] { EndOlder(generation); });
  StartCoordinator();
}

void World::EndOlder(std::uint64_t generation) {
  if (!older || older->generation() != generation) return;
  Note("the older coordinator ends");
  older.reset();
}

Coordinator* World::CoordinatorOf(std::uint64_t generation) {
  for (const auto* one : {&coordinator, &older}) {
    if (*one && (*one)->generation() == generation) return one->get();
  }
  return nullptr;
}

// ---- what goes wrong ----

RankProcess* World::AnyRank(Random& draw) {
  std::vector<RankProcess*> all;
  for (const auto& machine : machines) {
    for (const auto& [pid, rank] : machine->processes()) {
      if (rank->alive()) all.push_back(rank.get());
    }
  }
  return all.empty() ? nullptr : all[static_cast<std::size_t>(draw.Draw(static_cast<int>(all.size())))];
}

Machine& World::AnyMachine(Random& draw) {
  return *machines[static_cast<std::size_t>(draw.Draw(static_cast<int>(machines.size())))];
}

void World::Do(const Step& step) {
  Random draw(step.draw);
  Note(std::string("** ") + Name(step.what));
  if (step.what >= What::kSubmit) return clients.Do(step, draw);
  if (step.what <= What::kRanksCut) return DoToRanks(step, draw);
  if (step.what <= What::kRepeat) return DoToMachines(step, draw);
  DoToCoordinator(step, draw);
}

void World::DoToRanks(const Step& step, Random& draw) {
  if (step.what == What::kStartsFail) {
    AnyMachine(draw).failing_starts = 1 + draw.Draw(3);
    return;
  }
  RankProcess* rank = AnyRank(draw);
  if (rank == nullptr) return;
  static constexpr int kCodes[] = {1, 20, 21, 27, 30, 31, 32, 33, 70, 10, 99};
  switch (step.what) {
    case What::kRankCrash:
      return rank->Die(draw.Chance(50) ? 11 : 9);
    case What::kRankExits:
      return rank->Die(kCodes[static_cast<std::size_t>(draw.Draw(static_cast<int>(std::size(kCodes))))] << 8);
    case What::kRankNumeric:
      GangOf(rank->key()).numeric_next = true;
      return;
    case What::kRankHangs:
      return rank->Hang(draw.Chance(50));
    case What::kRankHangsLeaving:
      rank->hangs_leaving = true;
      return;
    case What::kRankIgnoresStop:
      rank->ignores_stop = true;
      return;
    case What::kRankUnkillable:
      rank->unkillable_until = events.now() + draw.Between(seconds(1), seconds(90));
      return;
    default:
      GangOf(rank->key()).cut_until = events.now() + draw.Between(seconds(1), seconds(60));
  }
}

void World::DoToMachines(const Step& step, Random& draw) {
  Machine& machine = AnyMachine(draw);
  Link& link = machine.link();
  const auto soon = events.now() + (draw.Chance(50) ? draw.Between(milliseconds(10), seconds(4))
                                                    : draw.Between(seconds(4), seconds(120)));
  switch (step.what) {
    case What::kWorkerKill:
      machine.KillWorker();
      events.At(soon, [&machine] { machine.StartWorker(); });
      return;
    case What::kReboot:
      machine.PowerOff();
      events.After(draw.Between(seconds(1), seconds(15)), [&machine] { machine.PowerOn(); });
      return;
    case What::kMachineOff:
      machine.PowerOff();
      events.After(draw.Between(seconds(15), seconds(150)), [&machine] { machine.PowerOn(); });
      return;
    case What::kFreeze:
      machine.FreezeUntil(soon);
      return;
    case What::kProbeFails:
      machine.probe_fails_until = soon + seconds(30);
      if (draw.Chance(50)) return;  // it is not asked before something else happens
      machine.PowerOff();
      events.After(draw.Between(seconds(1), seconds(15)), [&machine] { machine.PowerOn(); });
      return;
    case What::kFreezeWhenLaunched:
      machine.freeze_when_launched = draw.Between(seconds(2), seconds(120));
      return;
    case What::kBreak:
      if (machine.worker() != nullptr) machine.worker()->BreakStream();
      return;
    case What::kCut:
      link.up_from = std::max(link.up_from, soon);
      link.down_from = std::max(link.down_from, soon);
      return;
    case What::kCutUp:
      link.up_from = std::max(link.up_from, soon);
      return;
    case What::kCutDown:
      link.down_from = std::max(link.down_from, soon);
      return;
    default:
      repeats = true;
  }
}

void World::DoToCoordinator(const Step& step, Random& draw) {
  const auto later =
      draw.Chance(50) ? draw.Between(milliseconds(100), seconds(3)) : draw.Between(seconds(3), seconds(60));
  switch (step.what) {
    case What::kCoordinatorKill:
      return KillCoordinator("from outside", false);
    case What::kTakeOver:
      return TakeOver(later);
    case What::kCoordinatorAway: {
      const microseconds away = draw.Between(seconds(60), seconds(300));
      slow_until = events.now() + away;
      return KillCoordinator("for long", false, away);
    }
    case What::kPowerCut:
      return KillCoordinator("by a power cut", true);
    case What::kKillBeforeCommit:
      disk.kill_before = 1 + draw.Draw(5);
      return;
    case What::kKillAfterCommit:
      disk.kill_after = 1 + draw.Draw(5);
      return;
    case What::kKillInRecovery:
      KillCoordinator("from outside, and again when it starts", false);
      disk.kill_before = 1;
      return;
    case What::kStall:
      if (coordinator) coordinator->StallUntil(events.now() + later);
      return;
    case What::kDiskFailsOnce:
      disk.fail_next = 1 + draw.Draw(2);
      return;
    case What::kDiskFails:
      disk.failing = true;
      events.After(later, [this] { disk.failing = false; });
      return;
    case What::kDiskSlow:
      disk_slow = true;
      events.After(later, [this] { disk_slow = false; });
      return;
    case What::kHistoryFails:
      if (draw.Chance(60)) {
        metric_disk.fail_next = 1 + draw.Draw(3);
        return;
      }
      metric_disk.failing = true;
      events.After(later, [this] { metric_disk.failing = false; });
      return;
    default:
      wall_jump_us += (draw.Draw(7'200) - 3'600) * std::int64_t{1'000'000};
  }
}

// ---- the run ----

void World::Watch() {
  ledger.CheckOrphans();
  const bool calm = coordinator && coordinator->degraded().ok() && !coordinator->stalled() && !disk_slow &&
                    events.now() - coordinator->began() > seconds(2);
  calm_ = calm ? calm_ + 1 : 0;
  if (calm_ > 1) {
    if (healing) ledger.CheckProcesses(coordinator->state());
    // Timers are coarse, and a pass may have to wait for the next batch: late is what is late twice in a row.
    const auto late = core::Overdue(coordinator->state(), events.now() - seconds(3));
    for (const std::string& sentence : late) {
      if (std::find(late_.begin(), late_.end(), sentence) != late_.end()) Wrong(sentence);
    }
    late_ = late;
  }
  events.After(seconds(5), [this] { Watch(); });
}

bool World::Next() {
  try {
    return events.Next();
  } catch (const std::exception& error) {
    Wrong(std::string("the product threw: ") + error.what());
    return true;
  }
}

void World::Run() {
  StartCoordinator();
  for (const auto& machine : machines) machine->StartWorker();
  const TimePoint begin = events.now();
  for (const Step& step : plan.steps) events.At(begin + step.at, [this, &step] { Do(step); });
  events.After(seconds(5), [this] { Watch(); });
  bool healed = false;
  events.At(begin + plan.length, [this, &healed] {
    Heal();
    healed = true;
  });
  while (wrong.empty() && !healed && Next()) {
  }
  const TimePoint end = events.now() + kHealing;
  TimePoint next_look{};
  while (wrong.empty() && Next()) {
    if (events.now() < next_look) continue;
    next_look = events.now() + seconds(1);
    const std::string unrest = Unrest();
    if (unrest.empty()) {
      ledger.AtTheEnd(coordinator->state());
      return;
    }
    if (events.now() > end) {
      Wrong("never came to rest: " + unrest);
      return;
    }
    clients.LetGo();
  }
}

void World::Heal() {
  Note("** everything heals");
  healing = true;
  repeats = false;
  disk.fail_next = disk.kill_before = disk.kill_after = 0;
  disk.failing = disk_slow = metric_disk.failing = false;
  metric_disk.fail_next = 0;
  // Links that are cut and machines that are frozen come back by themselves, in their order.
  for (const auto& machine : machines) {
    machine->failing_starts = 0;
    machine->probe_fails_until = {};
    machine->freeze_when_launched = {};
    if (machine->up()) machine->StartWorker();
  }
  older.reset();
  if (coordinator) coordinator->StallUntil({});
}

std::string World::Unrest() const {
  if (!coordinator) return "there is no coordinator";
  if (!clients.idle()) return "a client waits for its answer";
  const core::State& state = coordinator->state();
  for (const auto& [seq, id] : state.live) {
    const core::Job& job = state.jobs.at(id);
    const core::Explanation why = core::Explain(job, state.waiting);
    // Only what the cluster could not hold even when empty may wait.
    const bool never = why.reason == core::Reason::kNotEnoughSlots || why.reason == core::Reason::kDataRootMissing ||
                       why.reason == core::Reason::kTopology;
    if (job.state != core::JobState::kQueued || !never) return id + " is " + core::Name(job.state) + ": " + why.message;
  }
  for (const auto& [name, node] : state.nodes) {
    if (!node.placeable()) return "nothing may be placed on node " + name + ": " + node.message;
  }
  for (const auto& machine : machines) {
    if (machine->worker() == nullptr || !machine->worker()->welcomed()) return "worker " + machine->name() + " is away";
    if (!machine->processes().empty())
      return "a process of " + worker::Text(machine->processes().begin()->second->key()) + " is left";
    if (!machine->worker()->empty()) return "worker " + machine->name() + " still holds a rank";
  }
  return "";
}

}  // namespace vicreg::simulation
