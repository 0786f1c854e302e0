// Goal: who gets slots, where, and at whose cost is what the scheduling rules say, and who waits is told why. Method:
// one test per rule on plain state with a clock that moves only when told to; after every decision the invariants are
// checked as well.

#include <gmock/gmock.h>

#include "coordinator/core/index.h"
#include "coordinator/core/preempt.h"
#include "tests/coordinator/schedule_fixture.h"

namespace vicreg::core {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// ---- gangs ----

TEST_F(Scheduler, GangGetsAllItsSlotsOrNone) {
  EXPECT_TRUE(c.AddNode("a", 2).ok());
  EXPECT_TRUE(c.AddNode("b", 1).ok());
  c.SubmitJob("job", 4);
  c.Plan();
  EXPECT_EQ(c.job("job").state, JobState::kQueued);
  EXPECT_THAT(c.job("job").ranks, IsEmpty());
  EXPECT_THAT(c.sent, IsEmpty());

  EXPECT_TRUE(c.AddNode("c", 1).ok());
  c.Plan();
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.job("job").attempt, 1);
  ASSERT_EQ(c.job("job").ranks.size(), 4u);
  EXPECT_THAT(c.SentTo<SendPrepare>(), ElementsAre("a", "b", "c"));
}

TEST_F(Scheduler, OlderJobGoesFirstAndYoungerOnesSayWhomTheyWaitFor) {
  EXPECT_TRUE(c.AddNode("a", 2).ok());
  c.SubmitJob("first", 1);
  c.Plan();
  c.SubmitJob("second", 2);
  c.SubmitJob("third", 1);  // would fit, but would make the second wait for ever
  c.Plan();
  EXPECT_EQ(c.job("second").state, JobState::kQueued);
  EXPECT_EQ(c.why("second").reason, Reason::kSlotsInUse);
  EXPECT_THAT(c.why("second").message, HasSubstr("1 of 2 are free"));
  EXPECT_EQ(c.job("third").state, JobState::kQueued);
  EXPECT_EQ(c.why("third").reason, Reason::kQueuedBehind);
  EXPECT_THAT(c.why("third").message, HasSubstr("second"));

  c.ConfirmAll("first");
  c.ExitAll("first", ExitReason::kCompleted);
  c.Plan();
  EXPECT_EQ(c.job("second").state, JobState::kReserved);
  EXPECT_EQ(c.job("third").state, JobState::kQueued);
}

TEST_F(Scheduler, JobTooWideForTheClusterSaysWhatIsMissingAndBlocksNobody) {
  EXPECT_TRUE(c.AddNode("a", 2).ok());
  c.SubmitJob("wide", 5);
  c.SubmitJob("narrow", 2);
  c.Plan();
  EXPECT_EQ(c.why("wide").reason, Reason::kNotEnoughSlots);
  EXPECT_THAT(c.why("wide").message, HasSubstr("needs 5 cpu slots; the cluster has 2"));
  EXPECT_THAT(c.why("wide").message, HasSubstr("add 3 more"));
  EXPECT_EQ(c.job("narrow").state, JobState::kReserved);
}

TEST_F(Scheduler, WhatIsMissingIsSaidByName) {
  c.SubmitJob("job", 1, "photos");
  c.Plan();
  EXPECT_EQ(c.why("job").reason, Reason::kNoNodes);
  EXPECT_THAT(c.why("job").message, HasSubstr("no node is ready"));
  EXPECT_TRUE(c.AddNode("a", 1, {"images"}).ok());
  c.Plan();
  EXPECT_EQ(c.why("job").reason, Reason::kDataRootMissing);
  EXPECT_THAT(c.why("job").message, HasSubstr("photos"));
  EXPECT_THAT(c.why("job").message, HasSubstr("offered: images"));
  EXPECT_TRUE(c.AddNode("b", 1, {"photos"}).ok());
  c.Plan();
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.job("job").ranks[0].node, "b");
}

TEST_F(Scheduler, SameReasonTwiceIsNotAChange) {
  c.SubmitJob("job", 1);
  c.Plan();
  c.Decide([](Transaction& tx) {
    Schedule(tx);
    EXPECT_FALSE(tx.changed());
    return 0;
  });
}

TEST_F(Scheduler, OneNodeIsPreferredAndTheFullestThatFits) {
  EXPECT_TRUE(c.AddNode("large", 4).ok());
  EXPECT_TRUE(c.AddNode("medium", 2).ok());
  EXPECT_TRUE(c.AddNode("small", 1).ok());
  c.SubmitJob("pair", 2);
  c.Plan();
  for (const Rank& rank : c.job("pair").ranks) EXPECT_EQ(rank.node, "medium");
  c.SubmitJob("five", 5);  // no node fits: most room first
  c.Plan();
  const std::vector<Rank>& ranks = c.job("five").ranks;
  ASSERT_EQ(ranks.size(), 5u);
  EXPECT_EQ(ranks[0].node, "large");
  EXPECT_EQ(ranks[3].node, "large");
  EXPECT_EQ(ranks[4].node, "small");
}

TEST_F(Scheduler, NothingIsPlacedOnANodeThatIsNotReady) {
  EXPECT_TRUE(c.AddNode("a", 2).ok());
  c.Pass(seconds(6));
  ASSERT_EQ(c.node("a"), NodeState::kSuspect);
  c.SubmitJob("job", 1);
  c.Plan();
  EXPECT_EQ(c.job("job").state, JobState::kQueued);
  EXPECT_EQ(c.why("job").reason, Reason::kNoNodes);
  EXPECT_TRUE(c.Beat("a").ok());
  c.Plan();
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
}

TEST_F(Scheduler, SlotOfALostRankStaysTakenUntilItsAttemptIsSettled) {
  c.JobIn(JobState::kRunning, "job", 2);  // both on node a
  ASSERT_EQ(c.job("job").ranks[1].node, "a");
  EXPECT_TRUE(c.Reconnect("a", {{"job", 1, 0}}).ok());  // rank 1 is gone
  ASSERT_EQ(c.job("job").state, JobState::kStopping);
  Wants("other", 3, Priority(1));
  c.Plan();
  EXPECT_EQ(c.job("other").state, JobState::kQueued);
  c.ExitAll("job", ExitReason::kAborted);
  c.Plan();
  EXPECT_EQ(c.job("other").state, JobState::kReserved);
}

// ---- links ----

struct Links : Scheduler {
  // A gang of four, on two nodes of two.
  void Begin(const std::vector<std::string>& nodes) {
    for (const std::string& node : nodes) Add(node, 2);
    Runs("job", 4, [](Job& job) { job.topology = {Level::kAny, false}; });
    ASSERT_THAT(NodesOfJob("job"), ElementsAre("a", "b"));
  }
  void End(ExitReason reason) {
    c.Exit("job", 3, reason);
    c.ExitAll("job", ExitReason::kAborted);
    c.PassWithHeartbeats(seconds(2));
    c.ConfirmAll("job");
    c.Step("job");
    ASSERT_EQ(state("job"), JobState::kRunning);
  }
};

TEST_F(Links, TwoNodesThatDoNotReachEachOtherTwiceInARowAreKeptApart) {
  Begin({"a", "b", "c"});
  End(ExitReason::kCollective);
  EXPECT_THAT(NodesOfJob("job"), ElementsAre("a", "b")) << "once may be anything";
  const std::string before = ClassOf(c.job("job"));
  End(ExitReason::kRendezvous);
  EXPECT_THAT(NodesOfJob("job"), Contains("c"));
  EXPECT_EQ(NodesOfJob("job").size(), 2u) << "either of them is as good as it was";
  EXPECT_NE(ClassOf(c.job("job")), before);
  EXPECT_THAT(c.job("job").excluded, IsEmpty());
}

TEST_F(Links, AnotherEndInBetweenBeginsAnew) {
  Begin({"a", "b", "c"});
  for (const ExitReason end : {ExitReason::kCollective, ExitReason::kStorage, ExitReason::kCollective}) End(end);
  EXPECT_THAT(NodesOfJob("job"), ElementsAre("a", "b"));
  EXPECT_THAT(c.job("job").bad_pairs, IsEmpty());
}

TEST_F(Links, JobThatCannotRunWithoutThemRunsOnThem) {
  Begin({"a", "b"});
  for (int i = 0; i < 3; ++i) End(ExitReason::kCollective);
  EXPECT_EQ(c.job("job").bad_pairs.size(), 1u);
  EXPECT_THAT(NodesOfJob("job"), ElementsAre("a", "b"));
}

TEST_F(Links, GangThatFitsOnOneOfThemGoesThere) {
  Begin({"a", "b"});
  for (int i = 0; i < 2; ++i) End(ExitReason::kCollective);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return Resize(tx, {"job", "local:test", 10}, 2); }).ok());
  c.ExitAll("job", ExitReason::kStopped);
  c.Plan();
  ASSERT_EQ(state("job"), JobState::kReserved);
  EXPECT_EQ(NodesOfJob("job").size(), 1u);
}

TEST_F(Links, NeitherIsGivenToAGangOfThreeNodesTogetherWithTheOther) {
  Begin({"a", "b", "c", "d"});
  for (int i = 0; i < 2; ++i) End(ExitReason::kCollective);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return Resize(tx, {"job", "local:test", 10}, 6); }).ok());
  c.ExitAll("job", ExitReason::kStopped);
  c.Plan();
  ASSERT_EQ(state("job"), JobState::kReserved);
  const auto nodes = NodesOfJob("job");
  EXPECT_EQ(std::count(nodes.begin(), nodes.end(), "a") + std::count(nodes.begin(), nodes.end(), "b"), 1);
}

// ---- order ----

TEST_F(Scheduler, HigherPriorityChoosesFirstAndAgeDecidesAmongEquals) {
  Add("a", 1);
  Wants("old", 1);
  Wants("older than urgent", 1, Priority(5));
  Wants("urgent", 1, Priority(5));
  c.Plan();
  EXPECT_EQ(state("older than urgent"), JobState::kReserved);
  EXPECT_EQ(c.why("urgent").reason, Reason::kSlotsInUse);
  EXPECT_EQ(c.why("old").reason, Reason::kSlotsInUse);
}

TEST_F(Scheduler, ProjectsShareByWeight) {
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

TEST_F(Scheduler, QuotaHoldsAndSaysSo) {
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

TEST_F(Scheduler, ClosedQueueKeepsItsJobsWaiting) {
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

TEST_F(Scheduler, GangStaysOnOneNodeThenInOneRackThenOnFewestNodes) {
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

TEST_F(Scheduler, RequiredTopologyWaitsRatherThanSpread) {
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

TEST_F(Scheduler, LabelsOfJobAndQueueChooseNodes) {
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

TEST_F(Scheduler, CrashReturnsToTheSameSlotsAndABlamedNodeIsLeft) {
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

TEST_F(Scheduler, JobsOfOneShapeAndDifferentSizesAreJudgedEachByItsOwn) {
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

TEST_F(Scheduler, WideJobIsNotStarvedAndOthersUseTheRest) {
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

TEST_F(Scheduler, OneThatFitsStartsBeforeThousandsThatDoNot) {
  Add("a", 2);
  for (int i = 0; i < 300; ++i) {
    Wants("never " + std::to_string(i), 3 + i % 5, Priority(i % 3));
  }
  Wants("fits", 2);
  c.Plan();
  EXPECT_EQ(state("fits"), JobState::kReserved);
  EXPECT_LE(c.state.waiting.size(), 15u) << "jobs alike are one class";
}

TEST_F(Scheduler, FirstPassOfACoordinatorIsAtOnce) {
  c.Decide([](Transaction& tx) {
    EXPECT_TRUE(tx.NeedsPass());
    Schedule(tx);
    return 0;
  });
  c.Decide([](Transaction& tx) {
    EXPECT_FALSE(tx.NeedsPass());
    return 0;
  });
}

TEST_F(Scheduler, NoPassIsNeededWhereNothingHappened) {
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

// ---- when ----

TEST_F(Scheduler, JobThatWaitsCouldStartWhenEnoughRunningOnesHaveEnded) {
  Add("a", 2);
  Add("b", 2);
  Runs("long", 2);
  Runs("short", 1);
  Runs("shorter", 1);
  const auto when = [&](int world, const std::map<std::string, double>& ends_in) {
    return c.Decide([&](Transaction& tx) { return EarliestStart(tx, CoreCluster::Wanted(world), ends_in); });
  };
  const std::map<std::string, double> ends = {{"long", 900}, {"short", 60}, {"shorter", 20}};
  EXPECT_EQ(when(1, ends), 20);
  EXPECT_EQ(when(2, ends), 60);
  EXPECT_EQ(when(4, ends), 900);
  EXPECT_EQ(when(5, ends), std::nullopt) << "there are no more slots than four";
  EXPECT_EQ(when(2, {{"long", 900}}), 900) << "of the others nobody knows";
  EXPECT_EQ(when(1, {}), std::nullopt);
  EXPECT_EQ(state("long"), JobState::kRunning) << "nothing was changed";
}

// ---- preemption ----

TEST_F(Scheduler, StopsTheCheapestGangsThatAreEnoughAfterTheirMinimum) {
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
  EXPECT_EQ(c.job("dear").restarts.at("preempt"), 1);
  EXPECT_NEAR(c.state.preemption_lost_slot_seconds, 2 * 600, 5) << "two slots, ten minutes, nothing saved";
  c.Plan();
  EXPECT_EQ(state("urgent"), JobState::kReserved);
  EXPECT_EQ(state("dear"), JobState::kQueued);
}

TEST_F(Scheduler, CostIsWhatWouldBeLostSinceTheCheckpoint) {
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

TEST_F(Scheduler, NobodyIsStoppedInVainOrForAnEqualOrBeyondTheBudget) {
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

TEST_F(Scheduler, PassIsMadeWhenTheHourOfTheBudgetIsOver) {
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
  c.PassWithHeartbeats(minutes(11));     // now everybody has had their ten minutes
  Wants("more urgent", 2, Priority(2));  // needs two, one is left
  c.Plan();
  EXPECT_EQ(c.state.next_pass, first + std::chrono::hours(1));
  c.PassWithHeartbeats(minutes(51));
  EXPECT_EQ(c.why("more urgent").reason, Reason::kPreempting);
}

TEST_F(Scheduler, BudgetHoldsForAllKindsOfSlotsTogether) {
  c.options.preemptions_per_hour = 1;
  Node both = CoreCluster::Offered("a", 1);
  both.gpu_slots = 1;
  EXPECT_TRUE(c.AddNode(both).ok());
  Runs("cpu", 1);
  Runs("gpu", 1, [](Job& j) { j.slot_kind = "gpu"; });
  c.PassWithHeartbeats(minutes(15));
  Wants("urgent", 1, Priority(1));
  Wants("urgent too", 1, [](Job& j) { j.priority = 1, j.slot_kind = "gpu"; });
  c.Plan();
  EXPECT_EQ((state("cpu") == JobState::kStopping) + (state("gpu") == JobState::kStopping), 1);
}

// ---- elastic ----

TEST_F(Scheduler, StartsWithWhatFitsAndGrowsWhenNobodyWaits) {
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

TEST_F(Scheduler, NeverExceedsItsMostAndNeverGrowsWhileSomebodyWaits) {
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

}  // namespace
}  // namespace vicreg::core
