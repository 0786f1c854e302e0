// Goal: a job ends when nothing more can come of it: at its deadline, after the one attempt it may have, when it
// crashes at one step again and again; never before, and never for what others did. Method: one job, and what ends it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/core/restart.h"
#include "tests/coordinator/schedule_fixture.h"

namespace vicreg::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A cluster of its own for a row of a table.
template <typename Fixture>
struct Another : Fixture {
  using Fixture::c;
  void TestBody() override {}
};

// ---- the same crash again ----

struct DeterministicCrash : Scheduler {
  void Begin(const Fill& fill = [](Job& job) { job.max_charges = 100; }) {
    Add("a", 2);
    Runs("job", 2, fill);
  }
  void Crash(int rank, std::int64_t step, ExitReason reason = ExitReason::kSignalled) {
    Report report = c.Next("job", rank, Report::Kind::kExited);
    report.exit_reason = reason;
    report.last_step = step;
    c.Say(report);
    c.ExitAll("job", ExitReason::kAborted);
    if (state("job") == JobState::kReserved) {
      c.ConfirmAll("job");
      c.PassWithHeartbeats(seconds(9));
      c.Step("job");
    }
  }
};

TEST_F(DeterministicCrash, ThirdOfOneRankAtOneStepFailsTheJobAndSaysWhatToDo) {
  Begin();
  Crash(1, 137);
  Crash(1, 137);
  ASSERT_EQ(state("job"), JobState::kRunning);
  Crash(1, 137);
  EXPECT_EQ(state("job"), JobState::kFailed);
  EXPECT_EQ(c.job("job").reason, Reason::kDeterministicCrash);
  EXPECT_THAT(c.job("job").message, HasSubstr("rank 1 on a ended with SIGNALLED"));
  EXPECT_THAT(c.job("job").message, HasSubstr("3 times after step 137"));
  EXPECT_THAT(c.job("job").message, HasSubstr("--rank 1"));
}

TEST_F(DeterministicCrash, CheckpointsInBetweenForgiveChargesAndNotThat) {
  Begin([](Job& job) { job.max_charges = 2; });
  for (int i = 1; i < 3; ++i) {
    c.Save("job", 10 * i);
    Crash(0, 137);
    ASSERT_EQ(state("job"), JobState::kRunning) << i;
    ASSERT_EQ(c.job("job").charges, 1);
  }
  c.Save("job", 30);
  Crash(0, 137);
  EXPECT_EQ(c.job("job").reason, Reason::kDeterministicCrash);
}

TEST_F(DeterministicCrash, NothingElseCounts) {
  const struct {
    const char* what;
    int rank;
    std::int64_t step;
    ExitReason reason;
  } rows[] = {
      {"another rank", 0, 137, ExitReason::kSignalled},      {"another step", 1, 138, ExitReason::kSignalled},
      {"a step nobody knows", 1, 0, ExitReason::kSignalled}, {"memory", 1, 137, ExitReason::kHostOom},
      {"the network", 1, 137, ExitReason::kCollective},      {"a lost rank", 1, 137, ExitReason::kStorage},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    Another<DeterministicCrash> t;
    t.Begin();
    t.Crash(1, 137);
    t.Crash(1, 137);
    t.Crash(row.rank, row.step, row.reason);
    EXPECT_EQ(t.c.job("job").state, JobState::kRunning);
  }
}

TEST_F(DeterministicCrash, EndsByInfrastructureInBetweenDoNotForget) {
  Begin();
  Crash(1, 137);
  Crash(1, 137, ExitReason::kStorage);
  Crash(1, 137);
  ASSERT_EQ(state("job"), JobState::kRunning);
  Crash(1, 137);
  EXPECT_EQ(c.job("job").reason, Reason::kDeterministicCrash);
}

// ---- the deadline ----

struct Deadline : Scheduler {
  static Fill Of(seconds deadline) {
    return [=](Job& job) { job.deadline_us = std::chrono::microseconds(deadline).count(); };
  }
};

TEST_F(Deadline, RanksSaveAndTheJobIsFailed) {
  Add("a", 2);
  Runs("job", 2, Of(seconds(300)));
  c.PassWithHeartbeats(milliseconds(299'999));
  EXPECT_EQ(state("job"), JobState::kRunning);
  c.PassWithHeartbeats(milliseconds(1));
  ASSERT_EQ(state("job"), JobState::kStopping);
  EXPECT_EQ(c.job("job").reason, Reason::kDeadline);
  ASSERT_THAT(c.SentTo<SendStop>(), ElementsAre("a"));
  EXPECT_EQ(std::get<SendStop>(c.sent[0].what).grace_seconds, c.options.stop_grace_seconds);
  c.PassWithHeartbeats(seconds(2));
  EXPECT_THAT(c.SentTo<SendStop>(), IsEmpty()) << "said once";
  c.Save("job", 50);
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kFailed);
  EXPECT_EQ(c.job("job").reason, Reason::kDeadline);
  EXPECT_THAT(c.job("job").message, HasSubstr("deadline of 300 s"));
  EXPECT_THAT(c.job("job").message, HasSubstr("checkpoint of step 50 is kept"));
}

TEST_F(Deadline, EndsEveryStateThatHasNoProcesses) {
  using enum JobState;
  for (const JobState before : {kQueued, kReserved, kBackoff, kPaused}) {
    SCOPED_TRACE(Name(before));
    CoreCluster c;
    if (before == kPaused) {
      c.JobIn(kQueued);
      EXPECT_TRUE(c.Decide([](Transaction& tx) { return Pause(tx, {"job", "local:test", 30}); }).ok());
    } else {
      c.JobIn(before);
    }
    c.Decide([](Transaction& tx) {
      Job& job = tx.EditJob("job");
      job.deadline_us = 60'000'000;
      job.lived_us = 59'999'000;
      job.lived_as_of = tx.now;
      return 0;
    });
    c.Decide([&](Transaction& tx) { return OnTime(tx, c.since_start), 0; });
    EXPECT_EQ(c.job("job").state, before);
    c.clock.Advance(milliseconds(1));
    c.Decide([&](Transaction& tx) { return OnTime(tx, c.since_start), 0; });
    EXPECT_EQ(c.job("job").state, kFailed);
    EXPECT_EQ(c.job("job").reason, Reason::kDeadline);
  }
}

TEST_F(Deadline, JobThatFinishesWhileItIsStoppedHasSucceededAndACancelIsKept) {
  Add("a", 2);
  Runs("finishes", 1, Of(seconds(60)));
  Runs("cancelled", 1, Of(seconds(60)));
  c.PassWithHeartbeats(seconds(60));
  ASSERT_EQ(state("finishes"), JobState::kStopping);
  c.ExitAll("finishes", ExitReason::kCompleted);
  EXPECT_EQ(state("finishes"), JobState::kSucceeded);
  EXPECT_TRUE(Do(Cancel, "cancelled").ok());
  c.ExitAll("cancelled", ExitReason::kStopped);
  EXPECT_EQ(state("cancelled"), JobState::kCancelled);
}

TEST_F(Deadline, PauseThatIsUnderWayGivesWayAndSoDoesARetry) {
  Add("a", 2);
  Runs("paused", 1, Of(seconds(60)));
  Runs("crashed", 1, Of(seconds(60)));
  c.PassWithHeartbeats(milliseconds(59'000));
  EXPECT_TRUE(Do(Pause, "paused").ok());
  c.Exit("crashed", 0, ExitReason::kSignalled);
  ASSERT_EQ(state("crashed"), JobState::kReserved);
  c.PassWithHeartbeats(seconds(1));
  EXPECT_EQ(state("crashed"), JobState::kFailed);
  c.ExitAll("paused", ExitReason::kStopped);
  EXPECT_EQ(state("paused"), JobState::kFailed);
  EXPECT_EQ(c.job("paused").reason, Reason::kDeadline);
}

TEST_F(Deadline, WallClockThatJumpsChangesNothing) {
  Add("a", 1);
  Runs("job", 1, Of(seconds(300)));
  const std::int64_t wall = c.clock.WallMicros(), month = std::int64_t{30} * 86'400'000'000;
  for (const auto& [passed, ends] : {std::pair(0, false), {299, false}, {1, true}}) {
    c.PassWithHeartbeats(seconds(passed));
    for (const std::int64_t jump : {-month, month}) {
      Transaction tx(c.state, c.options, c.clock.SteadyNow(), wall + jump);
      OnTime(tx, c.since_start);
      EXPECT_EQ(tx.FindJob("job")->state, ends ? JobState::kStopping : JobState::kRunning);
    }
  }
}

TEST_F(Deadline, CoordinatorThatRestartsGoesOnFromWhatIsStoredAndNotFromTheWallClock) {
  Wants("job", 1, Of(minutes(10)));
  c.Plan();
  for (int i = 0; i < 150; ++i) c.Pass(seconds(1));
  EXPECT_EQ(c.job("job").lived_us, 120'000'000) << "stored each minute";
  // As a restarted one loads it, an hour later.
  c.state.jobs.at("job").lived_as_of = {};
  c.clock.Advance(std::chrono::hours(1));
  c.state.began = c.clock.SteadyNow();
  for (int i = 0; i < 479; ++i) c.Pass(seconds(1));
  EXPECT_EQ(state("job"), JobState::kQueued);
  c.Pass(seconds(1));
  EXPECT_EQ(state("job"), JobState::kFailed);
}

TEST_F(Deadline, OverdueSaysWhichJobWasForgotten) {
  Wants("job", 1, Of(seconds(60)));
  c.Plan();
  const TimePoint submitted = c.clock.SteadyNow();
  EXPECT_THAT(Overdue(c.state, submitted + milliseconds(59'999)), IsEmpty());
  EXPECT_THAT(Overdue(c.state, submitted + seconds(60)), ElementsAre(HasSubstr("past the deadline")));
}

// ---- one attempt ----

struct OneAttempt : Scheduler {
  static void Once(Job& job) { job.one_attempt = true; }
  void Begin() {
    Add("a", 1);
    Runs("job", 1, Once);
  }
};

TEST_F(OneAttempt, WhateverEndsItTheJobIsFailed) {
  const struct {
    ExitReason exit;
    std::int64_t nonfinite_step;
    Reason want;
  } rows[] = {{ExitReason::kSignalled, 0, Reason::kCrash}, {ExitReason::kHung, 0, Reason::kHang},
              {ExitReason::kStorage, 0, Reason::kInfra},   {ExitReason::kLost, 0, Reason::kNodeLost},
              {ExitReason::kNumeric, 7, Reason::kNumeric}, {ExitReason::kData, 0, Reason::kData}};
  for (const auto& row : rows) {
    SCOPED_TRACE(Name(row.exit));
    Another<OneAttempt> t;
    CoreCluster& c = t.c;
    t.Begin();
    Report report = c.Next("job", 0, Report::Kind::kExited);
    report.exit_reason = row.exit;
    report.nonfinite_step = row.nonfinite_step;
    c.Say(report);
    EXPECT_EQ(c.job("job").state, JobState::kFailed);
    EXPECT_EQ(c.job("job").reason, row.want);
    EXPECT_EQ(c.job("job").attempt, 1);
  }
}

TEST_F(OneAttempt, AttemptThatStartedNoRankDoesNotCount) {
  Add("a", 1);
  Wants("job", 1, Once);
  c.Plan();
  c.Answer("a", "job", "memory is short");
  c.PassWithHeartbeats(seconds(1));
  EXPECT_EQ(state("job"), JobState::kReserved);
  c.ConfirmAll("job");
  EXPECT_EQ(state("job"), JobState::kStarting);
}

TEST_F(OneAttempt, DrainLetsItSaveAndEndsIt) {
  Add("a", 1);
  Runs("job", 1, Once);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetNodeAdmin(tx, "a", AdminState::kDraining, 30, "op"); }).ok());
  ASSERT_EQ(state("job"), JobState::kStopping);
  EXPECT_THAT(c.SentTo<SendStop>(), ElementsAre("a"));
  c.Save("job", 9);
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kFailed);
  EXPECT_EQ(c.job("job").reason, Reason::kPreempted);
  EXPECT_THAT(c.job("job").message, HasSubstr("checkpoint of step 9"));
}

TEST_F(OneAttempt, OthersArePreemptedFirstThoughTheyCostMore) {
  Add("a", 2);
  Runs("dear", 1);
  c.PassWithHeartbeats(minutes(30));
  Runs("once", 1, Once);
  c.PassWithHeartbeats(minutes(11));
  Wants("urgent", 1, Priority(1));
  c.Plan();
  EXPECT_EQ(state("dear"), JobState::kStopping);
  EXPECT_EQ(state("once"), JobState::kRunning);
  Wants("more urgent", 2, Priority(2));
  c.ExitAll("dear", ExitReason::kStopped);
  c.Plan();
  EXPECT_EQ(state("once"), JobState::kStopping) << "where nobody else would do";
  c.ExitAll("once", ExitReason::kStopped);
  EXPECT_EQ(c.job("once").reason, Reason::kPreempted);
}

TEST_F(OneAttempt, WishesThatNeedAnotherAreRefusedAndOthersAreNot) {
  Add("a", 1);
  Runs("job", 1, Once);
  for (auto* wish : {Pause, RequeueJob}) EXPECT_TRUE(absl::IsFailedPrecondition(Do(wish, "job")));
  const Wish wish{"job", "local:test", 10};
  EXPECT_TRUE(absl::IsFailedPrecondition(c.Decide([&](Transaction& tx) { return Restart(tx, wish, std::nullopt); })));
  EXPECT_TRUE(absl::IsFailedPrecondition(c.Decide([&](Transaction& tx) { return Resize(tx, wish, 2); })));
  EXPECT_EQ(state("job"), JobState::kRunning);
  EXPECT_TRUE(Do(Hold, "job").ok());
  EXPECT_TRUE(Do(Cancel, "job").ok());
  c.ExitAll("job", ExitReason::kStopped);
  EXPECT_EQ(state("job"), JobState::kCancelled);
}

TEST_F(OneAttempt, IsNotGrown) {
  Add("a", 2);
  Runs("other", 1);
  Runs("job", 1, [](Job& job) {
    job.one_attempt = true;
    job.max_world = 2;
  });
  c.ExitAll("other", ExitReason::kCompleted);
  c.PassWithHeartbeats(minutes(11));
  EXPECT_EQ(state("job"), JobState::kRunning);
}

}  // namespace
}  // namespace vicreg::core
