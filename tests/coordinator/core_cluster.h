#pragma once

// A coordinator's core without its shell: decisions are made, applied at once and checked against the invariants; what
// they would have sent is kept. Builders bring a job into any of its states by the way a real one gets there.

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/decide.h"
#include "coordinator/core/invariants.h"
#include "coordinator/core/scheduler.h"
#include "tests/testing/fake_clock.h"

namespace vicreg::core {

inline void PrintTo(JobState state, std::ostream* out) { *out << Name(state); }
inline void PrintTo(RankState state, std::ostream* out) { *out << Name(state); }
inline void PrintTo(ExitReason reason, std::ostream* out) { *out << Name(reason); }
inline void PrintTo(Reason reason, std::ostream* out) { *out << "reason " << static_cast<int>(reason); }
inline void PrintTo(NodeState state, std::ostream* out) { *out << "node state " << static_cast<int>(state); }

class CoreCluster {
 public:
  State state;
  Options options;
  vicreg::testing::FakeClock clock;
  // Of the newest decision.
  std::vector<Message> sent;
  std::vector<Event> events;
  std::int64_t fenced = 0;
  std::chrono::milliseconds since_start = std::chrono::hours(1);

  // Runs `decide(tx)`, applies what it decided, returns what it returned.
  template <typename F>
  auto Decide(F decide) {
    Transaction tx(state, options, clock.SteadyNow(), clock.WallMicros());
    auto result = decide(tx);
    sent = tx.messages();
    events = tx.events();
    fenced = tx.fenced;
    tx.ApplyTo(state);
    for (const std::string& sentence : Broken(state)) ADD_FAILURE() << sentence;
    return result;
  }

  // ---- nodes ----

  static Node Offered(const std::string& name, int slots, std::vector<std::string> roots = {"images"}) {
    Node node;
    node.name = name;
    node.boot_id = "boot of " + name;
    node.cpu_slots = slots;
    node.data_roots = std::move(roots);
    return node;
  }
  absl::StatusOr<Welcome> RegisterNode(Node node, std::vector<Held> held = {}) {
    return Decide([&](Transaction& tx) { return Register(tx, {std::move(node), std::move(held)}); });
  }
  // Registered, and READY: it passed its probe.
  absl::StatusOr<Welcome> AddNode(Node node) {
    const std::string name = node.name;
    auto welcome = RegisterNode(std::move(node));
    Probed(name);
    return welcome;
  }
  absl::StatusOr<Welcome> AddNode(const std::string& name, int slots, std::vector<std::string> roots = {"images"}) {
    return AddNode(Offered(name, slots, std::move(roots)));
  }
  // The answer to the coordinator's newest probe.
  void Probed(const std::string& name, const std::string& problem = "") {
    const Node& node = state.nodes.at(name);
    const ProbeAnswer answer{name, node.incarnation, node.probe, problem};
    Decide([&](Transaction& tx) { return OnProbed(tx, answer), 0; });
  }
  // The same process connects again.
  absl::StatusOr<Welcome> Reconnect(const std::string& name, std::vector<Held> held = {}) {
    return RegisterNode(state.nodes.at(name), std::move(held));
  }
  // Another process of the same machine.
  absl::StatusOr<Welcome> Restart(const std::string& name, std::vector<Held> held = {}) {
    Node node = state.nodes.at(name);
    node.incarnation = 0;
    return RegisterNode(std::move(node), std::move(held));
  }
  absl::Status Beat(const std::string& name) {
    return Decide([&](Transaction& tx) { return Heartbeat(tx, name, state.nodes.at(name).incarnation); });
  }
  NodeState node(const std::string& name) const { return state.nodes.at(name).state; }

  // ---- jobs ----

  static Job Wanted(int world, const std::string& root = "images") {
    Job job;
    job.name = "test";
    job.owner = "local:test";
    job.spec = "spec";
    job.data_root = root;
    job.min_world = job.max_world = job.world_size = world;
    job.batch_size = 1024;
    return job;
  }
  const Job& SubmitJob(const std::string& id, int world, const std::string& root = "images") {
    EXPECT_TRUE(
        Decide([&](Transaction& tx) { return Submit(tx, Wanted(world, root), id, "request of " + id, "sha"); }).ok());
    return job(id);
  }
  const Job& job(const std::string& id) const { return state.jobs.at(id); }
  // Why it is as it is, as people read it.
  Explanation why(const std::string& id) const { return Explain(job(id), state.waiting); }
  void Plan() {
    Decide([](Transaction& tx) { return Schedule(tx), 0; });
  }
  // Time passes: every timer that is due acts, then the scheduler.
  void Pass(std::chrono::milliseconds by) {
    clock.Advance(by);
    Decide([&](Transaction& tx) { return OnTime(tx, since_start), Schedule(tx), 0; });
  }
  // As Pass, while every node is heard.
  void PassWithHeartbeats(std::chrono::milliseconds by) {
    for (auto left = by; left.count() > 0; left -= std::chrono::milliseconds(1000)) {
      clock.Advance(std::min(left, std::chrono::milliseconds(1000)));
      for (const auto& [name, node] : state.nodes) (void)Beat(name);
      Decide([&](Transaction& tx) { return OnTime(tx, since_start), Schedule(tx), 0; });
    }
  }
  void Answer(const std::string& node, const std::string& id, const std::string& refusal = "") {
    const int attempt = job(id).attempt;
    Decide([&](Transaction& tx) {
      return OnPrepared(tx, node, state.nodes.at(node).incarnation, id, attempt, refusal), 0;
    });
  }
  void ConfirmAll(const std::string& id) {
    const std::vector<Rank> ranks = job(id).ranks;
    for (const Rank& rank : ranks) {
      if (job(id).state == JobState::kReserved) Answer(rank.node, id);
    }
  }

  // The next report of a rank of the newest attempt, as its worker would send it.
  Report Next(const std::string& id, int rank, Report::Kind kind) const {
    Report report;
    report.job_id = id;
    report.attempt = job(id).attempt;
    report.rank = rank;
    report.sequence = job(id).ranks.at(static_cast<std::size_t>(rank)).acked + 1;
    report.kind = kind;
    return report;
  }
  void Say(const Report& report) {
    const Rank rank = job(report.job_id).ranks.at(static_cast<std::size_t>(report.rank));
    SayAs(rank.node, rank.incarnation, report);
  }
  void SayAs(const std::string& node, std::int64_t incarnation, const Report& report) {
    Decide([&](Transaction& tx) { return OnReport(tx, node, incarnation, report), 0; });
  }
  void Step(const std::string& id) {
    for (int rank = 0; rank < job(id).world_size; ++rank) Say(Next(id, rank, Report::Kind::kStepping));
  }
  void Save(const std::string& id, std::int64_t step) {
    Report report = Next(id, 0, Report::Kind::kCheckpoint);
    report.checkpoint = {report.attempt, step, "p/" + id + "/step", "hash", 10};
    Say(report);
  }
  void Exit(const std::string& id, int rank, ExitReason reason) {
    Report report = Next(id, rank, Report::Kind::kExited);
    report.exit_reason = reason;
    Say(report);
  }
  void ExitAll(const std::string& id, ExitReason reason) {
    for (int rank = 0; rank < job(id).world_size; ++rank) {
      if (!job(id).ranks[static_cast<std::size_t>(rank)].settled()) Exit(id, rank, reason);
    }
  }

  // Submits a job and brings it to `state`. Nodes "a" and "b" with two slots each are added when there are none.
  const Job& JobIn(JobState state_wanted, const std::string& id = "job", int world = 4) {
    if (state.nodes.empty()) {
      EXPECT_TRUE(AddNode("a", 2).ok());
      EXPECT_TRUE(AddNode("b", 2).ok());
    }
    SubmitJob(id, world);
    using enum JobState;
    if (state_wanted == kQueued) return job(id);
    if (state_wanted == kCancelled) {
      EXPECT_TRUE(Decide([&](Transaction& tx) { return Cancel(tx, {id, "test", 1}); }).ok());
      return job(id);
    }
    Plan();
    if (state_wanted == kReserved) return job(id);
    ConfirmAll(id);
    if (state_wanted == kStarting) return job(id);
    Step(id);
    if (state_wanted == kRunning) return job(id);
    if (state_wanted == kSucceeded) {
      ExitAll(id, ExitReason::kCompleted);
    } else if (state_wanted == kFailed) {
      ExitAll(id, ExitReason::kData);
    } else {
      Exit(id, 0, ExitReason::kSignalled);
      if (state_wanted == kBackoff) {
        // On a node that was closed meanwhile it cannot stay.
        const std::string node = job(id).ranks[0].node;
        const auto set = [&](AdminState admin) {
          EXPECT_TRUE(Decide([&](Transaction& tx) { return SetNodeAdmin(tx, node, admin, 1, "test"); }).ok());
        };
        set(AdminState::kCordoned);
        ExitAll(id, ExitReason::kAborted);
        set(AdminState::kOpen);
      }
    }
    EXPECT_EQ(job(id).state, state_wanted);
    return job(id);
  }

  // Nodes that the newest decision sent a message of this kind, in order.
  template <typename Kind>
  std::vector<std::string> SentTo() const {
    std::vector<std::string> nodes;
    for (const Message& message : sent) {
      if (std::holds_alternative<Kind>(message.what)) nodes.push_back(message.node);
    }
    return nodes;
  }
  // The newest decision answered one report; was it fenced?
  bool AckedAsFenced() const {
    for (const Message& message : sent) {
      if (const auto* ack = std::get_if<SendAck>(&message.what)) return ack->fenced;
    }
    ADD_FAILURE() << "no acknowledgement was sent";
    return false;
  }
};

}  // namespace vicreg::core
