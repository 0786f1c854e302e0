// Goal: every decision about a job does what the state diagram says, once, and says why; what is not current changes
// nothing. Method: one test or one table row per rule, on plain state with a clock that moves only when told to. After
// every decision the invariants are checked as well.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/core/index.h"
#include "coordinator/core/node_timers.h"
#include "coordinator/core/restart.h"
#include "coordinator/core/scheduler.h"
#include "tests/coordinator/core_cluster.h"

namespace vicreg::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// ---- users ----

TEST(Submit, SameRequestAgainGivesTheFirstJob) {
  CoreCluster c;
  const auto submit = [&](const std::string& new_id) {
    return c.Decide([&](Transaction& tx) { return Submit(tx, CoreCluster::Wanted(1), new_id, "request", "sha"); });
  };
  EXPECT_EQ(*submit("first"), "first");
  EXPECT_EQ(*submit("second"), "first");
  EXPECT_THAT(c.events, IsEmpty());
  EXPECT_EQ(c.state.jobs.size(), 1u);
}

TEST(Submit, SameRequestTwiceInOneBatchGivesOneJob) {
  CoreCluster c;
  c.Decide([&](Transaction& tx) {
    EXPECT_EQ(*Submit(tx, CoreCluster::Wanted(1), "first", "request", "sha"), "first");
    EXPECT_EQ(*Submit(tx, CoreCluster::Wanted(1), "second", "request", "sha"), "first");
    return 0;
  });
  EXPECT_EQ(c.state.jobs.size(), 1u);
}

TEST(Submit, SameRequestWithOtherBytesIsRefusedAndNamesTheJob) {
  CoreCluster c;
  c.SubmitJob("first", 1);
  const auto again = c.Decide([](Transaction& tx) {
    auto result = Submit(tx, CoreCluster::Wanted(2), "second", "request of first", "other");
    EXPECT_FALSE(tx.changed());
    return result;
  });
  EXPECT_EQ(again.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(again.status().message()), HasSubstr("first"));
}

TEST(Submit, JobsAreNumberedInTheOrderTheyCame) {
  CoreCluster c;
  c.Decide([](Transaction& tx) {
    EXPECT_TRUE(Submit(tx, CoreCluster::Wanted(1), "z", "1", "sha").ok());
    EXPECT_TRUE(Submit(tx, CoreCluster::Wanted(1), "a", "2", "sha").ok());
    return 0;
  });
  c.SubmitJob("m", 1);
  EXPECT_LT(c.job("z").queue_seq, c.job("a").queue_seq);
  EXPECT_LT(c.job("a").queue_seq, c.job("m").queue_seq);
}

TEST(Cancel, InEveryStateDoesWhatTheDiagramSays) {
  using enum JobState;
  const struct {
    JobState before, after;
    bool stops_ranks;
  } rows[] = {
      {kQueued, kCancelled, false},    {kReserved, kCancelled, false}, {kStarting, kStopping, true},
      {kRunning, kStopping, true},     {kStopping, kStopping, false},  {kBackoff, kCancelled, false},
      {kSucceeded, kSucceeded, false}, {kFailed, kFailed, false},      {kCancelled, kCancelled, false},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(Name(row.before));
    CoreCluster c;
    c.JobIn(row.before);
    const bool ended = IsTerminal(row.before);
    EXPECT_TRUE(c.Decide([](Transaction& tx) { return Cancel(tx, {"job", "local:test", 7}); }).ok());
    EXPECT_EQ(c.job("job").state, row.after);
    EXPECT_EQ(c.events.size(), ended ? 0u : 1u);
    if (row.stops_ranks) {
      EXPECT_THAT(c.SentTo<SendStop>(), ElementsAre("a", "b"));
      EXPECT_EQ(std::get<SendStop>(c.sent[0].what).grace_seconds, 7);
    } else {
      EXPECT_THAT(c.SentTo<SendStop>(), IsEmpty());
    }
    // A second wish adds nothing.
    EXPECT_TRUE(c.Decide([](Transaction& tx) { return Cancel(tx, {"job", "local:test", 7}); }).ok());
    EXPECT_THAT(c.events, IsEmpty());
  }
}

TEST(Cancel, UnknownJobIsNotFound) {
  CoreCluster c;
  EXPECT_EQ(c.Decide([](Transaction& tx) {
               return Cancel(tx, {"job", "test", 1});
             }).code(),
            absl::StatusCode::kNotFound);
}

TEST(Cancel, AcknowledgedWishEndsCancelledHoweverTheRanksEnd) {
  for (const ExitReason reason : {ExitReason::kCancelled, ExitReason::kStopped, ExitReason::kSignalled,
                                  ExitReason::kData, ExitReason::kLost, ExitReason::kCompleted}) {
    SCOPED_TRACE(Name(reason));
    CoreCluster c;
    c.JobIn(JobState::kRunning);
    EXPECT_TRUE(c.Decide([](Transaction& tx) { return Cancel(tx, {"job", "test", 1}); }).ok());
    c.ExitAll("job", reason);
    EXPECT_EQ(c.job("job").state, JobState::kCancelled);
    EXPECT_EQ(c.job("job").reason, Reason::kCancelRequested);
  }
}

TEST(Cancel, WhileStoppingAfterACrashForbidsTheRetry) {
  CoreCluster c;
  c.JobIn(JobState::kStopping);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return Cancel(tx, {"job", "test", 1}); }).ok());
  c.ExitAll("job", ExitReason::kAborted);
  EXPECT_EQ(c.job("job").state, JobState::kCancelled);
}

// ---- reservations ----

TEST(Reservation, RanksStartOnlyWhenEveryWorkerHasConfirmed) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  c.Answer("a", "job");
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_THAT(c.sent, IsEmpty());
  c.Answer("a", "job");  // twice is not two
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  c.Answer("b", "job");
  EXPECT_EQ(c.job("job").state, JobState::kStarting);
  EXPECT_THAT(c.SentTo<SendLaunch>(), ElementsAre("a", "b"));
}

TEST(Reservation, AnswerOfANodeThatHasNoPartInItCountsForNothing) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  EXPECT_TRUE(c.AddNode("stranger", 1).ok());
  c.Answer("stranger", "job", "go away");
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.fenced, 1);
  c.Answer("stranger", "job");
  EXPECT_EQ(c.fenced, 1);
  c.Answer("a", "job");
  EXPECT_EQ(c.job("job").state, JobState::kReserved) << "node b has not confirmed";
}

TEST(Reservation, RefusedOneFreesItsSlotsAndIsTriedAgainAfterAMoment) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  c.Answer("b", "job", "memory is short");
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
  EXPECT_THAT(c.job("job").message, HasSubstr("worker b refused: memory is short"));
  EXPECT_EQ(c.job("job").charges, 0);
  c.Pass(milliseconds(999));
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
  c.Pass(milliseconds(1));
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.job("job").attempt, 2);
}

TEST(Reservation, UnconfirmedAfterTenSecondsIsGivenUp) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  c.Answer("a", "job");
  c.PassWithHeartbeats(milliseconds(9999));
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  c.PassWithHeartbeats(milliseconds(1));
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
  EXPECT_THAT(c.job("job").message, HasSubstr("did not confirm within 10 s"));
}

TEST(Reservation, AnswerToAnEarlierOneIsFenced) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  c.Answer("b", "job", "no");
  c.Pass(seconds(1));
  ASSERT_EQ(c.job("job").attempt, 2);
  for (const char* node : {"a", "b"}) {
    c.Decide([&](Transaction& tx) { return OnPrepared(tx, node, 1, "job", 1, ""), 0; });
    EXPECT_EQ(c.fenced, 1);
  }
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
}

TEST(Reservation, IsGivenUpWhenACoordinatorRestarts) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  c.Decide([](Transaction& tx) { return Recover(tx), 0; });
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
}

// ---- the end of an attempt ----

TEST(Reservation, LaunchOfAnAttemptThatEndsInTheSameBatchIsNotSent) {
  CoreCluster c;
  c.JobIn(JobState::kReserved, "job", 2);
  const std::string node = c.job("job").ranks[0].node;
  Registration restarted{c.state.nodes.at(node), {}};
  restarted.node.incarnation = 0;
  ASSERT_TRUE(c.Decide([&](Transaction& tx) {
                 OnPrepared(tx, node, c.state.nodes.at(node).incarnation, "job", 1, "");
                 return Register(tx, restarted).status();
               }).ok());
  EXPECT_NE(c.job("job").state, JobState::kStarting);
  EXPECT_THAT(c.SentTo<SendLaunch>(), IsEmpty());
}

TEST(RankExit, OneFailureAbortsItsPeersAndTheLastOneSettlesTheAttempt) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  c.Exit("job", 2, ExitReason::kSignalled);
  EXPECT_EQ(c.job("job").state, JobState::kStopping);
  EXPECT_THAT(c.SentTo<SendAbort>(), ElementsAre("a", "b"));
  c.Exit("job", 0, ExitReason::kAborted);
  c.Exit("job", 1, ExitReason::kAborted);
  EXPECT_EQ(c.job("job").state, JobState::kStopping);
  EXPECT_THAT(c.SentTo<SendAbort>(), IsEmpty());
  c.Exit("job", 3, ExitReason::kCollective);
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.job("job").attempt, 2);
  EXPECT_EQ(c.job("job").reason, Reason::kCrash);
  EXPECT_THAT(c.job("job").message, HasSubstr("rank 2"));
}

TEST(RankExit, JobSucceedsWhenEveryRankHasCompleted) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(c.job("job").state, JobState::kRunning);
    c.Exit("job", rank, ExitReason::kCompleted);
  }
  EXPECT_EQ(c.job("job").state, JobState::kSucceeded);
  EXPECT_EQ(c.job("job").reason, Reason::kCompleted);
}

TEST(RankExit, PeersThatCompletedDoNotHideAFailure) {
  CoreCluster c;
  c.JobIn(JobState::kRunning, "job", 2);
  c.Exit("job", 0, ExitReason::kCompleted);
  c.Exit("job", 1, ExitReason::kSignalled);
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.job("job").attempt, 2);
}

TEST(RankExit, RetryWaitsItsDelayAndStartsFromTheNewestCheckpoint) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  c.Save("job", 100);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetNodeAdmin(tx, "a", AdminState::kCordoned, 1, "op"); }).ok());
  c.ExitAll("job", ExitReason::kSignalled);
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetNodeAdmin(tx, "a", AdminState::kOpen, 1, "op"); }).ok());
  ASSERT_EQ(c.job("job").state, JobState::kBackoff);
  EXPECT_EQ(c.job("job").charges, 1);
  c.PassWithHeartbeats(milliseconds(999));
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
  c.PassWithHeartbeats(milliseconds(1));
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.job("job").attempt, 2);
  EXPECT_EQ(c.job("job").resumed_step, 100);
}

TEST(RankExit, ThreeCrashesInOnePlaceEndTheJobAndACheckpointForgives) {
  CoreCluster c;
  const auto crash = [&] {
    c.ExitAll("job", ExitReason::kInternal);
    c.PassWithHeartbeats(seconds(5));
    if (c.job("job").state == JobState::kReserved) {
      c.ConfirmAll("job");
      c.Step("job");
    }
  };
  c.JobIn(JobState::kRunning);
  crash();
  crash();
  EXPECT_EQ(c.job("job").charges, 2);
  c.Save("job", 10);
  EXPECT_EQ(c.job("job").charges, 0);
  crash();
  crash();
  ASSERT_EQ(c.job("job").state, JobState::kRunning);
  crash();
  EXPECT_EQ(c.job("job").state, JobState::kFailed);
  EXPECT_EQ(c.job("job").reason, Reason::kCrashLoop);
  EXPECT_THAT(c.job("job").message, HasSubstr("3 times without a checkpoint after step 10"));
}

TEST(DecideAfterEnd, EachExitReasonHasOneConsequence) {
  using enum NextMove::Kind;
  const struct {
    ExitReason exit;
    NextMove::Kind kind;
    Reason reason;
    int charges;
  } rows[] = {
      {ExitReason::kCompleted, kSucceed, Reason::kCompleted, 0},
      // The user's, and the same again next time.
      {ExitReason::kConfig, kFail, Reason::kConfig, 0},
      {ExitReason::kData, kFail, Reason::kData, 0},
      {ExitReason::kFingerprint, kFail, Reason::kFingerprint, 0},
      {ExitReason::kNoValidCheckpoint, kFail, Reason::kNoValidCheckpoint, 0},
      {ExitReason::kNumeric, kFail, Reason::kNumeric, 0},
      {ExitReason::kMismatch, kFail, Reason::kInternal, 0},
      // The user's, but worth another try.
      {ExitReason::kDeviceOom, kRetry, Reason::kCrash, 1},
      {ExitReason::kHostOom, kRetry, Reason::kCrash, 1},
      {ExitReason::kInternal, kRetry, Reason::kCrash, 1},
      {ExitReason::kSignalled, kRetry, Reason::kCrash, 1},
      {ExitReason::kHung, kRetry, Reason::kHang, 1},
      {static_cast<ExitReason>(99), kRetry, Reason::kCrash, 1},
      // Nobody's: never charged.
      {ExitReason::kRendezvous, kRetry, Reason::kInfra, 0},
      {ExitReason::kCollective, kRetry, Reason::kInfra, 0},
      {ExitReason::kStorage, kRetry, Reason::kInfra, 0},
      {ExitReason::kDevice, kRetry, Reason::kInfra, 0},
      {ExitReason::kStartFailed, kRetry, Reason::kInfra, 0},
      {ExitReason::kLost, kRetry, Reason::kNodeLost, 0},
      {ExitReason::kAborted, kRetry, Reason::kInfra, 0},
      {ExitReason::kFenced, kRetry, Reason::kInfra, 0},
      {ExitReason::kStopped, kRetry, Reason::kInfra, 0},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(Name(row.exit));
    const NextMove got = DecideAfterEnd(Job{}, {row.exit, 0, "rank 0 ended"}, 0, {});
    EXPECT_EQ(got.kind, row.kind);
    EXPECT_EQ(got.reason, row.reason);
    EXPECT_EQ(got.charges, row.charges);
    EXPECT_THAT(got.message, Not(IsEmpty()));
  }
}

TEST(DecideAfterEnd, ChargesOnlyTheUserAndForgivesAfterProgress) {
  using enum NextMove::Kind;
  const struct {
    const char* rule;
    int charges, most;
    ExitReason exit;
    int resumed, newest;
    NextMove::Kind kind;
    int want;
  } rows[] = {
      {"first crash is retried", 0, 3, ExitReason::kInternal, 100, 100, kRetry, 1},
      {"third crash in one place ends it", 2, 3, ExitReason::kInternal, 100, 100, kFail, 3},
      {"progress forgives earlier crashes", 2, 3, ExitReason::kInternal, 100, 101, kRetry, 1},
      {"a lost node costs nothing", 2, 3, ExitReason::kLost, 100, 100, kRetry, 2},
      {"a lost node does not end a job without budget", 0, 0, ExitReason::kLost, 0, 0, kRetry, 0},
      {"no budget: the first crash ends it", 0, 0, ExitReason::kInternal, 0, 0, kFail, 1},
      {"a budget of one is spent by one crash", 0, 1, ExitReason::kInternal, 0, 0, kFail, 1},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.rule);
    Job job;
    job.charges = row.charges;
    job.max_charges = row.most;
    job.resumed_step = row.resumed;
    const NextMove got = DecideAfterEnd(job, {row.exit, 3, "rank 3 exited"}, row.newest, {});
    EXPECT_EQ(got.kind, row.kind);
    EXPECT_EQ(got.charges, row.want);
  }
}

TEST(DecideAfterEnd, DelayDoublesWithEachChargeUpToItsLimit) {
  const struct {
    int charges_before;
    milliseconds delay;
  } rows[] = {{0, seconds(1)}, {1, seconds(2)}, {2, seconds(4)}, {5, seconds(32)}, {6, seconds(60)}, {90, seconds(60)}};
  for (const auto& row : rows) {
    Job job;
    job.charges = row.charges_before;
    job.max_charges = 100;
    EXPECT_EQ(DecideAfterEnd(job, {ExitReason::kInternal, 0, "x"}, 0, {}).delay, row.delay) << row.charges_before;
  }
}

TEST(CauseOf, TheFirstFailureIsNamedNotWhatFollowedFromIt) {
  const struct {
    const char* rule;
    std::vector<ExitReason> exits;
    int want;
  } rows[] = {
      {"a signal explains broken collectives",
       {ExitReason::kCollective, ExitReason::kSignalled, ExitReason::kAborted},
       1},
      {"bad data explains everything", {ExitReason::kSignalled, ExitReason::kAborted, ExitReason::kData}, 2},
      {"a lost node explains aborted peers", {ExitReason::kAborted, ExitReason::kLost, ExitReason::kAborted}, 1},
      {"a crash explains more than a lost node", {ExitReason::kLost, ExitReason::kInternal}, 1},
      {"a failure outweighs completion", {ExitReason::kCompleted, ExitReason::kAborted}, 1},
      {"of two alike, the lower rank", {ExitReason::kAborted, ExitReason::kInternal, ExitReason::kInternal}, 1},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.rule);
    std::vector<Rank> ranks;
    for (const ExitReason exit : row.exits) {
      Rank rank;
      rank.rank = static_cast<int>(ranks.size());
      rank.state = RankState::kExited;
      rank.exit_reason = exit;
      ranks.push_back(rank);
    }
    EXPECT_EQ(CauseOf(ranks).rank, row.want);
  }
}

TEST(RankExit, LossThatIsNotFiniteIsRolledBackOnceWithAnotherBatch) {
  CoreCluster c;
  c.JobIn(JobState::kStarting);
  const auto numeric = [&](std::int64_t step) {
    Report report = c.Next("job", 1, Report::Kind::kExited);
    report.exit_reason = ExitReason::kNumeric;
    report.exit_message = "variance term is not finite";
    report.nonfinite_step = step;
    c.Say(report);
    c.ExitAll("job", ExitReason::kAborted);
  };
  numeric(17);
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_EQ(c.job("job").reason, Reason::kRollback);
  EXPECT_EQ(c.job("job").substituted_step, 17);
  EXPECT_EQ(c.job("job").charges, 0);
  EXPECT_EQ(c.job("job").restarts.at("rollback"), 1);
  EXPECT_THAT(c.job("job").message, HasSubstr("other samples in the batch of step 17"));
  ASSERT_EQ(c.job("job").attempt, 2);
  c.ConfirmAll("job");
  numeric(23);
  EXPECT_EQ(c.job("job").state, JobState::kFailed);
  EXPECT_EQ(c.job("job").reason, Reason::kNumeric);
  EXPECT_EQ(c.job("job").substituted_step, 17);
  EXPECT_THAT(c.job("job").message, HasSubstr("rolled back once already"));
}

TEST(RankExit, DeterministicUserErrorFailsAtOnce) {
  for (const ExitReason reason : {ExitReason::kConfig, ExitReason::kData, ExitReason::kNumeric, ExitReason::kMismatch,
                                  ExitReason::kFingerprint, ExitReason::kNoValidCheckpoint}) {
    SCOPED_TRACE(Name(reason));
    CoreCluster c;
    c.JobIn(JobState::kStarting);
    Report report = c.Next("job", 1, Report::Kind::kExited);
    report.exit_reason = reason;
    report.exit_message = "file train-images is cut short";
    c.Say(report);
    c.ExitAll("job", ExitReason::kAborted);
    EXPECT_EQ(c.job("job").state, JobState::kFailed);
    EXPECT_EQ(c.job("job").attempt, 1);
    EXPECT_THAT(c.job("job").message, HasSubstr("rank 1 on a"));
    EXPECT_THAT(c.job("job").message, HasSubstr("file train-images is cut short"));
  }
}

TEST(Terminal, NothingMovesAJobThatHasEnded) {
  for (const JobState end : {JobState::kSucceeded, JobState::kFailed, JobState::kCancelled}) {
    SCOPED_TRACE(Name(end));
    CoreCluster c;
    c.JobIn(end);
    const std::int64_t events = c.job("job").events;
    for (int kind = 0; kind <= static_cast<int>(Report::Kind::kExited); ++kind) {
      Report report;
      report.job_id = "job";
      report.attempt = c.job("job").attempt;
      report.sequence = 1000 + kind;
      report.kind = static_cast<Report::Kind>(kind);
      report.checkpoint.step = 1'000'000;
      c.SayAs("a", c.state.nodes.at("a").incarnation, report);
    }
    c.Answer("a", "job");
    c.Answer("a", "job", "no");
    EXPECT_TRUE(c.Decide([](Transaction& tx) { return Cancel(tx, {"job", "test", 1}); }).ok());
    EXPECT_TRUE(c.Reconnect("a").ok());
    EXPECT_TRUE(c.Restart("b").ok());
    c.Pass(seconds(100));
    EXPECT_EQ(c.job("job").state, end);
    EXPECT_EQ(c.job("job").events, events);
    EXPECT_THAT(c.job("job").checkpoints, IsEmpty());
  }
}

TEST(Terminal, LeavingIsABrokenInvariantAndStopsTheCoordinator) {
  CoreCluster c;
  c.JobIn(JobState::kFailed);
  Transaction tx(c.state, c.options, c.clock.SteadyNow(), 0);
  EXPECT_THROW(tx.Move(tx.EditJob("job"), JobState::kQueued, Reason::kNone, "x", "X", "test"), std::logic_error);
}

// ---- reports ----

TEST(Report, IsCountedOnceHoweverOftenItIsSent) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  Report first = c.Next("job", 0, Report::Kind::kCheckpoint);
  first.checkpoint = {1, 50, "path", "hash", 10};
  c.Say(first);
  EXPECT_EQ(c.events.size(), 1u);
  EXPECT_FALSE(c.AckedAsFenced());
  const std::int64_t acked = c.job("job").ranks[0].acked;
  first.checkpoint.step = 60;  // the same number again, whatever it says
  c.Say(first);
  EXPECT_THAT(c.events, IsEmpty());
  EXPECT_FALSE(c.AckedAsFenced());
  EXPECT_EQ(c.job("job").ranks[0].acked, acked);
  ASSERT_EQ(c.job("job").checkpoints.size(), 1u);
  EXPECT_EQ(c.job("job").checkpoints[0].step, 50);
}

TEST(Report, ExitSentAgainAfterTheRetryHasBegunIsNotASecondCrash) {
  CoreCluster c;
  c.JobIn(JobState::kRunning, "job", 1);
  Report exit = c.Next("job", 0, Report::Kind::kExited);
  exit.exit_reason = ExitReason::kInternal;
  c.Say(exit);
  EXPECT_FALSE(c.AckedAsFenced());
  ASSERT_EQ(c.job("job").attempt, 2);
  EXPECT_EQ(c.job("job").charges, 1);
  c.Say(exit);
  EXPECT_TRUE(c.AckedAsFenced());
  c.PassWithHeartbeats(seconds(2));
  c.Say(exit);
  EXPECT_TRUE(c.AckedAsFenced());
  EXPECT_EQ(c.job("job").charges, 1);
}

TEST(Report, WhatIsNotCurrentIsFencedAndChangesNothing) {
  const struct {
    const char* rule;
    std::function<void(CoreCluster&, std::string& node, std::int64_t& incarnation, Report&)> spoil;
  } rows[] = {
      {"an older attempt", [](CoreCluster&, std::string&, std::int64_t&, Report& r) { --r.attempt; }},
      {"an attempt that never was", [](CoreCluster&, std::string&, std::int64_t&, Report& r) { ++r.attempt; }},
      {"an older incarnation", [](CoreCluster&, std::string&, std::int64_t& i, Report&) { --i; }},
      {"a newer incarnation", [](CoreCluster&, std::string&, std::int64_t& i, Report&) { ++i; }},
      {"a node that does not have the rank", [](CoreCluster&, std::string& n, std::int64_t&, Report&) { n = "b"; }},
      {"a node nobody knows", [](CoreCluster&, std::string& n, std::int64_t&, Report&) { n = "z"; }},
      {"a rank beyond the gang", [](CoreCluster&, std::string&, std::int64_t&, Report& r) { r.rank = 9; }},
      {"a negative rank", [](CoreCluster&, std::string&, std::int64_t&, Report& r) { r.rank = -1; }},
      {"a job nobody knows", [](CoreCluster&, std::string&, std::int64_t&, Report& r) { r.job_id = "z"; }},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.rule);
    CoreCluster c;
    c.JobIn(JobState::kRunning);
    Report report = c.Next("job", 0, Report::Kind::kExited);
    report.exit_reason = ExitReason::kData;
    std::string node = c.job("job").ranks[0].node;
    std::int64_t incarnation = c.job("job").ranks[0].incarnation;
    row.spoil(c, node, incarnation, report);
    c.SayAs(node, incarnation, report);
    // The node's process of now did not say it, and would end a rank of its own if it were answered.
    const auto sender = c.state.nodes.find(node);
    const bool told = sender == c.state.nodes.end() || sender->second.incarnation == incarnation;
    EXPECT_EQ(c.SentTo<SendAck>().size(), told ? 1u : 0u);
    if (told) {
      EXPECT_TRUE(c.AckedAsFenced());
    }
    EXPECT_EQ(c.fenced, 1);
    EXPECT_THAT(c.events, IsEmpty());
    EXPECT_EQ(c.job("job").state, JobState::kRunning);
  }
}

TEST(Report, BeforeTheLaunchNoRankCanHaveAnythingToSay) {
  CoreCluster c;
  c.JobIn(JobState::kReserved, "job", 1);
  c.Exit("job", 0, ExitReason::kCompleted);
  EXPECT_TRUE(c.AckedAsFenced());
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
}

TEST(Report, RankThatWasGivenUpIsToldToEndAndCommitsNothing) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  EXPECT_TRUE(c.Reconnect("a", {{"job", 1, 1}}).ok());
  ASSERT_EQ(c.job("job").ranks[0].state, RankState::kLost);
  c.Save("job", 50);  // by rank 0
  EXPECT_TRUE(c.AckedAsFenced());
  EXPECT_THAT(c.job("job").checkpoints, IsEmpty());
  c.Exit("job", 0, ExitReason::kCompleted);
  EXPECT_TRUE(c.AckedAsFenced());
  EXPECT_EQ(c.job("job").ranks[0].exit_reason, ExitReason::kLost);
}

TEST(Report, JobRunsOnceEveryRankHasStepped) {
  CoreCluster c;
  c.JobIn(JobState::kStarting);
  for (int rank = 0; rank < 4; ++rank) {
    c.Say(c.Next("job", rank, Report::Kind::kSpawned));
    c.Say(c.Next("job", rank, Report::Kind::kConnected));
    EXPECT_EQ(c.job("job").state, JobState::kStarting);
  }
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(c.job("job").state, JobState::kStarting);
    c.Say(c.Next("job", rank, Report::Kind::kStepping));
  }
  EXPECT_EQ(c.job("job").state, JobState::kRunning);
}

TEST(Report, NewestCheckpointOnlyMovesForwardAndAFewAreKept) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  for (const std::int64_t step : {10, 20, 20, 15, 30, 40, 40}) c.Save("job", step);
  std::vector<std::int64_t> steps;
  for (const Checkpoint& checkpoint : c.job("job").checkpoints) steps.push_back(checkpoint.step);
  EXPECT_THAT(steps, ElementsAre(40, 30, 20));
}

// ---- nodes ----

TEST(Membership, SilenceIsSuspectAfterFiveSecondsAndLostAfterTwenty) {
  const struct {
    milliseconds silent;
    NodeState want;
  } rows[] = {{milliseconds(4999), NodeState::kReady},
              {seconds(5), NodeState::kSuspect},
              {milliseconds(19999), NodeState::kSuspect},
              {seconds(20), NodeState::kLost}};
  for (const auto& row : rows) {
    CoreCluster c;
    EXPECT_TRUE(c.AddNode("a", 1).ok());
    // In steps, as the timer of a real coordinator.
    auto passed = milliseconds(0);
    for (; passed + milliseconds(250) <= row.silent; passed += milliseconds(250)) c.Pass(milliseconds(250));
    c.Pass(row.silent - passed);
    EXPECT_EQ(c.node("a"), row.want) << row.silent.count() << " ms";
  }
}

TEST(Membership, TimersOfNodesStretchBeyondAThousandSoThatHeartbeatsStayAtFiveHundredASecond) {
  const struct {
    std::size_t nodes;
    milliseconds heartbeat, suspect, lost;
  } rows[] = {{0, seconds(2), seconds(5), seconds(20)},
              {1000, seconds(2), seconds(5), seconds(20)},
              {2000, seconds(4), seconds(10), seconds(40)},
              {5000, seconds(10), seconds(25), seconds(100)}};
  for (const auto& row : rows) {
    const NodeTimers timers = TimersFor(row.nodes, Options{});
    EXPECT_EQ(timers.heartbeat, row.heartbeat) << row.nodes;
    EXPECT_EQ(timers.suspect, row.suspect) << row.nodes;
    EXPECT_EQ(timers.lost, row.lost) << row.nodes;
  }
  CoreCluster c;
  for (int i = 0; i < 2000; ++i) EXPECT_TRUE(c.AddNode("n" + std::to_string(i), 1).ok());
  c.Pass(milliseconds(9'999));
  EXPECT_EQ(c.node("n7"), NodeState::kReady);
  c.Pass(milliseconds(1));
  EXPECT_EQ(c.node("n7"), NodeState::kSuspect);
  EXPECT_THAT(c.state.nodes.at("n7").message, HasSubstr("silent for 10 s"));
  c.Pass(milliseconds(29'999));
  EXPECT_EQ(c.node("n7"), NodeState::kSuspect);
  c.Pass(milliseconds(1));
  EXPECT_EQ(c.node("n7"), NodeState::kLost);
}

TEST(Membership, SuspectNodeThatIsHeardIsReadyAndKeepsItsRanks) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  c.Pass(seconds(6));
  ASSERT_EQ(c.node("a"), NodeState::kSuspect);
  EXPECT_TRUE(c.Beat("a").ok());
  EXPECT_EQ(c.node("a"), NodeState::kReady);
  EXPECT_EQ(c.job("job").state, JobState::kRunning);
}

TEST(Membership, LostNodeEndsItsAttemptsAndMustRegisterAgain) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  c.Pass(seconds(6));
  c.clock.Advance(seconds(15));
  EXPECT_TRUE(c.Beat("b").ok());
  c.Pass(seconds(0));
  ASSERT_EQ(c.node("a"), NodeState::kLost);
  ASSERT_EQ(c.node("b"), NodeState::kReady);
  EXPECT_EQ(c.job("job").state, JobState::kStopping);
  EXPECT_EQ(c.job("job").reason, Reason::kNodeLost);
  EXPECT_EQ(c.Beat("a").code(), absl::StatusCode::kAborted);
  c.ExitAll("job", ExitReason::kAborted);
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
  EXPECT_EQ(c.job("job").charges, 0);
  // Back with its ranks: they were given up and are not kept.
  const auto welcome = c.Reconnect("a", {{"job", 1, 0}, {"job", 1, 1}});
  ASSERT_TRUE(welcome.ok());
  EXPECT_THAT(welcome->keep, IsEmpty());
  EXPECT_EQ(c.node("a"), NodeState::kProbing);
}

TEST(Membership, ReservationOnALostNodeGoesBackToTheQueue) {
  CoreCluster c;
  c.options.reservation = seconds(1000);
  c.JobIn(JobState::kReserved);
  c.Pass(seconds(6));
  c.Pass(seconds(15));
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
  EXPECT_THAT(c.job("job").message, HasSubstr("was lost"));
}

TEST(Membership, NobodyIsLostWithinTheGraceAfterACoordinatorStarts) {
  CoreCluster c;
  EXPECT_TRUE(c.AddNode("a", 1).ok());
  // As a restarted coordinator loads it.
  c.state.nodes.at("a").state = NodeState::kJoining;
  c.state.nodes.at("a").last_heard = {};
  c.since_start = milliseconds(59'999);
  c.Pass(seconds(1));
  EXPECT_EQ(c.node("a"), NodeState::kJoining);
  c.since_start = seconds(60);
  c.Pass(seconds(1));
  EXPECT_EQ(c.node("a"), NodeState::kLost);
}

TEST(Membership, HeartbeatOfAnOlderIncarnationIsFenced) {
  CoreCluster c;
  EXPECT_TRUE(c.AddNode("a", 1).ok());
  EXPECT_TRUE(c.Restart("a").ok());
  ASSERT_EQ(c.state.nodes.at("a").incarnation, 2);
  for (const std::int64_t incarnation : {0, 1, 3}) {
    const auto status = c.Decide([&](Transaction& tx) { return Heartbeat(tx, "a", incarnation); });
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_EQ(c.fenced, 1);
  }
  EXPECT_EQ(c.Decide([](Transaction& tx) { return Heartbeat(tx, "z", 1); }).code(), absl::StatusCode::kAborted);
}

TEST(Register, OlderProcessOfANodeIsFenced) {
  CoreCluster c;
  EXPECT_TRUE(c.AddNode("a", 1).ok());
  Registration older{c.state.nodes.at("a"), {}};
  EXPECT_TRUE(c.Restart("a").ok());
  const auto welcome = c.Decide([&](Transaction& tx) { return Register(tx, older); });
  EXPECT_EQ(welcome.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(c.state.nodes.at("a").incarnation, 2);
}

TEST(Register, NameOfALiveNodeIsRefusedToAnotherMachine) {
  CoreCluster c;
  EXPECT_TRUE(c.AddNode("a", 1).ok());
  Registration other{c.state.nodes.at("a"), {}};
  other.node.incarnation = 0;
  other.node.boot_id = "another kernel";
  EXPECT_EQ(c.Decide([&](Transaction& tx) { return Register(tx, other); }).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(c.state.nodes.at("a").incarnation, 1);
  // The machine has rebooted: its old life is silent.
  c.Pass(seconds(6));
  c.Pass(seconds(20));
  EXPECT_TRUE(c.Decide([&](Transaction& tx) { return Register(tx, other); }).ok());
  EXPECT_EQ(c.state.nodes.at("a").incarnation, 2);
}

TEST(Register, SameProcessIsAskedAgainForWhatItMayNotHaveHeard) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  EXPECT_TRUE(c.Reconnect("a").ok());
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
  EXPECT_THAT(c.SentTo<SendPrepare>(), ElementsAre("a"));
  c.ConfirmAll("job");
  EXPECT_TRUE(c.Reconnect("b").ok());
  EXPECT_EQ(c.job("job").state, JobState::kStarting);
  EXPECT_THAT(c.SentTo<SendLaunch>(), ElementsAre("b"));
}

TEST(Register, StopAndAbortAreSentAgain) {
  CoreCluster c;
  c.JobIn(JobState::kStopping);
  EXPECT_TRUE(c.Reconnect("b", {{"job", 1, 2}, {"job", 1, 3}}).ok());
  EXPECT_THAT(c.SentTo<SendAbort>(), ElementsAre("b"));
  EXPECT_TRUE(c.Decide([](Transaction& tx) { return Cancel(tx, {"job", "test", 1}); }).ok());
  EXPECT_TRUE(c.Reconnect("b", {{"job", 1, 2}, {"job", 1, 3}}).ok());
  EXPECT_THAT(c.SentTo<SendStop>(), ElementsAre("b"));
}

TEST(Register, HeldRanksGoOnAndMissingOnesAreLost) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  auto welcome = c.Reconnect("a", {{"job", 1, 0}, {"job", 1, 1}, {"job", 0, 0}, {"other", 1, 0}, {"job", 1, 2}});
  ASSERT_TRUE(welcome.ok());
  ASSERT_EQ(welcome->keep.size(), 2u) << "only ranks 0 and 1 of this attempt are this node's";
  EXPECT_EQ(c.job("job").state, JobState::kRunning);

  welcome = c.Reconnect("a", {{"job", 1, 1}});
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(c.job("job").state, JobState::kStopping);
  EXPECT_EQ(c.job("job").ranks[0].state, RankState::kLost);
  EXPECT_EQ(c.job("job").ranks[1].state, RankState::kStepping);
  EXPECT_THAT(c.SentTo<SendAbort>(), Not(IsEmpty()));
}

TEST(Register, NewProcessAdoptsTheRanksItFoundAliveAndReportsInTheirName) {
  CoreCluster c;
  c.JobIn(JobState::kRunning);
  const auto welcome = c.Restart("a", {{"job", 1, 0}, {"job", 1, 1}});
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(welcome->keep.size(), 2u);
  EXPECT_THAT(welcome->cursors, ElementsAre(c.job("job").ranks[0].acked, c.job("job").ranks[1].acked));
  EXPECT_GT(welcome->cursors[0], 0) << "what it numbers itself begins behind this";
  EXPECT_EQ(c.job("job").state, JobState::kRunning);
  const Report report = c.Next("job", 0, Report::Kind::kExported);
  c.SayAs("a", 1, report);
  EXPECT_EQ(c.fenced, 1);
  EXPECT_THAT(c.SentTo<SendAck>(), IsEmpty()) << "the new process would end the rank it has adopted";
  c.SayAs("a", 2, report);
  EXPECT_FALSE(c.AckedAsFenced());
}

TEST(Register, NewProcessHoldsNoReservation) {
  CoreCluster c;
  c.JobIn(JobState::kReserved);
  EXPECT_TRUE(c.Restart("a").ok());
  EXPECT_EQ(c.job("job").state, JobState::kBackoff);
  EXPECT_THAT(c.job("job").message, HasSubstr("worker a restarted"));
}

// ---- the checker itself ----

TEST(Transaction, NodesComeByNameStoredOnesAsChangedSoFar) {
  CoreCluster c;
  for (const char* name : {"b", "d", "f"}) EXPECT_TRUE(c.AddNode(name, 1).ok());
  Transaction tx(c.state, c.options, c.clock.SteadyNow(), 0);
  tx.EditNode("d").cpu_slots = 2;
  for (const char* name : {"a", "c", "g"}) {
    Node node;
    node.name = name;
    node.cpu_slots = 3;
    tx.AddNode(node);
  }
  std::string found;
  for (const Node* node : tx.Nodes()) found += node->name + std::to_string(node->cpu_slots) + " ";
  EXPECT_EQ(found, "a3 b1 c3 d2 f1 g3 ");
}

TEST(Broken, EachRuleIsSaidWhenItIsViolated) {
  const struct {
    const char* sentence;
    std::function<void(State&)> spoil;
  } rows[] = {
      {"part of its gang", [](State& s) { s.jobs.at("job").ranks.pop_back(); }},
      {"without an attempt", [](State& s) { s.jobs.at("job").attempt = 0; }},
      {"is claimed by", [](State& s) { s.jobs.at("job").ranks[1] = s.jobs.at("job").ranks[0]; }},
      {"index of live jobs", [](State& s) { s.live.clear(); }},
      {"index of jobs that hold slots", [](State& s) { s.holding.clear(); }},
      {"index of delayed jobs", [](State& s) { s.delayed.insert(AgeOf(s.jobs.at("job"))); }},
      {"index of queued jobs", [](State& s) { s.queued["class"].jobs.insert(AgeOf(s.jobs.at("job"))); }},
      {"although rank 2 is gone",
       [](State& s) {
         s.jobs.at("job").ranks[2].state = RankState::kExited;
         s.jobs.at("job").ranks[2].exit_reason = ExitReason::kSignalled;
       }},
      {"ended without a reason",
       [](State& s) {
         s.jobs.at("job").state = JobState::kFailed;
         s.jobs.at("job").reason = Reason::kNone;
         s.live.clear();
       }},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.sentence);
    CoreCluster c;
    c.JobIn(JobState::kRunning);
    ASSERT_THAT(Broken(c.state), IsEmpty());
    row.spoil(c.state);
    EXPECT_THAT(Broken(c.state), ::testing::Contains(HasSubstr(row.sentence)));
  }
}

}  // namespace
}  // namespace vicreg::core
