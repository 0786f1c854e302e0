// Goal: no sequence of messages, losses and restarts, however unlikely, leads to a state that must not be, or leaves a
// job behind. Method: seeded random walks. A few simulated workers follow the protocol, but their connections break,
// they restart, machines reboot, commits fail, the coordinator restarts, and everything ever said may be said again or
// with a wrong number. After every step the invariants are checked, and what changed against the state before. At the
// end the faults stop: every job must come to rest. VICREG_WALK_SEED=N runs one walk.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <functional>
#include <random>
#include <sstream>

#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"
#include "coordinator/core/invariants.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/store/record.h"
#include "tests/testing/fake_clock.h"

namespace vicreg::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Key = std::tuple<std::string, int, int>;  // job, attempt, rank

constexpr int kSteps = 3000, kSeeds = 40, kMaxJobs = 60;

// What a worker receives, with what the shell adds from the job.
struct Order {
  enum class Kind { kPrepare, kLaunch, kStop, kAbort, kAck, kProbe } kind;
  std::string job;
  int attempt = 0;
  std::vector<std::pair<int, int>> ranks;  // (rank, slot) on this node
  int rank = 0;
  std::int64_t sequence = 0;
  bool fenced = false;
};

struct Process {
  int slot = 0;
  bool alive = true;
  int phase = 0;  // spawned, connected, stepping
  std::int64_t step = 0;
  std::int64_t next = 1;
  std::deque<Report> unacked;
};

struct Worker {
  std::string name, boot = "boot 0";
  int slots = 0;
  std::vector<std::string> roots;
  std::int64_t incarnation = 0;  // 0: this process has not registered
  bool connected = false;
  std::deque<Order> inbox;
  std::deque<std::pair<std::string, int>> confirmations;  // (job, attempt) to answer
  std::int64_t probe = 0;                                 // to answer; 0: none
  std::map<Key, Process> held;
};

// One message or wish: what is decided, and what its sender learns.
struct Act {
  std::function<absl::Status(Transaction&)> decide;
  std::function<void(const absl::Status&)> done = [](const absl::Status&) {};
};

class Walk {
 public:
  explicit Walk(std::uint64_t seed) : random_(seed) {
    workers_ = {{"a", "boot 0", 2, {"x"}},
                {"b", "boot 0", 2, {"x", "y"}},
                {"c", "boot 0", 1, {"y"}},
                {"d", "boot 0", 3, {"x"}}};
    options_.failover_grace = seconds(30);
    options_.min_runtime = seconds(2);
  }

  // The sentences of what went wrong; empty: nothing.
  const std::vector<std::string>& wrong() const { return wrong_; }
  std::string History() const {
    std::string text;
    for (const std::string& line : history_) text += line + "\n";
    return text;
  }
  const std::map<std::string, int>& seen() const { return seen_; }

  void Run() {
    for (int i = 0; i < kSteps && wrong_.empty(); ++i) RandomStep();
    if (wrong_.empty()) Heal();
  }

 private:
  int Draw(int below) { return static_cast<int>(random_() % static_cast<std::uint64_t>(below)); }
  bool Chance(int percent) { return Draw(100) < percent; }
  Worker& AnyWorker() { return workers_[static_cast<std::size_t>(Draw(static_cast<int>(workers_.size())))]; }
  std::string AnyJob() {
    if (state_.jobs.empty()) return "none";
    // Mostly a young one: old ones have ended.
    const int count = static_cast<int>(state_.jobs.size());
    return JobName(Chance(80) ? std::max(1, count - Draw(8)) : 1 + Draw(count));
  }
  static std::string JobName(int number) { return "job " + std::to_string(number); }
  void Wrong(const std::string& sentence) { wrong_.push_back(sentence); }

  // ---- the shell: decide, commit or not, apply, reply, send ----

  void Commit(const std::vector<Act>& acts, int failing_percent) {
    Transaction tx(state_, options_, clock_.SteadyNow(), clock_.WallMicros());
    std::vector<absl::Status> answers;
    for (const Act& act : acts) answers.push_back(act.decide(tx));
    OnTime(tx, std::chrono::duration_cast<milliseconds>(tx.now - started_));
    if (tx.NeedsPass()) Schedule(tx);
    if (tx.changed() && Chance(failing_percent)) {
      state_.next_pass = kAtOnce;
      for (const Act& act : acts) act.done(absl::UnavailableError("store"));
      history_.push_back("(commit failed)");
      return;
    }
    const State before = PartBefore(state_, tx);
    tx.ApplyTo(state_);
    Check(before, tx);
    for (std::size_t i = 0; i < acts.size(); ++i) acts[i].done(answers[i]);
    for (const Message& message : tx.messages()) Deliver(message);
  }

  void Deliver(const Message& message) {
    for (Worker& worker : workers_) {
      if (worker.name != message.node || !worker.connected) continue;
      Order order{};
      const auto fill = [&](Order::Kind kind, const std::string& id) {
        const Job& job = state_.jobs.at(id);
        order.kind = kind;
        order.job = id;
        order.attempt = job.attempt;
        for (const Rank& rank : job.ranks) {
          if (rank.node == worker.name) order.ranks.emplace_back(rank.rank, rank.slot);
        }
      };
      if (const auto* prepare = std::get_if<SendPrepare>(&message.what)) {
        fill(Order::Kind::kPrepare, prepare->job_id);
      } else if (const auto* launch = std::get_if<SendLaunch>(&message.what)) {
        fill(Order::Kind::kLaunch, launch->job_id);
      } else if (const auto* stop = std::get_if<SendStop>(&message.what)) {
        order = {Order::Kind::kStop, stop->job_id, stop->attempt, {}};
      } else if (const auto* abort = std::get_if<SendAbort>(&message.what)) {
        order = {Order::Kind::kAbort, abort->job_id, abort->attempt, {}};
      } else if (const auto* ack = std::get_if<SendAck>(&message.what)) {
        order = {Order::Kind::kAck, ack->job_id, ack->attempt, {}, ack->rank, ack->sequence, ack->fenced};
      } else if (const auto* probe = std::get_if<SendProbe>(&message.what)) {
        order = {Order::Kind::kProbe, "", 0, {}, 0, probe->number};
      }
      worker.inbox.push_back(order);
    }
  }

  // ---- what must hold ----

  void Check(const State& before, const Transaction& tx) {
    for (const Event& e : tx.events()) {
      history_.push_back(e.job_id + " " + e.kind + " #" + std::to_string(e.attempt) + ": " + e.message);
      if (history_.size() > 60) history_.pop_front();
      ++seen_[e.kind == "RESERVED" && e.actor == "restart policy" ? "RESERVED in place" : e.kind];
    }
    for (const auto& broken : {Broken(state_), BrokenBy(before, tx, state_), Overdue(state_, tx.now)}) {
      for (const std::string& sentence : broken) Wrong(sentence);
    }
  }

  // ---- users ----

  Act SubmitSome() {
    const int number = static_cast<int>(state_.jobs.size()) + 1;
    Job job;
    job.name = "walk";
    job.owner = "local:walk";
    job.spec = "spec";
    job.data_root = Chance(5) ? "nowhere" : Chance(70) ? "x" : "y";
    job.min_world = job.max_world = job.world_size = Chance(3) ? 50 : 1 + Draw(5);
    if (Chance(30)) job.max_world = job.min_world + Draw(3);
    job.batch_size = 64;
    job.priority = Draw(3);
    job.project = Chance(30) ? "other" : "default";
    job.topology = {static_cast<Level>(Draw(3)), Chance(20)};
    job.max_charges = Draw(4);
    job.one_attempt = Chance(10);
    if (Chance(10)) job.deadline_us = Draw(300'000'000) + 1;
    const std::string id = JobName(number), request = "request " + id;
    return {[=](Transaction& tx) { return Submit(tx, job, id, request, "sha").status(); }};
  }
  Act SubmitAgain() {
    const std::string id = AnyJob();
    const bool other = Chance(50);
    const bool known = state_.jobs.count(id) != 0;
    return {[=, this](Transaction& tx) {
      if (!known) return absl::OkStatus();
      const auto got = Submit(tx, Job{}, "never", "request " + id, other ? "other" : "sha");
      if (other ? !absl::IsAlreadyExists(got.status()) : (!got.ok() || *got != id))
        Wrong("the request of " + id + " was answered differently");
      return got.status();
    }};
  }
  Act WishSome() {
    const Wish wish{AnyJob(), "local:walk", 10};
    const int number = Draw(6);
    static constexpr absl::Status (*kWishes[])(Transaction&, const Wish&) = {Cancel, Pause,   Resume,     Resume,
                                                                             Hold,   Release, RequeueJob, RequeueJob};
    const auto what = static_cast<std::size_t>(Draw(11));
    return {[=](Transaction& tx) {
      switch (what) {
        case 8:
          return SetPriority(tx, wish, number);
        case 9:
          return Restart(tx, wish, Chance2(number) ? std::optional<std::int64_t>(10 * number) : std::nullopt);
        case 10:
          return Resize(tx, wish, 1 + number);
        default:
          return kWishes[what](tx, wish);
      }
    }};
  }
  static bool Chance2(int number) { return number % 2 == 0; }
  Act AdminSome() {
    const std::string node = AnyWorker().name;
    const auto admin = static_cast<AdminState>(Draw(3));
    return {[=](Transaction& tx) { return SetNodeAdmin(tx, node, admin, 10, "local:operator"); }};
  }

  // ---- workers ----

  Act Connect(Worker& worker) {
    Registration registration;
    registration.node.name = worker.name;
    registration.node.boot_id = worker.boot;
    registration.node.incarnation = worker.incarnation;
    registration.node.cpu_slots = worker.slots;
    registration.node.data_roots = worker.roots;
    for (const auto& [key, process] : worker.held)
      registration.held.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key)});
    auto welcome = std::make_shared<Welcome>();
    return {[=](Transaction& tx) -> absl::Status {
              ASSIGN_OR_RETURN(*welcome, Register(tx, registration));
              return absl::OkStatus();
            },
            [=, this, &worker](const absl::Status& status) {
              Disconnect(worker);
              worker.connected = status.ok();
              if (absl::IsAborted(status)) Wrong("worker " + worker.name + " was fenced by itself");
              if (!status.ok()) return;
              worker.incarnation = welcome->incarnation;
              std::erase_if(worker.held, [&](const auto& entry) {
                return std::none_of(welcome->keep.begin(), welcome->keep.end(),
                                    [&](const Held& h) { return Key(h.job_id, h.attempt, h.rank) == entry.first; });
              });
            }};
  }
  static void Disconnect(Worker& worker) {
    worker.connected = false;
    worker.inbox.clear();
    worker.confirmations.clear();
    worker.probe = 0;
  }
  // Ranks have sessions of their own: some outlive their worker.
  void NewProcess(Worker& worker) {
    Disconnect(worker);
    worker.incarnation = 0;
    std::erase_if(worker.held, [&](const auto&) { return Chance(40); });
  }
  void Reboot(Worker& worker) {
    Disconnect(worker);
    worker.incarnation = 0;
    worker.held.clear();
    worker.boot = "boot " + std::to_string(++boots_);
  }

  Act Beat(Worker& worker) {
    return {[name = worker.name, incarnation = worker.incarnation](Transaction& tx) {
              return Heartbeat(tx, name, incarnation);
            },
            [&worker](const absl::Status& status) {
              if (!status.ok()) Disconnect(worker);
            }};
  }
  Act Confirm(Worker& worker, const std::string& job, int attempt, const std::string& refusal) {
    const Act act{[=, name = worker.name, incarnation = worker.incarnation](Transaction& tx) {
      return OnPrepared(tx, name, incarnation, job, attempt, refusal), absl::OkStatus();
    }};
    Remember(act.decide);
    return act;
  }
  // Passed, or not.
  Act AnswerProbe(Worker& worker, bool passes) {
    const ProbeAnswer answer{worker.name, worker.incarnation, std::exchange(worker.probe, 0), passes ? "" : "no space"};
    const Act act{[=](Transaction& tx) { return OnProbed(tx, answer), absl::OkStatus(); }};
    Remember(act.decide);
    return act;
  }
  Act ProbeSome() {
    const Worker& worker = AnyWorker();
    const ProbeAnswer answer{worker.name, worker.incarnation, 0, Chance(70) ? "" : "no space", "local:operator"};
    return {[=](Transaction& tx) { return OnProbed(tx, answer), absl::OkStatus(); }};
  }
  Act Tell(Worker& worker, const Report& report) {
    const Act act{[=, name = worker.name, incarnation = worker.incarnation](Transaction& tx) {
      return OnReport(tx, name, incarnation, report), absl::OkStatus();
    }};
    Remember(act.decide);
    return act;
  }
  void Remember(const std::function<absl::Status(Transaction&)>& said) {
    said_.push_back(said);
    if (said_.size() > 500) said_.erase(said_.begin() + Draw(500));
  }

  void Say(
      const Key& key, Process& process, Report::Kind kind, const std::function<void(Report&)>& fill = [](Report&) {}) {
    Report report;
    std::tie(report.job_id, report.attempt, report.rank) = key;
    report.sequence = process.next++;
    report.kind = kind;
    fill(report);
    process.unacked.push_back(report);
  }
  void End(const Key& key, Process& process, ExitReason reason) {
    if (!process.alive) return;
    process.alive = false;
    Say(key, process, Report::Kind::kExited, [&](Report& report) { report.exit_reason = reason; });
  }

  void Read(Worker& worker) {
    if (worker.inbox.empty()) return;
    const Order order = worker.inbox.front();
    worker.inbox.pop_front();
    switch (order.kind) {
      case Order::Kind::kPrepare:
        worker.confirmations.emplace_back(order.job, order.attempt);
        break;
      case Order::Kind::kLaunch:
        for (const auto& [rank, slot] : order.ranks) {
          const Key key(order.job, order.attempt, rank);
          if (worker.held.count(key) != 0) continue;
          for (const auto& [other, process] : worker.held) {
            if (process.alive && process.slot == slot)
              Wrong("two live processes in slot " + std::to_string(slot) + " of " + worker.name);
          }
          Process& process = worker.held[key];
          process.slot = slot;
          Say(key, process, Report::Kind::kSpawned);
        }
        break;
      case Order::Kind::kProbe:
        worker.probe = order.sequence;
        break;
      case Order::Kind::kStop:
      case Order::Kind::kAbort:
        for (auto& [key, process] : worker.held) {
          if (std::get<0>(key) != order.job || std::get<1>(key) != order.attempt) continue;
          End(key, process,
              order.kind == Order::Kind::kAbort ? ExitReason::kAborted
              : Chance(20)                      ? ExitReason::kCompleted
                                                : ExitReason::kStopped);
        }
        break;
      case Order::Kind::kAck: {
        const auto found = worker.held.find(Key(order.job, order.attempt, order.rank));
        if (found == worker.held.end()) break;
        auto& unacked = found->second.unacked;
        while (!unacked.empty() && unacked.front().sequence <= order.sequence) unacked.pop_front();
        if (order.fenced || (!found->second.alive && unacked.empty())) worker.held.erase(found);
        break;
      }
    }
  }

  // A rank gets on with its work, or ends in one of many ways.
  void Live(Worker& worker, bool healthy) {
    if (worker.held.empty()) return;
    auto entry = worker.held.begin();
    std::advance(entry, Draw(static_cast<int>(worker.held.size())));
    auto& [key, process] = *entry;
    if (!process.alive) return;
    static constexpr ExitReason kEnds[] = {
        ExitReason::kSignalled, ExitReason::kInternal,    ExitReason::kCollective,    ExitReason::kRendezvous,
        ExitReason::kHung,      ExitReason::kStartFailed, ExitReason::kData,          ExitReason::kNumeric,
        ExitReason::kStopped,   ExitReason::kNone,        static_cast<ExitReason>(77)};
    if (!healthy && Chance(10)) {
      End(key, process, kEnds[static_cast<std::size_t>(Draw(static_cast<int>(std::size(kEnds))))]);
    } else if (process.phase == 0) {
      process.phase = 1;
      Say(key, process, Report::Kind::kConnected, [](Report& r) { r.total_steps = 100; });
    } else if (process.phase == 1) {
      process.phase = 2;
      Say(key, process, Report::Kind::kStepping);
    } else if (process.step < 40) {
      process.step += 10;
      if (std::get<2>(key) == 0) {
        const std::int64_t step = state_.jobs.at(std::get<0>(key)).resumed_step + process.step;
        Say(key, process, Report::Kind::kCheckpoint, [&](Report& r) {
          r.checkpoint = {std::get<1>(key), step, "path", "hash", 1};
        });
      }
    } else {
      End(key, process, ExitReason::kCompleted);
    }
  }

  // A message no honest worker could send now. It may be answered and counted; nothing else.
  Act Garbage() {
    Report report;
    report.job_id = Chance(10) ? "" : AnyJob();
    report.attempt = Draw(5) - 1;
    report.rank = Draw(6) - 1;
    report.sequence = Chance(10) ? std::numeric_limits<std::int64_t>::max() : Draw(20) - 5;
    report.kind = static_cast<Report::Kind>(Draw(7));
    report.exit_reason = static_cast<ExitReason>(Draw(30) - 3);
    report.checkpoint.step = 1'000'000'000;
    const std::string node = Chance(20) ? "nobody" : AnyWorker().name;
    const std::int64_t incarnation = Chance(50) ? Draw(3) - 2 : 1'000'000 + Draw(10);
    const int kind = Draw(3);
    return {[=, this](Transaction& tx) {
      const std::size_t events = tx.events().size();
      const std::int64_t fenced = tx.fenced;
      if (kind == 0) OnReport(tx, node, incarnation, report);
      if (kind == 1) OnPrepared(tx, node, incarnation, report.job_id, report.attempt, Chance(50) ? "no" : "");
      if (kind == 2 && Heartbeat(tx, node, incarnation).ok()) Wrong("a heartbeat of no incarnation was accepted");
      if (tx.events().size() != events || tx.fenced != fenced + 1) Wrong("a message of no incarnation was not fenced");
      return absl::OkStatus();
    }};
  }

  // ---- the coordinator ----

  // As a real one: what is stored goes through its record, the rest begins anew.
  void RestartCoordinator() {
    for (auto& [id, job] : state_.jobs) job = store::JobFromRecord(store::JobRecord(job), job.spec);
    for (auto& [name, node] : state_.nodes) {
      store::Restore(state_, store::NodeFromRecord(store::NodeRecord(node)));
    }
    ++state_.term;
    state_.waiting.clear();
    state_.preemptions.clear();
    for (Worker& worker : workers_) Disconnect(worker);
    state_.began = started_ = clock_.SteadyNow();
    Transaction recovery(state_, options_, started_, clock_.WallMicros());
    Recover(recovery);
    Schedule(recovery);
    const State before = PartBefore(state_, recovery);
    recovery.ApplyTo(state_);
    Check(before, recovery);
    history_.push_back("(coordinator restarted)");
  }

  void RandomStep() {
    if (Chance(1) && Chance(30)) RestartCoordinator();
    if (Chance(2)) Disconnect(AnyWorker());
    if (Chance(1)) NewProcess(AnyWorker());
    if (Chance(1) && Chance(30)) Reboot(AnyWorker());
    clock_.Advance(Chance(1) ? milliseconds(Draw(30'000)) : milliseconds(Draw(400)));
    std::vector<Act> acts;
    for (int i = Draw(4); i >= 0; --i) {
      Worker& worker = AnyWorker();
      Read(worker);
      if (Chance(30)) Live(worker, false);
      const int what = Draw(100);
      // One submit a batch: ids are numbered by what is committed.
      if (what < 4 && i == 0 && state_.jobs.size() < kMaxJobs) acts.push_back(SubmitSome());
      if (what >= 4 && what < 6) acts.push_back(SubmitAgain());
      if (what >= 6 && what < 8 && Chance(60))
        acts.push_back(Chance(80) ? WishSome() : Chance(70) ? AdminSome() : ProbeSome());
      if (what >= 8 && what < 20) acts.push_back(Garbage());
      if (what >= 20 && what < 30 && !said_.empty())
        acts.push_back({said_[static_cast<std::size_t>(Draw(static_cast<int>(said_.size())))]});
      if (!worker.connected) {
        if (what >= 30 && what < 60 && i == 0) acts.push_back(Connect(worker));
        continue;
      }
      if (what >= 30 && what < 60) acts.push_back(Beat(worker));
      if (what >= 40 && !worker.confirmations.empty()) {
        const auto [job, attempt] = worker.confirmations.front();
        worker.confirmations.pop_front();
        acts.push_back(Confirm(worker, job, attempt, Chance(10) ? "memory is short" : ""));
      }
      if (what >= 40 && worker.probe != 0) acts.push_back(AnswerProbe(worker, Chance(80)));
      if (what >= 50) Report1(worker, acts);
    }
    Commit(acts, 3);
  }

  // A report that is not acknowledged yet, in order.
  void Report1(Worker& worker, std::vector<Act>& acts) {
    for (auto& [key, process] : worker.held) {
      if (process.unacked.empty() || (Chance(50) && acts.size() < 2)) continue;
      acts.push_back(Tell(worker, process.unacked.front()));
      return;
    }
  }

  // ---- the end ----

  // Only what the cluster could not hold even when empty may wait now.
  bool AtRest() {
    return std::all_of(state_.live.begin(), state_.live.end(), [&](const auto& key) {
      const Job& job = state_.jobs.at(key.second);
      const Reason why = Explain(job, state_.waiting).reason;
      return job.state == JobState::kQueued &&
             (why == Reason::kNotEnoughSlots || why == Reason::kDataRootMissing || why == Reason::kTopology);
    });
  }

  // Whoever held or paused something lets it go on.
  void LetGo() {
    for (const auto& [queue_seq, id] : state_.live) {
      const Job& job = state_.jobs.at(id);
      if (!job.held && job.state != JobState::kPaused) continue;
      const Wish wish{id, "local:walk"};
      Commit({{[=](Transaction& tx) { return Release(tx, wish); }}, {[=](Transaction& tx) {
                const Job* now = tx.FindJob(wish.job_id);
                return now->state == JobState::kPaused ? Resume(tx, wish) : absl::OkStatus();
              }}},
             0);
      return;  // the index of live jobs may have changed
    }
  }

  void Heal() {
    for (const auto& [name, node] : state_.nodes) {
      Commit({{[name = name](Transaction& tx) {
               return SetNodeAdmin(tx, name, AdminState::kOpen, 10, "local:operator");
             }}},
             0);
    }
    const TimePoint begin = clock_.SteadyNow();
    while (wrong_.empty() && clock_.SteadyNow() - begin < seconds(900)) {
      clock_.Advance(milliseconds(500));
      LetGo();
      for (Worker& worker : workers_) {
        if (!worker.connected) {
          Commit({Connect(worker)}, 0);
          continue;
        }
        std::vector<Act> acts = {Beat(worker)};
        while (!worker.inbox.empty()) Read(worker);
        if (worker.probe != 0) acts.push_back(AnswerProbe(worker, true));
        for (const auto& [job, attempt] : std::exchange(worker.confirmations, {}))
          acts.push_back(Confirm(worker, job, attempt, ""));
        for (int i = 0; i < 4; ++i) Live(worker, true);
        for (auto& [key, process] : worker.held) {
          for (const Report& report : process.unacked) acts.push_back(Tell(worker, report));
        }
        Commit(acts, 0);
      }
      const bool idle =
          std::all_of(workers_.begin(), workers_.end(), [](const Worker& w) { return w.connected && w.held.empty(); });
      const bool placeable =
          std::all_of(state_.nodes.begin(), state_.nodes.end(), [](const auto& n) { return n.second.placeable(); });
      if (idle && placeable && AtRest()) return;
    }
    if (!wrong_.empty()) return;
    for (const auto& [queue_seq, id] : state_.live) {
      const Job& job = state_.jobs.at(id);
      Wrong(id + " never came to rest: " + Name(job.state) + " (" + job.message + ")");
    }
    for (const Worker& worker : workers_) {
      if (!worker.connected) Wrong("worker " + worker.name + " never came back");
      if (const Node& node = state_.nodes.at(worker.name); !node.placeable())
        Wrong("node " + worker.name + " never became READY: " + node.message);
      for (const auto& [key, process] : worker.held)
        Wrong("worker " + worker.name + " still holds a rank of " + std::get<0>(key));
    }
  }

  std::mt19937_64 random_;
  vicreg::testing::FakeClock clock_;
  Options options_;
  State state_;
  TimePoint started_ = clock_.SteadyNow();
  std::vector<Worker> workers_;
  std::vector<std::function<absl::Status(Transaction&)>> said_;
  int boots_ = 0;
  std::vector<std::string> wrong_;
  std::deque<std::string> history_;
  std::map<std::string, int> seen_;
};

TEST(Walk, NoRandomHistoryBreaksAnInvariantOrLeavesAJobBehind) {
  std::vector<std::uint64_t> seeds;
  if (const char* one = std::getenv("VICREG_WALK_SEED")) {
    seeds = {std::strtoull(one, nullptr, 10)};
  } else {
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) seeds.push_back(seed);
  }
  std::map<std::string, int> seen;
  for (const std::uint64_t seed : seeds) {
    Walk walk(seed);
    walk.Run();
    for (const auto& [kind, count] : walk.seen()) seen[kind] += count;
    ASSERT_THAT(walk.wrong(), ::testing::IsEmpty()) << "seed " << seed << "; the last events:\n" << walk.History();
  }
  // A walk that goes nowhere proves nothing.
  if (seeds.size() < kSeeds) return;
  for (const char* kind :
       {"SUBMITTED", "RESERVED", "RESERVED in place", "NOT_PLACED", "STARTING", "RUNNING", "STOPPING", "BACKOFF",
        "QUEUED", "CHECKPOINT", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"}) {
    EXPECT_GE(seen[kind], 10) << kind;
    RecordProperty(kind, seen[kind]);
  }
}

TEST(Walk, SameSeedGivesTheSameHistory) {
  Walk first(7), second(7);
  first.Run();
  second.Run();
  EXPECT_EQ(first.History(), second.History());
}

}  // namespace
}  // namespace vicreg::core
