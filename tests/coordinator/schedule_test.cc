// Goal: who gets slots, where, and at whose cost is what the scheduling rules say, and who waits is told why. Method:
// one test per rule on plain state with a clock that moves only when told to; after every decision the invariants are
// checked as well.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "coordinator/core/preempt.h"
#include "coordinator/core/scheduler.h"
#include "tests/coordinator/core_cluster.h"

namespace vicreg::core {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Fill = std::function<void(Job&)>;

class Schedule : public ::testing::Test {
 protected:
  void Add(const std::string& name, int slots, std::vector<std::string> labels = {}) {
    Registration registration;
    registration.node.name = name;
    registration.node.boot_id = "boot of " + name;
    registration.node.cpu_slots = slots;
    registration.node.data_roots = {"images"};
    registration.node.labels = std::move(labels);
    EXPECT_TRUE(c.Decide([&](Transaction& tx) { return Register(tx, registration); }).ok());
  }
  void Wants(
      const std::string& id, int world, const Fill& fill = [](Job&) {}) {
    Job job = CoreCluster::Wanted(world);
    job.name = id;
    fill(job);
    EXPECT_TRUE(c.Decide([&](Transaction& tx) { return Submit(tx, job, id, "request of " + id, "sha"); }).ok());
  }
  void Runs(
      const std::string& id, int world, const Fill& fill = [](Job&) {}) {
    Wants(id, world, fill);
    c.Plan();
    ASSERT_EQ(c.job(id).state, JobState::kReserved) << c.why(id).message;
    c.ConfirmAll(id);
    c.Step(id);
    ASSERT_EQ(c.job(id).state, JobState::kRunning);
  }
  std::vector<std::string> NodesOfJob(const std::string& id) {
    std::set<std::string> nodes;
    for (const Rank& rank : c.job(id).ranks) nodes.insert(rank.node);
    return {nodes.begin(), nodes.end()};
  }
  absl::Status Do(absl::Status (*wish)(Transaction&, const Wish&), const std::string& id) {
    return c.Decide([&](Transaction& tx) { return wish(tx, {id, "local:test", 30}); });
  }
  static Fill Priority(int priority) {
    return [=](Job& job) { job.priority = priority; };
  }
  JobState state(const std::string& id) const { return c.job(id).state; }

  CoreCluster c;
};

// ---- order ----

TEST_F(Schedule, HigherPriorityChoosesFirstAndAgeDecidesAmongEquals) {
  Add("a", 1);
  Wants("old", 1);
  Wants("older than urgent", 1, Priority(5));
  Wants("urgent", 1, Priority(5));
  c.Plan();
  EXPECT_EQ(state("older than urgent"), JobState::kReserved);
  EXPECT_EQ(c.why("urgent").reason, Reason::kSlotsInUse);
  EXPECT_EQ(c.why("old").reason, Reason::kSlotsInUse);
}

TEST_F(Schedule, ProjectsShareByWeight) {
  Add("a", 8);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetProject(tx, {"heavy", -1, -1, 3}); }).ok());
  for (int i = 0; i < 8; ++i) Wants("light " + std::to_string(i), 1, [](Job& j) { j.project = "light"; });
  for (int i = 0; i < 8; ++i) Wants("heavy " + std::to_string(i), 1, [](Job& j) { j.project = "heavy"; });
  c.Plan();
  int heavy = 0, light = 0;
  for (const auto& [id, job] : c.state.jobs) (job.project == "heavy" ? heavy : light) += !job.ranks.empty();
  EXPECT_EQ(heavy, 6);
  EXPECT_EQ(light, 2);
}

TEST_F(Schedule, QuotaHoldsAndSaysSo) {
  Add("a", 4);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetProject(tx, {"default", 3, -1, 1}); }).ok());
  Runs("first", 2);
  Wants("second", 2);
  Wants("other", 2, [](Job& j) { j.project = "other"; });
  c.Plan();
  EXPECT_EQ(c.why("second").reason, Reason::kQuota);
  EXPECT_THAT(c.why("second").message, HasSubstr("may hold 3 cpu slots and holds 2"));
  EXPECT_EQ(state("other"), JobState::kReserved);
  c.ExitAll("first", ExitReason::kCompleted);
  c.Plan();
  EXPECT_EQ(state("second"), JobState::kReserved);
}

TEST_F(Schedule, ClosedQueueKeepsItsJobsWaiting) {
  Add("a", 2);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetQueue(tx, {"default", "night", false, -10, 10, {}}); }).ok());
  Wants("job", 1, [](Job& j) { j.queue = "night"; });
  c.Plan();
  EXPECT_EQ(c.why("job").reason, Reason::kQueueClosed);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetQueue(tx, {"default", "night", true, -10, 10, {}}); }).ok());
  c.Plan();
  EXPECT_EQ(state("job"), JobState::kReserved);
}

// ---- where ----

TEST_F(Schedule, GangStaysOnOneNodeThenInOneRackThenOnFewestNodes) {
  Add("a1", 2, {"rack=a"});
  Add("a2", 2, {"rack=a"});
  Add("b1", 3, {"rack=b"});
  Add("b2", 3, {"rack=b"});
  Wants("three", 3);
  c.Plan();
  EXPECT_EQ(NodesOfJob("three").size(), 1u);
  Wants("four", 4);  // no node has four; rack a has exactly four
  c.Plan();
  EXPECT_THAT(NodesOfJob("four"), ElementsAre("a1", "a2"));
}

TEST_F(Schedule, RequiredTopologyWaitsRatherThanSpread) {
  Add("a", 2);
  Add("b", 2);
  Runs("in a", 1);
  Runs("also in a", 1);
  Runs("in b", 1);
  Wants("pair", 2, [](Job& j) { j.topology = {Level::kNode, true}; });
  c.Plan();
  EXPECT_EQ(c.why("pair").reason, Reason::kSlotsInUse);
  c.ExitAll("in a", ExitReason::kCompleted);
  c.Plan();
  EXPECT_EQ(c.why("pair").reason, Reason::kTopology) << "one slot of each node is free";
  Wants("never", 3, [](Job& j) { j.topology = {Level::kNode, true}; });
  c.Plan();
  EXPECT_THAT(c.why("never").message, HasSubstr("the largest node has 2"));
  c.ExitAll("also in a", ExitReason::kCompleted);
  c.Plan();
  EXPECT_THAT(NodesOfJob("pair"), ElementsAre("a"));
}

TEST_F(Schedule, LabelsOfJobAndQueueChooseNodes) {
  Add("plain", 2);
  Add("fast", 2, {"cpu=zen4"});
  Wants("job", 1, [](Job& j) { j.labels = {"cpu=zen4"}; });
  c.Plan();
  EXPECT_THAT(NodesOfJob("job"), ElementsAre("fast"));
  EXPECT_TRUE(c.Decide([](Transaction& tx) {
                 return SetQueue(tx, {"default", "fast", true, 0, 0, {"cpu=zen4"}});
               }).ok());
  Wants("queued", 1, [](Job& j) { j.queue = "fast"; });
  Wants("none", 1, [](Job& j) { j.labels = {"cpu=zen9"}; });
  c.Plan();
  EXPECT_THAT(NodesOfJob("queued"), ElementsAre("fast"));
  EXPECT_EQ(c.why("none").reason, Reason::kNoMatchingNode);
  EXPECT_THAT(c.why("none").message, HasSubstr("there are: cpu=zen4"));
}

TEST_F(Schedule, CrashReturnsToTheSameSlotsAndABlamedNodeIsLeft) {
  Add("a", 1);
  Add("b", 1);
  Runs("job", 1);
  const std::string node = c.job("job").ranks[0].node;
  c.Exit("job", 0, ExitReason::kSignalled);
  c.Pass(seconds(2));
  EXPECT_THAT(NodesOfJob("job"), ElementsAre(node));
  c.ConfirmAll("job");
  c.Exit("job", 0, ExitReason::kDevice);
  c.PassWithHeartbeats(seconds(2));
  EXPECT_THAT(NodesOfJob("job"), ElementsAre(node == "a" ? "b" : "a"));
  EXPECT_EQ(c.state.nodes.at(node).strikes.size(), 1u);
}

TEST_F(Schedule, JobsOfOneShapeAndDifferentSizesAreJudgedEachByItsOwn) {
  Add("a", 1);
  Add("b", 1);
  Runs("runs", 1);
  // The small one can do without the node that failed under it, the large one cannot.
  Wants("small", 1, [](Job& j) { j.excluded = {"a"}, j.priority = 1; });
  Wants("large", 2, [](Job& j) { j.excluded = {"a"}; });
  c.Plan();
  EXPECT_EQ(c.why("large").reason, Reason::kSlotsInUse);
}

// ---- earmarks and backfill ----

TEST_F(Schedule, WideJobIsNotStarvedAndOthersUseTheRest) {
  Add("a", 4);
  Add("b", 2);
  Runs("runs", 3);  // on a
  Wants("wide", 4, [](Job& j) { j.topology = {Level::kNode, true}; });
  Wants("small", 2);
  Wants("late", 1);
  c.Plan();
  EXPECT_EQ(c.why("wide").reason, Reason::kSlotsInUse);
  EXPECT_THAT(NodesOfJob("small"), ElementsAre("b"));
  EXPECT_EQ(c.why("late").reason, Reason::kQueuedBehind) << "the free slot of a is promised to wide";
  c.ExitAll("runs", ExitReason::kCompleted);
  c.Plan();
  EXPECT_EQ(state("wide"), JobState::kReserved);
  EXPECT_EQ(state("late"), JobState::kQueued);
}

TEST_F(Schedule, OneThatFitsStartsBeforeThousandsThatDoNot) {
  Add("a", 2);
  for (int i = 0; i < 300; ++i) {
    Wants("never " + std::to_string(i), 3 + i % 5, Priority(i % 3));
  }
  Wants("fits", 2);
  c.Plan();
  EXPECT_EQ(state("fits"), JobState::kReserved);
  EXPECT_LE(c.state.waiting.size(), 15u) << "jobs alike are one class";
}

TEST_F(Schedule, FirstPassOfACoordinatorIsAtOnce) {
  c.Decide([](Transaction& tx) {
    EXPECT_TRUE(tx.NeedsPass());
    Schedule(tx);
    return 0;
  });
  c.Decide([](Transaction& tx) { return EXPECT_FALSE(tx.NeedsPass()), 0; });
}

TEST_F(Schedule, NoPassIsNeededWhereNothingHappened) {
  Add("a", 1);
  Wants("job", 2);
  c.Plan();
  c.Decide([](Transaction& tx) {
    EXPECT_FALSE(tx.NeedsPass());
    EXPECT_TRUE(Heartbeat(tx, "a", 1).ok());
    EXPECT_FALSE(tx.NeedsPass()) << "a heartbeat frees nothing";
    return 0;
  });
  Registration more;
  more.node = c.state.nodes.at("a");
  more.node.name = "b";
  more.node.incarnation = 0;
  c.Decide([&](Transaction& tx) {
    EXPECT_TRUE(Register(tx, more).ok());
    EXPECT_TRUE(tx.NeedsPass());
    return 0;
  });
}

// ---- preemption ----

TEST_F(Schedule, StopsTheCheapestGangsThatAreEnoughAfterTheirMinimum) {
  Add("a", 2);
  Add("b", 2);
  Runs("dear", 2);
  c.PassWithHeartbeats(minutes(6));
  Runs("cheap", 2);
  Wants("urgent", 2, Priority(1));
  c.Plan();
  EXPECT_EQ(state("dear"), JobState::kRunning) << "it has not had its ten minutes";
  EXPECT_EQ(c.state.next_pass, c.job("dear").running_since + c.options.min_runtime);
  c.PassWithHeartbeats(minutes(11));
  c.Save("dear", 10);  // nothing of it would be lost now
  // Already decided when "dear" alone was old enough.
  EXPECT_EQ(state("dear"), JobState::kStopping);
  EXPECT_EQ(c.job("dear").reason, Reason::kPreempted);
  EXPECT_EQ(state("cheap"), JobState::kRunning);
  EXPECT_EQ(c.why("urgent").reason, Reason::kPreempting);
  c.ExitAll("dear", ExitReason::kStopped);
  EXPECT_EQ(state("dear"), JobState::kQueued);
  EXPECT_EQ(c.job("dear").charges, 0);
  EXPECT_EQ(c.job("dear").preemptions, 1);
  c.Plan();
  EXPECT_EQ(state("urgent"), JobState::kReserved);
  EXPECT_EQ(state("dear"), JobState::kQueued);
}

TEST_F(Schedule, CostIsWhatWouldBeLostSinceTheCheckpoint) {
  Add("a", 2);
  Runs("saved", 1);
  Runs("unsaved", 1);
  c.PassWithHeartbeats(minutes(20));
  c.Save("saved", 10);
  c.PassWithHeartbeats(seconds(5));
  const Options& o = c.options;
  EXPECT_LT(StopCost(c.job("saved"), c.clock.SteadyNow(), o), StopCost(c.job("unsaved"), c.clock.SteadyNow(), o));
  Wants("urgent", 1, Priority(1));
  c.Plan();
  EXPECT_EQ(state("saved"), JobState::kStopping);
  EXPECT_EQ(state("unsaved"), JobState::kRunning);
}

TEST_F(Schedule, NobodyIsStoppedInVainOrForAnEqualOrBeyondTheBudget) {
  Add("a", 2);
  Add("b", 2);
  Runs("low", 1);
  Runs("other", 1, Priority(2));
  Runs("third", 2, Priority(2));
  c.PassWithHeartbeats(minutes(20));
  Wants("vain", 2, [](Job& j) {
    j.priority = 1;
    j.topology = {Level::kNode, true};
  });
  c.Plan();
  EXPECT_EQ(state("low"), JobState::kRunning) << "its slot alone would not do";
  Wants("equal", 1);
  c.Plan();
  EXPECT_EQ(state("low"), JobState::kRunning);
  c.options.preemptions_per_hour = 0;
  Wants("urgent", 1, Priority(9));
  c.Plan();
  EXPECT_EQ(state("low"), JobState::kRunning);
  c.options.preemptions_per_hour = 1;
  c.Plan();
  EXPECT_EQ(state("low"), JobState::kStopping);
}

TEST_F(Schedule, PassIsMadeWhenTheHourOfTheBudgetIsOver) {
  c.options.preemptions_per_hour = 2;
  Add("a", 3);
  for (const std::string id : {"one", "two", "three"}) Runs(id, 1);
  c.PassWithHeartbeats(minutes(15));
  Wants("urgent", 1, Priority(1));
  c.Plan();
  const TimePoint first = c.clock.SteadyNow();
  ASSERT_EQ(state("one"), JobState::kStopping);
  c.ExitAll("one", ExitReason::kStopped);
  c.Plan();
  c.ConfirmAll("urgent");
  c.Step("urgent");
  c.PassWithHeartbeats(minutes(11));  // now everybody has had their ten minutes
  Wants("more urgent", 2, Priority(2));  // needs two, one is left
  c.Plan();
  EXPECT_EQ(c.state.next_pass, first + std::chrono::hours(1));
  c.PassWithHeartbeats(minutes(51));
  EXPECT_EQ(c.why("more urgent").reason, Reason::kPreempting);
}

TEST_F(Schedule, BudgetHoldsForAllKindsOfSlotsTogether) {
  c.options.preemptions_per_hour = 1;
  Registration registration;
  registration.node.name = "a";
  registration.node.cpu_slots = registration.node.gpu_slots = 1;
  registration.node.data_roots = {"images"};
  EXPECT_TRUE(c.Decide([&](Transaction& tx) { return Register(tx, registration); }).ok());
  Runs("cpu", 1);
  Runs("gpu", 1, [](Job& j) { j.slot_kind = "gpu"; });
  c.PassWithHeartbeats(minutes(15));
  Wants("urgent", 1, Priority(1));
  Wants("urgent too", 1, [](Job& j) { j.priority = 1, j.slot_kind = "gpu"; });
  c.Plan();
  EXPECT_EQ((state("cpu") == JobState::kStopping) + (state("gpu") == JobState::kStopping), 1);
}

// ---- elastic ----

TEST_F(Schedule, StartsWithWhatFitsAndGrowsWhenNobodyWaits) {
  Add("a", 4);
  Runs("other", 2);
  Runs("elastic", 1, [](Job& j) { j.max_world = 4; });
  EXPECT_EQ(c.job("elastic").world_size, 2);
  c.ExitAll("other", ExitReason::kCompleted);
  c.PassWithHeartbeats(minutes(9));
  EXPECT_EQ(state("elastic"), JobState::kRunning);
  c.PassWithHeartbeats(minutes(2));
  EXPECT_EQ(state("elastic"), JobState::kStopping);
  EXPECT_EQ(c.job("elastic").reason, Reason::kResized);
  c.ExitAll("elastic", ExitReason::kStopped);
  c.Plan();
  EXPECT_EQ(c.job("elastic").world_size, 4);
  EXPECT_EQ(c.job("elastic").charges, 0);
}

TEST_F(Schedule, NeverExceedsItsMostAndNeverGrowsWhileSomebodyWaits) {
  Add("a", 3);
  Runs("elastic", 1, [](Job& j) { j.max_world = 2; });
  EXPECT_EQ(c.job("elastic").world_size, 2);
  Runs("one", 1);
  Wants("waits", 2);
  c.ExitAll("one", ExitReason::kCompleted);
  c.PassWithHeartbeats(minutes(30));
  EXPECT_EQ(state("elastic"), JobState::kRunning);
  EXPECT_EQ(c.why("waits").reason, Reason::kSlotsInUse);
}

// ---- users ----

TEST_F(Schedule, PauseAndResumeKeepItsPlaceAndChargeNothing) {
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

TEST_F(Schedule, CancelWhilePausingCancels) {
  Add("a", 1);
  Runs("job", 1);
  EXPECT_TRUE(Do(Pause, "job").ok());
  EXPECT_TRUE(Do(Cancel, "job").ok());
  EXPECT_TRUE(Do(Pause, "job").ok());
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kCancelled);
}

TEST_F(Schedule, HeldJobRunsOnAndDoesNotStartAgain) {
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

TEST_F(Schedule, RestartFromAnOlderCheckpointGivesLaterOnesUp) {
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
  c.Plan();
  EXPECT_EQ(c.job("job").resumed_step, 20);
  EXPECT_EQ(c.job("job").checkpoints.size(), 2u) << "20 and 10";
}

TEST_F(Schedule, ResizeKeepsTheBatchAndRefusesMoreRanksThanRows) {
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

TEST_F(Schedule, PriorityStaysWithinTheQueueAndWakesTheScheduler) {
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

TEST_F(Schedule, StaleWishIsRefusedAndChangesNothing) {
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

TEST_F(Schedule, RequestOfAChangeIsDecidedOnce) {
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

TEST_F(Schedule, PlanSaysWhereOrWhyNotAndChangesNothing) {
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

TEST_F(Schedule, CordonedNodeGetsNothingNewAndADrainedOneIsEmptied) {
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

TEST_F(Schedule, NodeThatFailsTwoJobsIsQuarantinedButNeverMoreThanAFifthOfThem) {
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

TEST_F(Schedule, ManyEndsByInfrastructureHoldTheJob) {
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

TEST_F(Schedule, OutOfMemoryIsTriedOnceMore) {
  Add("a", 1);
  Runs("job", 1);
  c.Exit("job", 0, ExitReason::kHostOom);
  EXPECT_EQ(state("job"), JobState::kBackoff);
  c.PassWithHeartbeats(seconds(2));
  c.ConfirmAll("job");
  c.Save("job", 10);  // progress does not make it larger memory
  c.Exit("job", 0, ExitReason::kHostOom);
  EXPECT_EQ(state("job"), JobState::kFailed);
  EXPECT_EQ(c.job("job").reason, Reason::kOutOfMemory);
}

// ---- what is refused ----

TEST_F(Schedule, QueueAndQuotaProblemsAreSaidAtOnce) {
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

TEST_F(Schedule, LimitOfQueuesAndProjectsRefusesNewOnesOnly) {
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
