// Goal: the worker ends ranks exactly when it should, and says exactly what it must. Method: the pure core with made-up
// time; effects are compared as text. What needs real processes and sockets is in agent_test.cc.

#include "worker/core/supervisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

namespace vicreg::worker {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kJob[] = "job";
constexpr int kExit10 = 10 << 8, kExit70 = 70 << 8;  // as waitpid gives them

// One word per effect: what a reader of the log would note.
std::string Word(const Effect& effect) {
  if (const auto* tell = std::get_if<Tell>(&effect)) {
    if (tell->message.has_prepared())
      return tell->message.prepared().refusal().empty() ? "confirm" : "refuse: " + tell->message.prepared().refusal();
    const v1::RankReport& report = tell->message.report();
    return "report " + std::to_string(report.rank()) +
           (report.has_exited()    ? " exited"
            : report.has_spawned() ? " spawned"
                                   : " says");
  }
  if (const auto* say = std::get_if<Say>(&effect)) {
    if (!say->message.has_command()) return "";
    static const char* const kKinds[] = {"", "stop ", "abort ", "fence "};
    return kKinds[say->message.command().kind()] + std::to_string(std::get<2>(say->key));
  }
  if (const auto* signal = std::get_if<Signal>(&effect))
    return (signal->number == SIGTERM ? "SIGTERM " : "SIGKILL ") + std::to_string(signal->pid);
  if (const auto* start = std::get_if<Start>(&effect)) return "start " + std::to_string(std::get<2>(start->key));
  if (const auto* clear = std::get_if<Clear>(&effect)) return "clear " + std::to_string(std::get<2>(clear->key));
  if (const auto* dump = std::get_if<Dump>(&effect)) return "stacks " + std::to_string(std::get<2>(dump->key));
  if (std::holds_alternative<ReadOn>(effect)) return "read on";
  if (std::holds_alternative<Rejoin>(effect)) return "rejoin";
  return "";
}

class SupervisorTest : public testing::Test {
 protected:
  SupervisorTest() : supervisor_({}) { Fresh(); }

  // A worker without ranks that registers and is welcomed now.
  void Fresh(int heartbeat_ms = 2000) {
    supervisor_ = Supervisor({"here", "boot", "build", "/artifacts", 4, 1, {"GPU-0"}, {{"images", "/data"}}, {}});
    Register(heartbeat_ms);
  }
  void Register(int heartbeat_ms = 2000) {
    supervisor_.MakeRegister(now_);
    supervisor_.OnStream(true);
    v1::ConnectResponse welcome;
    welcome.mutable_welcome()->set_incarnation(5);
    welcome.mutable_welcome()->set_heartbeat_ms(heartbeat_ms);
    Hear(welcome);
  }

  // The effects of what follows, as words.
  std::vector<std::string> Words(const Effects& effects) {
    std::vector<std::string> words;
    for (const Effect& effect : effects) {
      if (std::string word = Word(effect); !word.empty()) words.push_back(std::move(word));
    }
    return words;
  }
  std::vector<std::string> Hear(const v1::ConnectResponse& message) {
    return Words(supervisor_.OnMessage(now_, message));
  }
  std::vector<std::string> At(milliseconds time) {
    now_ = begin_ + time;
    return Words(supervisor_.OnTime(now_));
  }
  milliseconds Next() {
    const TimePoint next = supervisor_.NextTimer();
    return next == TimePoint::max() ? milliseconds(-1)
                                    : std::chrono::duration_cast<milliseconds>(std::max(next, begin_) - begin_);
  }

  static v1::ConnectResponse LaunchOfTwo() {
    v1::ConnectResponse message;
    v1::Launch& launch = *message.mutable_launch();
    launch.set_job_id(kJob);
    launch.set_attempt(1);
    launch.mutable_spec()->mutable_data()->set_root("images");
    for (const int rank : {0, 1}) {
      launch.add_ranks()->set_rank(rank);
      launch.mutable_ranks(rank)->set_slot(rank);
    }
    return message;
  }
  void Answer(std::int64_t heartbeat, int heartbeat_ms = 0) {
    v1::ConnectResponse message;
    message.mutable_heartbeat()->set_sequence(heartbeat);
    message.mutable_heartbeat()->set_heartbeat_ms(heartbeat_ms);
    Hear(message);
  }
  // Ranks 0 and 1 as processes 100 and 101, on slots 0 and 1.
  void LaunchTwo(bool connected) {
    const v1::ConnectResponse message = LaunchOfTwo();
    EXPECT_THAT(Hear(message), ElementsAre("start 0", "start 1"));
    EXPECT_THAT(Hear(message), IsEmpty()) << "the same again";
    for (const int rank : {0, 1}) {
      supervisor_.OnStarted({kJob, 1, rank}, 100 + rank, "secret");
      v1::Hello hello;
      hello.set_job_id(kJob);
      hello.set_attempt(1);
      hello.set_rank(rank);
      hello.set_pid(100 + rank);
      hello.set_secret("secret");
      Effects effects;
      EXPECT_TRUE(!connected || supervisor_.OnHello(hello, effects));
    }
  }
  // Rank `rank` has finished `step` steps of 100 ms.
  void Moves(int rank, std::int64_t step, bool waits = false) {
    v1::Progress progress;
    progress.set_phase(v1::Progress::PHASE_STEP);
    progress.set_step(step);
    progress.set_slowest_ms(100);
    progress.set_waits_for_peers(waits);
    supervisor_.OnProgress(now_, {kJob, 1, rank}, progress);
  }
  // Rank `rank` writes a checkpoint, `bytes` so far.
  void Saves(int rank, std::int64_t bytes) {
    v1::Progress progress;
    progress.set_phase(v1::Progress::PHASE_CHECKPOINT);
    progress.set_written_bytes(bytes);
    supervisor_.OnProgress(now_, {kJob, 1, rank}, progress);
  }
  // Rank `rank` has nothing left to do.
  void Leaves(int rank) {
    v1::Progress progress;
    progress.set_phase(v1::Progress::PHASE_LEAVING);
    progress.set_step(30);
    supervisor_.OnProgress(now_, {kJob, 1, rank}, progress);
  }
  void Ack(int rank, std::int64_t sequence) {
    v1::ConnectResponse message;
    v1::ReportAck& ack = *message.mutable_ack();
    ack.set_job_id(kJob);
    ack.set_attempt(1);
    ack.set_rank(rank);
    ack.set_sequence(sequence);
    Hear(message);
  }
  void SaysLast(int rank, v1::ExitReason reason, const std::string& message) {
    v1::RankSays says;
    says.mutable_leaving()->set_reason(reason);
    says.mutable_leaving()->set_message(message);
    Effects effects;
    EXPECT_TRUE(supervisor_.OnSays({kJob, 1, rank}, says, effects));
  }
  // Looks every 4 s for as long, and returns what was done first.
  std::vector<std::string> Within(milliseconds time) {
    std::vector<std::string> said;
    for (const TimePoint end = now_ + time; said.empty() && now_ < end;)
      said = At(std::chrono::duration_cast<milliseconds>(now_ - begin_) + milliseconds(4000));
    return said;
  }
  // How the coordinator hears that `rank` ended.
  v1::Exited EndOf(int rank, int wait_status) {
    supervisor_.OnExited(now_, {kJob, 1, rank}, wait_status);
    supervisor_.OnRankStreamEnd({kJob, 1, rank});
    for (const Effect& effect : supervisor_.OnTime(now_)) {
      if (const auto* tell = std::get_if<Tell>(&effect); tell && tell->message.report().has_exited())
        return tell->message.report().exited();
    }
    return {};
  }
  std::vector<std::string> Stop(double grace_seconds) {
    v1::ConnectResponse message;
    message.mutable_stop()->set_job_id(kJob);
    message.mutable_stop()->set_attempt(1);
    message.mutable_stop()->set_grace_seconds(grace_seconds);
    return Hear(message);
  }
  std::vector<std::string> Abort() {
    v1::ConnectResponse message;
    message.mutable_abort()->set_job_id(kJob);
    message.mutable_abort()->set_attempt(1);
    return Hear(message);
  }

  const TimePoint begin_{std::chrono::hours(1)};
  TimePoint now_ = begin_;
  Supervisor supervisor_;
};

TEST_F(SupervisorTest, StopIsToldThenTermed40SecondsAheadThenKilledEachSecond) {
  LaunchTwo(true);
  EXPECT_EQ(Next(), milliseconds(-1));
  EXPECT_THAT(Stop(120), ElementsAre("stop 0", "stop 1"));
  EXPECT_EQ(Next(), milliseconds(80'000));
  EXPECT_THAT(At(milliseconds(79'999)), IsEmpty());
  EXPECT_THAT(At(milliseconds(80'000)), ElementsAre("SIGTERM 100", "SIGTERM 101"));
  EXPECT_THAT(At(milliseconds(119'999)), IsEmpty());
  EXPECT_THAT(At(milliseconds(120'000)), ElementsAre("SIGKILL 100", "SIGKILL 101"));
  EXPECT_THAT(At(milliseconds(120'999)), IsEmpty());
  EXPECT_THAT(At(milliseconds(121'000)), ElementsAre("SIGKILL 100", "SIGKILL 101"));
}

TEST_F(SupervisorTest, StopWaitsForACheckpointWhoseBytesAdvanceButNotLongerThanTenMinutes) {
  const struct {
    const char* rule;
    bool writes;  // bytes advance to the end
    double grace_seconds;
    int killed_ms;  // after Stop
  } rows[] = {
      {"nothing is written: the deadline counts", false, 30, 30'000},
      {"ten minutes beyond it", true, 30, 630'000},
      {"without grace there is nothing to put off", true, 0, 0},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.rule);
    now_ = begin_;
    Fresh();
    LaunchTwo(true);
    Stop(row.grace_seconds);
    std::vector<std::string> done;
    int ms = 0;
    for (; done.empty() && ms < 1'000'000; ms += 1000) {
      now_ = begin_ + milliseconds(ms);
      Saves(0, row.writes ? ms + 1 : 1);
      std::vector<std::string> now = At(milliseconds(ms));
      std::erase_if(now, [](const std::string& word) { return word.rfind("SIGTERM", 0) == 0; });
      done = now;
    }
    EXPECT_THAT(done, ElementsAre("SIGKILL 100", "SIGKILL 101")) << "its peer with it, not before";
    EXPECT_EQ(ms - 1000, row.killed_ms);
  }
}

TEST_F(SupervisorTest, StopIsOverTenSecondsAfterTheLastByteAndAtOnceByAnAbort) {
  LaunchTwo(true);
  Stop(30);
  At(milliseconds(0));
  now_ = begin_ + milliseconds(25'000);
  Saves(0, 1'000'000);
  EXPECT_THAT(At(milliseconds(30'000)), IsEmpty());
  EXPECT_EQ(Next(), milliseconds(40'000));
  EXPECT_THAT(At(milliseconds(40'000)), ElementsAre("SIGKILL 100", "SIGKILL 101"));
  now_ = begin_;
  Fresh();
  LaunchTwo(true);
  Stop(30);
  At(milliseconds(0));
  now_ = begin_ + milliseconds(29'000);
  Saves(0, 1'000'000);
  Abort();
  EXPECT_THAT(At(milliseconds(30'000)), ElementsAre("SIGKILL 100", "SIGKILL 101"));
}

TEST_F(SupervisorTest, StopThatIsRepeatedDoesNotPutItsEndOffFurther) {
  LaunchTwo(true);
  Stop(30);
  std::vector<std::string> done;
  int ms = 0;
  for (; done.empty() && ms < 1'000'000; ms += 1000) {
    now_ = begin_ + milliseconds(ms);
    Saves(0, ms + 1);
    if (ms > 30'000 && ms % 60'000 == 0) Stop(10);  // its stream broke
    done = At(milliseconds(ms));
    std::erase_if(done, [](const std::string& word) { return word.rfind("SIGTERM", 0) == 0; });
  }
  EXPECT_EQ(ms - 1000, 630'000);
}

TEST_F(SupervisorTest, AbortKillsAfterASecondAndAtOnceWhoCannotHear) {
  for (const bool connected : {true, false}) {
    SCOPED_TRACE(connected);
    now_ = begin_;
    Fresh();
    LaunchTwo(connected);
    Abort();
    EXPECT_EQ(Next(), connected ? kAbortGrace : milliseconds(0));
    EXPECT_THAT(At(Next()), ElementsAre("SIGKILL 100", "SIGKILL 101"));
  }
}

TEST_F(SupervisorTest, BadEndAbortsPeersOnceAndAPlannedOneNobody) {
  LaunchTwo(true);
  EXPECT_THAT(Words(supervisor_.OnExited(now_, {kJob, 1, 0}, kExit10)), IsEmpty()) << "STOPPED";
  EXPECT_THAT(Words(supervisor_.OnExited(now_, {kJob, 1, 1}, kExit70)), IsEmpty()) << "its only peer has ended";
  Fresh();
  LaunchTwo(true);
  EXPECT_THAT(Words(supervisor_.OnExited(now_, {kJob, 1, 1}, SIGKILL)), ElementsAre("abort 0"));
}

TEST_F(SupervisorTest, RankThatStandsStillIsDumpedAbortedWithItsPeersAndReportedAsHung) {
  LaunchTwo(true);
  for (int i = 1; i <= 30; ++i) {
    At(milliseconds(i * 1000));
    Moves(0, i);
    Moves(1, i);
  }
  // Rank 0 waits for rank 1, which says nothing any more.
  for (int ms = 31'000; ms < 40'000; ms += 1000) {
    EXPECT_THAT(At(milliseconds(ms)), IsEmpty()) << ms;
    Moves(0, 31, true);
  }
  EXPECT_THAT(At(milliseconds(40'000)), ElementsAre("stacks 1", "abort 1", "abort 0"));
  EXPECT_THAT(At(milliseconds(41'000)), ElementsAre("SIGKILL 100", "SIGKILL 101"));
  const v1::Exited culprit = EndOf(1, SIGKILL), peer = EndOf(0, SIGKILL);
  EXPECT_EQ(culprit.reason(), v1::EXIT_REASON_HUNG);
  EXPECT_EQ(culprit.message(), "no progress for 10 s after step 30, in a step (limit 10 s); it has gone silent");
  EXPECT_EQ(peer.reason(), v1::EXIT_REASON_ABORTED) << "our own signal is not its crash";
  EXPECT_EQ(culprit.last_step(), 30);
  EXPECT_EQ(peer.last_step(), 31);
}

TEST_F(SupervisorTest, EndSaysAfterWhichStepAsFarAsThatIsKnown) {
  LaunchTwo(true);
  Moves(0, 136);
  Moves(0, 137);
  EXPECT_EQ(EndOf(0, SIGSEGV).last_step(), 137);
  EXPECT_EQ(EndOf(1, SIGKILL).last_step(), 0);
}

TEST_F(SupervisorTest, WorkerThatDidNotRunItselfBlamesNobody) {
  LaunchTwo(true);
  for (int i = 1; i <= 30; ++i) {
    At(milliseconds(i * 1000));
    Moves(0, i);
    Moves(1, i);
  }
  EXPECT_THAT(At(milliseconds(100'000)), IsEmpty()) << "70 s in one leap: it was stopped, not they";
  std::vector<std::string> said;
  for (int ms = 101'000; said.empty() && ms < 120'000; ms += 1000) said = At(milliseconds(ms));
  EXPECT_THAT(said, ElementsAre("stacks 0", "abort 0", "abort 1")) << "from then on it counts";
  EXPECT_EQ(now_, begin_ + milliseconds(110'000));
}

TEST_F(SupervisorTest, RankThatIsBeingStoppedIsNotCalledHung) {
  LaunchTwo(true);
  for (int i = 1; i <= 30; ++i) {
    At(milliseconds(i * 1000));
    Moves(0, i);
    Moves(1, i);
  }
  Stop(120);
  for (int ms = 31'000; ms < 100'000; ms += 1000) EXPECT_THAT(At(milliseconds(ms)), IsEmpty()) << ms;
}

TEST_F(SupervisorTest, RankThatWaitsForTheCoordinatorToCommitWhatItSaidIsNotCalledHung) {
  LaunchTwo(true);
  At(milliseconds(0));
  Leaves(0);
  Leaves(1);
  EXPECT_THAT(Within(std::chrono::minutes(25)), IsEmpty()) << "nobody acknowledged that they were started";
}

TEST_F(SupervisorTest, RankThatSaidHowItEndsAndDoesNotIsKilledAndItsWordsCount) {
  LaunchTwo(true);
  At(milliseconds(0));
  for (const int rank : {0, 1}) {
    Ack(rank, 1);
    Leaves(rank);
    SaysLast(rank, v1::EXIT_REASON_COMPLETED, "finished 30 steps");
  }
  EXPECT_THAT(Within(milliseconds(176'000)), IsEmpty());
  EXPECT_EQ(EndOf(1, 0).message(), "finished 30 steps");
  EXPECT_THAT(Within(milliseconds(4000)), ElementsAre("stacks 0", "abort 0"));
  EXPECT_THAT(Within(milliseconds(4000)), ElementsAre("SIGKILL 100"));
  EXPECT_THAT(Words(supervisor_.OnExited(now_, {kJob, 1, 0}, SIGKILL)), IsEmpty());
  const v1::Exited end = EndOf(0, SIGKILL);
  EXPECT_EQ(end.reason(), v1::EXIT_REASON_COMPLETED);
  EXPECT_EQ(end.message(), "finished 30 steps; its process did not end by itself and was killed");
}

TEST_F(SupervisorTest, PeersOfARankThatHasDoneItsPartAreLeftAloneWhenItDoesNotEnd) {
  LaunchTwo(true);
  At(milliseconds(0));
  Ack(0, 1);
  Leaves(0);
  SaysLast(0, v1::EXIT_REASON_COMPLETED, "finished 30 steps");
  Leaves(1);  // and waits for the coordinator
  EXPECT_THAT(Within(milliseconds(180'000)), ElementsAre("stacks 0", "abort 0"));
  EXPECT_THAT(Words(supervisor_.OnExited(now_, {kJob, 1, 0}, SIGKILL)), IsEmpty());
}

TEST_F(SupervisorTest, RankThatHangsWhileLeavingWithoutAWordIsNamed) {
  LaunchTwo(true);
  At(milliseconds(0));
  for (const int rank : {0, 1}) Ack(rank, 1);
  Leaves(0);
  Leaves(1);
  EXPECT_THAT(Within(milliseconds(180'000)), ElementsAre("stacks 0", "abort 0", "abort 1"));
  SaysLast(0, v1::EXIT_REASON_COLLECTIVE, "a peer is gone");  // as it was told to go
  const v1::Exited end = EndOf(0, SIGKILL);
  EXPECT_EQ(end.reason(), v1::EXIT_REASON_HUNG);
  EXPECT_EQ(end.message(), "no progress for 180 s after step 30, in its leaving (limit 180 s); it has gone silent");
}

// Ranks 0 and 1 of a worker before this one; the coordinator has 7 reports of rank 0 and has given up rank 1.
TEST_F(SupervisorTest, AdoptedRanksReportOnFromTheCursorOrAreEnded) {
  supervisor_ = Supervisor({"here", "boot", "build", "/artifacts", 4, 1, {}, {{"images", "/data"}}, {}});
  v1::Launch launch;
  launch.set_job_id(kJob);
  launch.mutable_spec()->mutable_data()->set_root("images");
  EXPECT_TRUE(supervisor_.CanHold(launch));
  for (const int rank : {0, 1}) supervisor_.Adopt({kJob, 1, rank}, launch, rank, 100 + rank, "secret");
  EXPECT_EQ(supervisor_.MakeRegister(now_).held_size(), 2);
  EXPECT_EQ(supervisor_.MakeRegister(now_).incarnation(), 0) << "a new process";
  // It ended before anybody was told.
  supervisor_.OnExited(now_, {kJob, 1, 0}, kExit10);
  EXPECT_THAT(Words(supervisor_.OnTime(now_)), ElementsAre("clear 0"));
  supervisor_.OnStream(true);
  v1::ConnectResponse message;
  v1::HeldRank& kept = *message.mutable_welcome()->add_keep();
  kept.set_job_id(kJob);
  kept.set_attempt(1);
  v1::ReportAck& cursor = *message.mutable_welcome()->add_cursors();
  cursor.set_job_id(kJob);
  cursor.set_attempt(1);
  cursor.set_sequence(7);
  std::vector<std::int64_t> sequences;
  for (int i = 0; i < 2; ++i) {  // also when it is welcomed again
    for (const Effect& effect : supervisor_.OnMessage(now_, message)) {
      if (const auto* tell = std::get_if<Tell>(&effect)) sequences.push_back(tell->message.report().sequence());
    }
  }
  EXPECT_THAT(sequences, ElementsAre(8, 8));
  EXPECT_THAT(Words(supervisor_.OnTime(now_)), ElementsAre("SIGKILL 101"));
  launch.mutable_spec()->mutable_data()->set_root("gone");
  EXPECT_FALSE(supervisor_.CanHold(launch));
}

TEST_F(SupervisorTest, EndIsReportedOnceItsLastWordsCannotComeAnyMore) {
  LaunchTwo(true);
  supervisor_.OnExited(now_, {kJob, 1, 0}, kExit10);
  EXPECT_THAT(At(milliseconds(299)), IsEmpty());
  EXPECT_THAT(At(milliseconds(300)), ElementsAre("clear 0", "report 0 exited"));
  supervisor_.OnExited(now_, {kJob, 1, 1}, kExit10);
  supervisor_.OnRankStreamEnd({kJob, 1, 1});
  EXPECT_EQ(Next(), milliseconds(0)) << "due at once";
  EXPECT_THAT(At(milliseconds(301)), ElementsAre("clear 1", "report 1 exited"));
  EXPECT_THAT(At(milliseconds(10'000)), IsEmpty());
  EXPECT_FALSE(supervisor_.HasProcesses());
  EXPECT_FALSE(supervisor_.empty()) << "nobody acknowledged their ends";
}

TEST_F(SupervisorTest, SlotIsRefusedUntilItsProcessHasEnded) {
  LaunchTwo(true);
  v1::ConnectResponse message;
  v1::Prepare& prepare = *message.mutable_prepare();
  prepare.set_job_id("other");
  prepare.set_data_root("images");
  prepare.add_ranks()->set_slot(0);
  EXPECT_THAT(Hear(message), ElementsAre("refuse: CPU slot 0 still holds job job attempt 1 rank 0"));
  supervisor_.OnExited(now_, {kJob, 1, 0}, kExit10);
  EXPECT_THAT(Hear(message), ElementsAre("confirm"));
}

TEST_F(SupervisorTest, LeaseCountsFromWhenTheAnsweredMessageWasSentAndNothingElseRenewsIt) {
  const struct {
    const char* rule;
    int sent_ms, answered_ms, launched_ms;  // sent 0: no heartbeat
    bool starts;
  } rows[] = {
      {"15 s from when Register was sent", 0, 0, 14'999, true},
      {"and not longer", 0, 0, 15'000, false},
      {"15 s from when the heartbeat was sent", 10'000, 24'000, 24'999, true},
      {"not from when its answer was read", 10'000, 24'000, 25'000, false},
      {"also one that had lapsed meanwhile", 10'000, 20'000, 21'000, true},
      {"an answer that is too old renews nothing", 1'000, 60'000, 60'001, false},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.rule);
    now_ = begin_;
    Fresh();
    if (row.sent_ms > 0) {
      const std::int64_t sequence = supervisor_.MakeHeartbeat(begin_ + milliseconds(row.sent_ms)).sequence();
      supervisor_.MakeHeartbeat(begin_ + milliseconds(row.sent_ms + 2000));  // not answered
      now_ = begin_ + milliseconds(row.answered_ms);
      Answer(sequence);
      Stop(10);
    }
    now_ = begin_ + milliseconds(row.launched_ms);
    const std::vector<std::string> started{"start 0", "start 1"}, not_started{"rejoin"};
    EXPECT_EQ(Hear(LaunchOfTwo()), row.starts ? started : not_started);
  }
}

TEST_F(SupervisorTest, LeaseStretchesWithTheHeartbeats) {
  Fresh(10'000);
  now_ = begin_ + milliseconds(74'999);
  EXPECT_THAT(Hear(LaunchOfTwo()), ElementsAre("start 0", "start 1"));
  now_ = begin_;
  Fresh(10'000);
  Answer(supervisor_.MakeHeartbeat(now_).sequence(), 2000);
  now_ = begin_ + milliseconds(15'000);
  EXPECT_THAT(Hear(LaunchOfTwo()), ElementsAre("rejoin"));
}

TEST_F(SupervisorTest, WithoutItsLeaseAWorkerStartsNothingUntilItHasRegisteredAgain) {
  now_ = begin_ + std::chrono::minutes(3);  // frozen; what follows lay in its socket
  EXPECT_THAT(Hear(LaunchOfTwo()), ElementsAre("rejoin"));
  v1::ConnectResponse prepare;
  prepare.mutable_prepare()->set_data_root("images");
  EXPECT_THAT(Hear(prepare), IsEmpty()) << "neither confirmed nor refused, and said once that it wants to register";
  EXPECT_TRUE(supervisor_.empty());
  Register();
  EXPECT_THAT(Hear(prepare), ElementsAre("confirm"));
  LaunchTwo(true);
}

TEST_F(SupervisorTest, RanksThatRunAreNotTouchedByALapsedLease) {
  LaunchTwo(true);
  now_ = begin_ + milliseconds(20'000);
  v1::ConnectResponse other = LaunchOfTwo();
  other.mutable_launch()->set_job_id("other");
  EXPECT_THAT(Hear(other), ElementsAre("rejoin"));
  EXPECT_THAT(At(milliseconds(25'000)), IsEmpty());
  EXPECT_THAT(Stop(100), ElementsAre("stop 0", "stop 1")) << "to end needs no lease";
}

TEST_F(SupervisorTest, RanksWithoutACoordinatorForHalfAnHourAreAskedToStopAndTheirEndsKept) {
  LaunchTwo(true);
  supervisor_.OnStream(false);
  EXPECT_EQ(supervisor_.MakeHeartbeat(now_).sequence(), 1);  // on its way when the stream broke
  for (int ms = 0; ms < 1'800'000; ms += 4000) {
    EXPECT_THAT(At(milliseconds(ms)), IsEmpty()) << ms;
    for (const int rank : {0, 1}) Moves(rank, ms);
  }
  EXPECT_EQ(Next(), std::chrono::minutes(30));
  Effects effects = supervisor_.OnTime(now_ = begin_ + std::chrono::minutes(30));
  EXPECT_THAT(Words(effects), ElementsAre("stop 0", "stop 1"));
  for (const Effect& effect : effects) {
    const auto* say = std::get_if<Say>(&effect);
    if (say == nullptr) continue;
    EXPECT_EQ(say->message.command().cause(), "no coordinator for 30 min");
    EXPECT_TRUE(say->message.command().nobody_confirms());
  }
  EXPECT_EQ(Next(), std::chrono::minutes(30) + milliseconds(80'000))
      << "SIGTERM 40 s before the grace of 120 s is over";
  SaysLast(0, v1::EXIT_REASON_STOPPED, "stopped after step 30");
  EndOf(0, kExit10);
  EndOf(1, kExit10);
  v1::ConnectResponse message;
  for (const int rank : {0, 1}) {
    v1::HeldRank& held = *message.mutable_welcome()->add_keep();
    held.set_job_id(kJob);
    held.set_attempt(1);
    held.set_rank(rank);
  }
  EXPECT_EQ(supervisor_.MakeRegister(now_).held_size(), 2);
  supervisor_.OnStream(true);
  effects = supervisor_.OnMessage(now_, message);
  EXPECT_THAT(Words(effects),
              ElementsAre("report 0 spawned", "report 0 exited", "report 1 spawned", "report 1 exited"));
  EXPECT_EQ(std::get<Tell>(effects[1]).message.report().exited().reason(), v1::EXIT_REASON_STOPPED);
}

TEST_F(SupervisorTest, WhoWaitsForTheCoordinatorAlreadyIsNoOrphanAndEveryAnswerStartsTheGraceAnew) {
  LaunchTwo(true);
  for (int ms = 0; ms <= 4'000'000; ms += 4000) {
    if (ms <= 1'000'000) Answer(supervisor_.MakeHeartbeat(begin_ + milliseconds(ms)).sequence());
    const auto done = At(milliseconds(ms));
    Leaves(0);
    Moves(1, ms);
    if (ms == 2'800'000) {
      EXPECT_THAT(done, ElementsAre("stop 1"));
      return;
    }
    ASSERT_THAT(done, IsEmpty()) << ms;
  }
  FAIL() << "rank 1 was never asked to stop";
}

TEST_F(SupervisorTest, TimeInWhichTheWorkerDidNotRunMakesNoOrphan) {
  LaunchTwo(true);
  At(milliseconds(0));
  EXPECT_THAT(At(std::chrono::minutes(31)), IsEmpty());
  Moves(0, 1);
  Moves(1, 1);
  EXPECT_EQ(supervisor_.NextTimer() <= now_ + std::chrono::minutes(30), true);
}

TEST_F(SupervisorTest, NothingIsToldWithoutAStreamAndEverythingKeptAfterWelcome) {
  supervisor_.OnStream(false);
  LaunchTwo(true);
  supervisor_.OnExited(now_, {kJob, 1, 0}, kExit10);
  EXPECT_THAT(At(milliseconds(300)), ElementsAre("clear 0"));
  supervisor_.OnStream(true);
  EXPECT_THAT(Abort(), ElementsAre("abort 1")) << "not welcomed yet: commands count, nothing is told";
  v1::ConnectResponse message;
  for (const int rank : {0, 1}) {
    v1::HeldRank& held = *message.mutable_welcome()->add_keep();
    held.set_job_id(kJob);
    held.set_attempt(1);
    held.set_rank(rank);
  }
  EXPECT_THAT(Hear(message), ElementsAre("report 0 spawned", "report 0 exited", "report 1 spawned"));
}

}  // namespace
}  // namespace vicreg::worker
