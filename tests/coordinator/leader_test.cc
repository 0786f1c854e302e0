// Goal: the order of a batch, and whose silence counts. Method: a leader on a store in memory that fails when told to;
// time is passed in.

#include "coordinator/core/leader.h"

#include <gtest/gtest.h>

#include "coordinator/core/decide.h"
#include "coordinator/core/index.h"

namespace vicreg::core {
namespace {

using std::chrono::seconds;

class MemoryStore : public Store {
 public:
  absl::StatusOr<State> Load() override { return stored; }
  absl::Status Commit(const Transaction& /*transaction*/) override { return next; }
  absl::Status Probe() override { return next; }
  absl::Status next;
  State stored;
};

struct LeaderTest : ::testing::Test {
  MemoryStore store;
  Options options;
  Leader leader{store, options};
  TimePoint now{seconds(1000)};

  LeaderTest() { EXPECT_TRUE(leader.Start(now, 1).ok()); }
  absl::Status Do(std::function<absl::Status(Transaction&)> decide) {
    absl::Status answer = absl::InternalError("not answered");
    Batch batch =
        leader.Decide(now, 1, {{std::move(decide), [&](absl::Status status) { answer = std::move(status); }}});
    leader.Apply(batch);
    Leader::Answer(batch);
    return answer;
  }
  absl::Status Add(const std::string& name) {
    Registration registration;
    registration.node.name = name;
    registration.node.cpu_slots = 1;
    RETURN_IF_ERROR(Do([&](Transaction& tx) { return core::Register(tx, registration).status(); }));
    return Do([&](Transaction& tx) { return OnProbed(tx, {name, 1, 1, ""}), absl::OkStatus(); });
  }
  // In steps, as a coordinator that runs looks at the time.
  void Pass(seconds by) {
    for (; by.count() > 0; by -= seconds(1)) {
      now += seconds(1);
      EXPECT_TRUE(Do([](Transaction&) { return absl::OkStatus(); }).ok());
    }
  }
  NodeState StateOf(const std::string& name) { return leader.state().nodes.at(name).state; }
};

TEST_F(LeaderTest, WhatCouldNotBeCommittedIsNeitherTrueNorAnswered) {
  store.next = absl::UnavailableError("disk");
  EXPECT_TRUE(absl::IsUnavailable(Add("n")));
  EXPECT_TRUE(leader.state().nodes.empty());
  EXPECT_FALSE(leader.degraded().ok());
  store.next = absl::OkStatus();
  EXPECT_TRUE(Add("n").ok());
  EXPECT_EQ(leader.state().nodes.size(), 1U);
  EXPECT_TRUE(leader.degraded().ok());
}

TEST_F(LeaderTest, DeposedOneDecidesNothingMore) {
  store.next = absl::AbortedError("term 1 is over");
  EXPECT_TRUE(absl::IsUnavailable(Add("n")));
  EXPECT_TRUE(leader.deposed());
  store.next = absl::OkStatus();
  bool decided = false;
  EXPECT_TRUE(absl::IsUnavailable(Do([&](Transaction&) {
    decided = true;
    return absl::OkStatus();
  })));
  EXPECT_FALSE(decided);
  now += seconds(100);
  EXPECT_TRUE(absl::IsUnavailable(Add("m")));
  EXPECT_TRUE(leader.deposed()) << "no write that works makes it lead again";
  EXPECT_TRUE(leader.state().nodes.empty());
}

TEST_F(LeaderTest, SilentNodeIsLostAfterTheGrace) {
  ASSERT_TRUE(Add("n").ok());
  Pass(seconds(61));
  EXPECT_EQ(StateOf("n"), NodeState::kLost);
}

TEST_F(LeaderTest, SilenceWhileWeDidNotRunCountsAgainstNobody) {
  ASSERT_TRUE(Add("n").ok());
  for (int i = 0; i < 61; ++i) {
    Pass(seconds(1));
    ASSERT_TRUE(Do([](Transaction& tx) { return Heartbeat(tx, "n", 1); }).ok());
  }
  now += seconds(30);  // stopped, or out of memory and swapping; what workers said waits to be read
  Pass(seconds(2));
  EXPECT_NE(StateOf("n"), NodeState::kLost);
  ASSERT_TRUE(Do([](Transaction& tx) { return Heartbeat(tx, "n", 1); }).ok());
  EXPECT_EQ(StateOf("n"), NodeState::kReady);
}

TEST(LeaderStart, DelayBeginsAnewAndRunningAttemptsAreToldToTheHistory) {
  MemoryStore store;
  using enum JobState;
  for (const JobState state : {kQueued, kReserved, kStarting, kRunning, kStopping, kBackoff, kPaused, kSucceeded}) {
    Job job;
    job.id = Name(state);
    job.queue_seq = static_cast<std::int64_t>(state);
    job.state = state;
    job.attempt = 1;
    job.charges = 3;
    Put(store.stored, job);
  }
  const Options options;
  const TimePoint now{seconds(1000)};
  Leader leader(store, options);
  ASSERT_TRUE(leader.Start(now, 1).ok());
  EXPECT_EQ(leader.state().jobs.at("BACKOFF").not_before, now + seconds(4));
  std::vector<std::string> begun;
  for (const Job* job : leader.BegunAttempts()) begun.push_back(job->id);
  EXPECT_EQ(begun, (std::vector<std::string>{"STARTING", "RUNNING", "STOPPING"}));
}

}  // namespace
}  // namespace vicreg::core
