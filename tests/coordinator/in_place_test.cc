// Goal: a crash costs its delay and no more where nobody else should have the slots, and keeps nobody waiting who
// should. Method: one job on two nodes; a row for each thing that lets it stay, takes its slots away or ends its wait.

#include "coordinator/core/in_place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/schedule_fixture.h"

namespace vicreg::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct InPlace : Scheduler {
  // On both nodes of three slots each, which leaves two.
  void Begin(const Fill& fill = [](Job&) {}) {
    Add("a", 3);
    Add("b", 3);
    Runs("job", 4, [&](Job& job) {
      job.topology = {Level::kAny, false};
      fill(job);
    });
    slots = Slots();
    ASSERT_THAT(NodesOfJob("job"), ElementsAre("a", "b"));
  }
  std::vector<Slot> Slots() const {
    std::vector<Slot> all;
    for (const Rank& rank : c.job("job").ranks) all.push_back({rank.node, rank.slot});
    return all;
  }
  void Crash(ExitReason reason = ExitReason::kSignalled) {
    c.Exit("job", 1, reason);
    c.ExitAll("job", ExitReason::kAborted);
  }
  void RunAgain() {
    c.ConfirmAll("job");
    c.PassWithHeartbeats(seconds(9));
    c.Step("job");
    ASSERT_EQ(state("job"), JobState::kRunning);
  }

  std::vector<Slot> slots;
};

TEST_F(InPlace, KeepsItsSlotsAndIsLaunchedWhenTheDelayIsOver) {
  Begin();
  c.Save("job", 100);
  Crash();
  ASSERT_EQ(state("job"), JobState::kReserved);
  EXPECT_EQ(c.job("job").attempt, 2);
  EXPECT_EQ(c.job("job").resumed_step, 100);
  EXPECT_EQ(Slots(), slots);
  EXPECT_EQ(c.job("job").reason, Reason::kCrash);
  EXPECT_THAT(c.why("job").message, HasSubstr("attempt 2 on the same slots in 1 s from step 100, after rank 1 on " +
                                              c.job("job").ranks[1].node + " ended with SIGNALLED"));
  EXPECT_THAT(c.SentTo<SendPrepare>(), ElementsAre("a", "b"));
  c.ConfirmAll("job");
  EXPECT_EQ(state("job"), JobState::kReserved);
  EXPECT_THAT(c.SentTo<SendLaunch>(), IsEmpty());
  c.PassWithHeartbeats(milliseconds(999));
  EXPECT_EQ(state("job"), JobState::kReserved);
  c.PassWithHeartbeats(milliseconds(1));
  EXPECT_EQ(state("job"), JobState::kStarting);
  EXPECT_THAT(c.SentTo<SendLaunch>(), ElementsAre("a", "b"));
}

TEST_F(InPlace, WorkersHaveTenSecondsAfterTheDelay) {
  Begin([](Job& job) { job.max_charges = 9; });
  for (int crashes = 1; crashes < 4; ++crashes) {
    Crash();
    ASSERT_EQ(state("job"), JobState::kReserved);
    if (crashes < 3) RunAgain();
  }
  ASSERT_EQ(c.job("job").charges, 3);  // 4 s
  c.PassWithHeartbeats(milliseconds(13'999));
  EXPECT_EQ(state("job"), JobState::kReserved);
  c.ConfirmAll("job");
  EXPECT_EQ(state("job"), JobState::kStarting) << "the delay is over, nothing more is waited for";
}

TEST_F(InPlace, UnconfirmedReservationEndsTenSecondsAfterTheDelay) {
  Begin();
  Crash();
  c.Answer("a", "job");
  c.PassWithHeartbeats(milliseconds(10'999));
  EXPECT_EQ(state("job"), JobState::kReserved);
  c.PassWithHeartbeats(milliseconds(1));
  EXPECT_EQ(state("job"), JobState::kBackoff);
}

TEST_F(InPlace, DelayThatIsLongerThanAReservationFreesTheSlots) {
  Begin([](Job& job) { job.max_charges = 9; });
  for (int crashes = 1; crashes <= 4; ++crashes) {
    Crash();
    ASSERT_EQ(state("job"), JobState::kReserved) << crashes;
    RunAgain();
  }
  Crash();  // 16 s
  EXPECT_EQ(state("job"), JobState::kBackoff);
}

TEST_F(InPlace, RollbackWaitsForNothing) {
  Begin();
  Report report = c.Next("job", 1, Report::Kind::kExited);
  report.exit_reason = ExitReason::kNumeric;
  report.nonfinite_step = 7;
  c.Say(report);
  c.ExitAll("job", ExitReason::kAborted);
  ASSERT_EQ(state("job"), JobState::kReserved);
  EXPECT_EQ(c.job("job").reason, Reason::kRollback);
  c.ConfirmAll("job");
  EXPECT_EQ(state("job"), JobState::kStarting);
}

TEST_F(InPlace, BetterClaimThatComesMeanwhileGetsTheSlots) {
  Begin();
  Crash();
  c.ConfirmAll("job");
  Wants("urgent", 6, Priority(1));
  c.Plan();
  ASSERT_EQ(state("urgent"), JobState::kQueued);
  c.PassWithHeartbeats(seconds(1));
  EXPECT_EQ(state("job"), JobState::kBackoff);
  EXPECT_EQ(state("urgent"), JobState::kReserved);
}

TEST_F(InPlace, NodeThatIsClosedMeanwhileStartsNothing) {
  Begin();
  Crash();
  c.ConfirmAll("job");
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetNodeAdmin(tx, "b", AdminState::kCordoned, 10, "op"); }).ok());
  EXPECT_EQ(state("job"), JobState::kReserved);
  c.PassWithHeartbeats(seconds(1));
  EXPECT_EQ(state("job"), JobState::kBackoff);
}

TEST_F(InPlace, WorkerThatRefusesLeavesTheRestOfTheDelay) {
  Begin([](Job& job) { job.max_charges = 9; });
  for (int i = 0; i < 2; ++i) {
    Crash();
    RunAgain();
  }
  Crash();  // 4 s
  c.Answer("a", "job", "the slot still holds a process");
  EXPECT_EQ(state("job"), JobState::kBackoff);
  c.PassWithHeartbeats(milliseconds(3999));
  EXPECT_EQ(state("job"), JobState::kBackoff);
  c.PassWithHeartbeats(milliseconds(1));
  EXPECT_EQ(state("job"), JobState::kReserved);
}

TEST_F(InPlace, CoordinatorThatRestartsQueuesItAndBeginsItsDelayAnew) {
  Begin([](Job& job) { job.max_charges = 9; });
  Crash();
  RunAgain();
  Crash();  // 2 s
  Job& stored = c.state.jobs.at("job");
  stored.not_before = stored.deadline = {};
  c.Decide([](Transaction& tx) { return Recover(tx), 0; });
  EXPECT_EQ(state("job"), JobState::kBackoff);
  c.PassWithHeartbeats(milliseconds(1999));
  EXPECT_EQ(state("job"), JobState::kBackoff);
  c.PassWithHeartbeats(milliseconds(1));
  EXPECT_EQ(state("job"), JobState::kReserved);
}

TEST_F(InPlace, EndsByInfrastructureStillHoldTheJobInTheEnd) {
  Begin();
  for (int i = 0; i < 5; ++i) {
    Crash(ExitReason::kStorage);
    ASSERT_EQ(state("job"), JobState::kReserved) << i;
    RunAgain();
  }
  Crash(ExitReason::kStorage);
  EXPECT_EQ(state("job"), JobState::kPaused);
  EXPECT_EQ(c.job("job").reason, Reason::kInfraHold);
}

// ---- what may happen to it while it waits ----

struct Interruption {
  const char* what;
  JobState want;
  std::function<void(CoreCluster&)> happens;
};
void PrintTo(const Interruption& row, std::ostream* out) { *out << row.what; }

struct InPlaceInterrupted : InPlace, ::testing::WithParamInterface<Interruption> {};

TEST_P(InPlaceInterrupted, IsAsAReservation) {
  Begin();
  Crash();
  ASSERT_EQ(state("job"), JobState::kReserved);
  GetParam().happens(c);
  EXPECT_EQ(state("job"), GetParam().want);
  EXPECT_THAT(c.SentTo<SendLaunch>(), IsEmpty());
  if (GetParam().want == JobState::kReserved) return;
  EXPECT_THAT(c.job("job").ranks, IsEmpty());
  EXPECT_THAT(c.job("job").prepared, IsEmpty());
}

std::function<void(CoreCluster&)> Wished(absl::Status (*wish)(Transaction&, const Wish&)) {
  return [=](CoreCluster& c) {
    EXPECT_TRUE(c.Decide([&](Transaction& tx) { return wish(tx, {"job", "local:test", 10}); }).ok());
  };
}

INSTANTIATE_TEST_SUITE_P(Each, InPlaceInterrupted,
                         ::testing::Values(Interruption{"cancel", JobState::kCancelled, Wished(Cancel)},
                                           Interruption{"pause", JobState::kPaused, Wished(Pause)},
                                           Interruption{"hold", JobState::kPaused, Wished(Hold)},
                                           Interruption{"requeue", JobState::kQueued, Wished(RequeueJob)},
                                           Interruption{"resize", JobState::kQueued,
                                                        [](CoreCluster& c) {
                                                          EXPECT_TRUE(
                                                              c.Decide([](Transaction& tx) {
                                                                 return Resize(tx, {"job", "local:test", 10}, 3);
                                                               }).ok());
                                                        }},
                                           Interruption{"drain", JobState::kQueued,
                                                        [](CoreCluster& c) {
                                                          EXPECT_TRUE(c.Decide([](Transaction& tx) {
                                                                         return SetNodeAdmin(
                                                                             tx, "a", AdminState::kDraining, 10, "op");
                                                                       }).ok());
                                                        }},
                                           Interruption{"node lost", JobState::kBackoff,
                                                        [](CoreCluster& c) {
                                                          c.options.reservation = seconds(1000);
                                                          c.Decide([](Transaction& tx) {
                                                            tx.EditJob("job").deadline += seconds(1000);
                                                            return 0;
                                                          });
                                                          c.Pass(seconds(6));
                                                          c.clock.Advance(seconds(15));
                                                          EXPECT_TRUE(c.Beat("b").ok());
                                                          c.Pass(seconds(0));
                                                          EXPECT_EQ(c.node("a"), NodeState::kLost);
                                                        }},
                                           Interruption{"worker restarts", JobState::kBackoff,
                                                        [](CoreCluster& c) { EXPECT_TRUE(c.Restart("a").ok()); }},
                                           Interruption{"worker connects again", JobState::kReserved,
                                                        [](CoreCluster& c) {
                                                          EXPECT_TRUE(c.Reconnect("a", {{"job", 1, 0}}).ok());
                                                          EXPECT_THAT(c.SentTo<SendPrepare>(), ElementsAre("a"));
                                                        }}),
                         [](const auto& info) {
                           std::string name = info.param.what;
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

// ---- who else wants its slots ----

struct Claim {
  const char* why;
  JobState want;
  Fill waits = nullptr;  // another job that does not fit now, of 3 ranks where it does not say
  std::function<void(CoreCluster&)> before = [](CoreCluster&) {};
  ExitReason end = ExitReason::kSignalled;
};
void PrintTo(const Claim& row, std::ostream* out) { *out << row.why; }

struct InPlaceClaimed : InPlace, ::testing::WithParamInterface<Claim> {};

TEST_P(InPlaceClaimed, StaysOnlyWhereNobodyElseShouldBe) {
  Begin();
  GetParam().before(c);
  if (GetParam().waits) {
    Wants("waits", 3, GetParam().waits);
    c.Plan();
    ASSERT_EQ(state("waits"), JobState::kQueued);
  }
  Crash(GetParam().end);
  EXPECT_EQ(state("job"), GetParam().want);
}

std::function<void(CoreCluster&)> Policy(Project project) {
  return [=](CoreCluster& c) { EXPECT_TRUE(c.Decide([&](Transaction& tx) { return SetProject(tx, project); }).ok()); };
}

Fill Wide(int world, int priority) {
  return [=](Job& job) {
    job.min_world = job.max_world = world;
    job.priority = priority;
    job.topology = {Level::kAny, false};
  };
}

Fill Of(const std::string& project, int priority, const std::string& root = "images",
        std::vector<std::string> labels = {}) {
  return [=](Job& job) {
    job.project = project;
    job.priority = priority;
    job.data_root = root;
    job.labels = labels;
  };
}

INSTANTIATE_TEST_SUITE_P(
    Each, InPlaceClaimed,
    ::testing::Values(
        Claim{"nobody waits", JobState::kReserved},
        Claim{"a broken link is no node's fault", JobState::kReserved, nullptr, [](CoreCluster&) {},
              ExitReason::kCollective},
        Claim{"its node's device failed", JobState::kBackoff, nullptr, [](CoreCluster&) {}, ExitReason::kDevice},
        Claim{"a node is silent", JobState::kBackoff, nullptr,
              [](CoreCluster& c) {
                c.clock.Advance(seconds(6));
                EXPECT_TRUE(c.Beat("a").ok());
                c.Pass(seconds(0));
                EXPECT_EQ(c.node("b"), NodeState::kSuspect);
              }},
        Claim{"a node is cordoned", JobState::kBackoff, nullptr,
              [](CoreCluster& c) {
                EXPECT_TRUE(c.Decide([](Transaction& tx) {
                               return SetNodeAdmin(tx, "b", AdminState::kCordoned, 10, "op");
                             }).ok());
              }},
        Claim{"it is held", JobState::kBackoff, nullptr, Wished(Hold)},
        Claim{"its queue was closed", JobState::kBackoff, nullptr,
              [](CoreCluster& c) {
                EXPECT_TRUE(c.Decide([](Transaction& tx) {
                               return SetQueue(tx, {"default", "default", false, -9, 9, {}});
                             }).ok());
              }},
        Claim{"its project may hold fewer now", JobState::kBackoff, nullptr, Policy({"default", 3, -1, 1})},
        Claim{"a younger job waits", JobState::kReserved, Of("default", 0)},
        Claim{"a more important one waits", JobState::kBackoff, Of("default", 1)},
        Claim{"its slots are promised to one that needs more", JobState::kBackoff, Wide(6, 1)},
        Claim{"one that no cluster like this can hold", JobState::kReserved, Wide(7, 1)},
        Claim{"one for other data", JobState::kReserved, Of("default", 1, "sounds")},
        Claim{"one for other nodes", JobState::kReserved, Of("default", 1, "images", {"disk=fast"})},
        Claim{"one whose project holds all it may", JobState::kReserved, Of("other", 1), Policy({"other", 2, -1, 1})},
        Claim{"no project holds anything else and age decides", JobState::kReserved, Of("other", 0)},
        Claim{"a project that holds less for its weight", JobState::kBackoff, Of("other", 0),
              [](CoreCluster& c) {
                c.SubmitJob("more", 1);
                c.Plan();
                EXPECT_EQ(c.job("more").state, JobState::kReserved);
              }}),
    [](const auto& info) {
      std::string name = info.param.why;
      std::replace_if(
          name.begin(), name.end(), [](char ch) { return ch == ' ' || ch == '\''; }, '_');
      return name;
    });

}  // namespace
}  // namespace vicreg::core
