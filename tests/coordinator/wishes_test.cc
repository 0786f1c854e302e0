// Goal: what users and operators ask of jobs, nodes, queues and projects happens as the rules say, and what they cannot
// have is refused with every problem. Method: as in schedule_test.cc.

#include <gmock/gmock.h>

#include "tests/coordinator/schedule_fixture.h"

namespace vicreg::core {
namespace {

using Wishes = Scheduler;

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// ---- users ----

TEST_F(Wishes, PauseAndResumeKeepItsPlaceAndChargeNothing) {
  Add("a", 2);
  Runs("job", 2);
  Wants("next", 2);
  c.Save("job", 20);
  EXPECT_TRUE(Do(Pause, "job").ok());
  EXPECT_EQ(state("job"), JobState::kStopping);
  EXPECT_THAT(c.SentTo<SendStop>(), ElementsAre("a"));
  EXPECT_EQ(Do(Resume, "job").code(), absl::StatusCode::kFailedPrecondition);
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kPaused);
  EXPECT_THAT(c.job("job").message, HasSubstr("step 20"));
  EXPECT_TRUE(Do(Pause, "job").ok());
  EXPECT_THAT(c.events, IsEmpty());
  EXPECT_TRUE(Do(Resume, "job").ok());
  c.Plan();
  EXPECT_EQ(state("job"), JobState::kReserved) << "it is older than the next";
  EXPECT_EQ(c.job("job").resumed_step, 20);
  EXPECT_EQ(c.job("job").charges, 0);
}

TEST_F(Wishes, CancelWhilePausingCancels) {
  Add("a", 1);
  Runs("job", 1);
  EXPECT_TRUE(Do(Pause, "job").ok());
  EXPECT_TRUE(Do(Cancel, "job").ok());
  EXPECT_TRUE(Do(Pause, "job").ok());
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kCancelled);
}

TEST_F(Wishes, HeldJobRunsOnAndDoesNotStartAgain) {
  Add("a", 1);
  Runs("job", 1);
  EXPECT_TRUE(Do(Hold, "job").ok());
  EXPECT_EQ(state("job"), JobState::kRunning);
  EXPECT_TRUE(Do(RequeueJob, "job").ok());
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kPaused);
  EXPECT_EQ(c.job("job").reason, Reason::kHeld);
  EXPECT_EQ(Do(Resume, "job").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Do(Release, "job").ok());
  c.Plan();
  EXPECT_EQ(state("job"), JobState::kReserved);
}

TEST_F(Wishes, HoldStopsAReservationThatHasNotStarted) {
  Add("a", 1);
  Wants("job", 1);
  c.Plan();
  ASSERT_EQ(state("job"), JobState::kReserved);
  EXPECT_TRUE(Do(Hold, "job").ok());
  EXPECT_EQ(state("job"), JobState::kPaused);
  Wants("next", 1);
  c.Plan();
  EXPECT_EQ(state("next"), JobState::kReserved) << "its slot is free";
  c.Answer("a", "job");  // was on its way
  EXPECT_EQ(state("job"), JobState::kPaused);
}

TEST_F(Wishes, RestartFromAnOlderCheckpointGivesLaterOnesUp) {
  Add("a", 1);
  Runs("job", 1);
  for (const int step : {10, 20, 30}) c.Save("job", step);
  const auto restart = [&](std::int64_t step) {
    return c.Decide([&](Transaction& tx) { return Restart(tx, {"job", "local:test", 5}, step); });
  };
  EXPECT_THAT(std::string(restart(15).message()), HasSubstr("30, 20, 10"));
  EXPECT_TRUE(restart(20).ok());
  EXPECT_THAT(c.SentTo<SendAbort>(), ElementsAre("a")) << "nothing is saved that will be given up";
  for (const int step : {40, 50}) c.Save("job", step);  // were on their way
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_THAT(c.job("job").message, HasSubstr("go on from step 20"));
  c.Plan();
  EXPECT_EQ(c.job("job").resumed_step, 20);
  EXPECT_EQ(c.job("job").checkpoints.size(), 2u) << "20 and 10";
}

TEST_F(Wishes, ResizeKeepsTheBatchAndRefusesMoreRanksThanRows) {
  Add("a", 4);
  Runs("job", 2);
  const auto resize = [&](int world) {
    return c.Decide([&](Transaction& tx) { return Resize(tx, {"job", "local:test", 5}, world); });
  };
  EXPECT_EQ(resize(0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(resize(1025).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(resize(4).ok());
  c.ExitAll("job", ExitReason::kStopped);
  c.Plan();
  EXPECT_EQ(c.job("job").world_size, 4);
  EXPECT_EQ(c.job("job").batch_size, 1024);
}

TEST_F(Wishes, PriorityStaysWithinTheQueueAndWakesTheScheduler) {
  Add("a", 1);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetQueue(tx, {"default", "default", true, -5, 5, {}}); }).ok());
  Runs("runs", 1);
  Wants("first", 1);
  Wants("second", 1);
  const auto set = [&](int priority) {
    return c.Decide([&](Transaction& tx) {
      const absl::Status status = SetPriority(tx, {"second", "local:test"}, priority);
      EXPECT_EQ(tx.NeedsPass(), status.ok());
      return status;
    });
  };
  c.Plan();
  EXPECT_THAT(std::string(set(6).message()), HasSubstr("takes -5 to 5"));
  EXPECT_TRUE(set(5).ok());
  c.ExitAll("runs", ExitReason::kCompleted);
  c.Plan();
  EXPECT_EQ(state("second"), JobState::kReserved);
}

TEST_F(Wishes, StaleWishIsRefusedAndChangesNothing) {
  Add("a", 1);
  Runs("job", 1);
  const std::int64_t seen = c.job("job").events;
  c.Save("job", 10);
  const auto pause = [&](std::int64_t version) {
    return c.Decide([&](Transaction& tx) { return Pause(tx, {"job", "local:test", 5, "", version}); });
  };
  EXPECT_EQ(pause(seen).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(state("job"), JobState::kRunning);
  EXPECT_TRUE(pause(seen + 1).ok());
}

TEST_F(Wishes, RequestOfAChangeIsDecidedOnce) {
  Add("a", 1);
  Runs("job", 1);
  int decided = 0;
  const auto once = [&](const std::string& sha) {
    return c.Decide(
        [&](Transaction& tx) { return Once(tx, "request", sha, "job", [&] { return ++decided, absl::OkStatus(); }); });
  };
  EXPECT_TRUE(once("sha").ok());
  EXPECT_TRUE(once("sha").ok());
  EXPECT_EQ(decided, 1);
  EXPECT_EQ(once("other").code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(Wishes, PlanSaysWhereOrWhyNotAndChangesNothing) {
  Add("a", 2);
  Runs("low", 1);
  const auto plan = [&](int world, int priority) {
    Job job = CoreCluster::Wanted(world);
    job.priority = priority;
    return c.Decide([&](Transaction& tx) {
      Foreseen foreseen = PlanOf(tx, job);
      EXPECT_FALSE(tx.changed());
      return foreseen;
    });
  };
  EXPECT_THAT(plan(1, 0).slots, ElementsAre(Slot{"a", 1}));
  EXPECT_EQ(plan(2, 0).why.reason, Reason::kSlotsInUse);
  EXPECT_EQ(plan(3, 0).why.reason, Reason::kNotEnoughSlots);
  c.PassWithHeartbeats(minutes(11));
  EXPECT_THAT(plan(2, 1).displaces, ElementsAre("low"));
  EXPECT_EQ(state("low"), JobState::kRunning);
}

// ---- nodes ----

TEST_F(Wishes, CordonedNodeGetsNothingNewAndADrainedOneIsEmptied) {
  Add("a", 2);
  const auto set = [&](const std::string& node, AdminState admin) {
    return c.Decide([&](Transaction& tx) { return SetNodeAdmin(tx, node, admin, 60, "local:op"); });
  };
  EXPECT_EQ(set("nobody", AdminState::kDraining).code(), absl::StatusCode::kNotFound);
  Runs("job", 1);
  EXPECT_TRUE(set("a", AdminState::kCordoned).ok());
  Wants("next", 1);
  c.Plan();
  EXPECT_EQ(c.why("next").reason, Reason::kNoNodes);
  EXPECT_THAT(c.why("next").message, HasSubstr("cordoned"));
  EXPECT_EQ(state("job"), JobState::kRunning);
  EXPECT_TRUE(set("a", AdminState::kDraining).ok());
  EXPECT_EQ(c.job("job").reason, Reason::kDrained);
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kQueued);
  EXPECT_EQ(c.job("job").charges, 0);
  EXPECT_TRUE(c.Reconnect("a").ok());
  EXPECT_EQ(c.state.nodes.at("a").admin, AdminState::kDraining) << "an operator's wish outlives a connection";
  EXPECT_TRUE(set("a", AdminState::kOpen).ok());
  c.Plan();
  EXPECT_EQ(state("job"), JobState::kReserved);
}

TEST_F(Wishes, NodeThatFailsTwoJobsIsQuarantinedButNeverMoreThanAFifthOfThem) {
  for (int i = 0; i < 5; ++i) Add("n" + std::to_string(i), 1);
  const auto fail = [&](const std::string& id, const std::string& node) {
    c.Decide([&](Transaction& tx) {
      for (const auto& [name, n] : c.state.nodes)
        EXPECT_TRUE(SetNodeAdmin(tx, name, name == node ? AdminState::kOpen : AdminState::kCordoned, 1, "op").ok());
      return 0;
    });
    Runs(id, 1);
    c.Exit(id, 0, ExitReason::kDevice);
    EXPECT_TRUE(Do(Cancel, id).ok());
  };
  // Opening clears strikes, so a node is opened before its first failure only.
  for (const std::string node : {"n0", "n1"}) {
    fail("one on " + node, node);
    Runs("two on " + node, 1);
    c.Exit("two on " + node, 0, ExitReason::kDevice);
    EXPECT_TRUE(Do(Cancel, "two on " + node).ok());
  }
  EXPECT_EQ(c.node("n0"), NodeState::kQuarantined);
  EXPECT_EQ(c.node("n1"), NodeState::kReady);
  EXPECT_THAT(c.state.nodes.at("n1").message, HasSubstr("more than a fifth"));
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetNodeAdmin(tx, "n0", AdminState::kOpen, 1, "op"); }).ok());
  EXPECT_EQ(c.node("n0"), NodeState::kReady);
}

// ---- the restart policy ----

TEST_F(Wishes, ManyEndsByInfrastructureHoldTheJob) {
  Add("a", 1);
  Wants("job", 1);
  for (int i = 0; i < 6; ++i) {
    c.PassWithHeartbeats(seconds(2));
    ASSERT_EQ(state("job"), JobState::kReserved) << i;
    c.ConfirmAll("job");
    c.Exit("job", 0, ExitReason::kStorage);
  }
  EXPECT_EQ(state("job"), JobState::kPaused);
  EXPECT_EQ(c.job("job").reason, Reason::kInfraHold);
  EXPECT_TRUE(Do(Resume, "job").ok());
  c.Plan();
  EXPECT_EQ(state("job"), JobState::kReserved);
}

TEST_F(Wishes, OutOfMemoryIsTriedOnceMore) {
  Add("a", 1);
  Runs("job", 1);
  c.Exit("job", 0, ExitReason::kHostOom);
  EXPECT_EQ(state("job"), JobState::kReserved);
  c.PassWithHeartbeats(seconds(2));
  c.ConfirmAll("job");
  c.Save("job", 10);  // progress does not make it larger memory
  c.Exit("job", 0, ExitReason::kHostOom);
  EXPECT_EQ(state("job"), JobState::kFailed);
  EXPECT_EQ(c.job("job").reason, Reason::kOutOfMemory);
}

// ---- what is refused ----

TEST_F(Wishes, QueueAndQuotaProblemsAreSaidAtOnce) {
  const auto check = [&](const Fill& fill) {
    Job job = CoreCluster::Wanted(4);
    fill(job);
    return c.Decide([&](Transaction& tx) { return CheckQueue(tx, job); });
  };
  EXPECT_TRUE(check([](Job&) {}).ok());
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetProject(tx, {"default", 3, -1, 1}); }).ok());
  const std::string both(check([](Job& j) { j.queue = "night"; }).message());
  EXPECT_THAT(both, HasSubstr("queue: found night"));
  EXPECT_THAT(both, HasSubstr("may hold 3 cpu slots"));
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetQueue(tx, {"default", "night", true, 0, 9, {}}); }).ok());
  EXPECT_THAT(std::string(check([](Job& j) {
                            j.queue = "night";
                            j.priority = 10;
                          }).message()),
              HasSubstr("takes 0 to 9"));
  for (const Queue& bad :
       {Queue{"p", "q", true, -1001, 5, {}}, Queue{"p", "q", true, 0, 1001, {}}, Queue{"p", "q", true, 6, 5, {}}}) {
    EXPECT_EQ(c.Decide([&](Transaction& tx) { return SetQueue(tx, bad); }).code(), absl::StatusCode::kInvalidArgument);
  }
  for (const Project& bad : {Project{"p", -2, -1, 1}, Project{"p", -1, 1000001, 1}, Project{"p", -1, -1, 0}}) {
    EXPECT_EQ(c.Decide([&](Transaction& tx) { return SetProject(tx, bad); }).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(Wishes, LimitOfQueuesAndProjectsRefusesNewOnesOnly) {
  const auto queue = [&](const std::string& project, const std::string& name) {
    return c.Decide([&](Transaction& tx) { return SetQueue(tx, {project, name, true, 0, 0, {}}); });
  };
  const auto project = [&](const std::string& name) {
    return c.Decide([&](Transaction& tx) { return SetProject(tx, {name, 1, -1, 1}); });
  };
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "n" + std::to_string(i);
    ASSERT_TRUE(queue("p", name).ok());
    ASSERT_TRUE(project(name).ok());
  }
  EXPECT_TRUE(queue("p", "n7").ok());
  EXPECT_TRUE(project("n7").ok());
  EXPECT_THAT(std::string(queue("p", "new").message()), HasSubstr("found 1000, the limit"));
  EXPECT_EQ(queue("p", "default").code(), absl::StatusCode::kInvalidArgument) << "it is not stored yet";
  EXPECT_THAT(std::string(project("new").message()), HasSubstr("found 1000, the limit"));
}

}  // namespace
}  // namespace vicreg::core
