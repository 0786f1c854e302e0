// Goal: a worker starts what it is told once, ends what must end and nothing else, and loses or doubles no report,
// whoever goes away. Method: the real agent and rank server; ranks are shell scripts that receive the real flags and
// the secret, and the test speaks for them. The coordinator is a list of what the worker sent it. Waits are for
// conditions, with deadlines far beyond what they need.

#include "worker/agent/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <numeric>

#include "common/exit_record.h"
#include "common/files.h"
#include "common/ids.h"
#include "tests/worker/fake_rank.h"
#include "worker/agent/rank_log.h"
#include "worker/agent/rank_server.h"

namespace vicreg::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr seconds kPatience{20};

// Polls, for facts that nobody announces.
template <typename F>
bool Until(F condition) {
  const auto deadline = Clock::now() + kPatience;
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

struct Id {
  std::string job;
  int attempt = 1, rank = 0;
};

// What the worker sent, per stream.
class FakeCoordinator {
 public:
  // A new stream.
  Agent::ToCoordinator Open() {
    const std::lock_guard lock(mutex_);
    const int number = ++streams_;
    return [this, number](v1::ConnectRequest message) {
      const std::lock_guard lock(mutex_);
      if (number != streams_) return;
      sent_.push_back(std::move(message));
      changed_.notify_all();
    };
  }
  void Clear() {
    const std::lock_guard lock(mutex_);
    sent_.clear();
  }
  std::vector<v1::ConnectRequest> Sent() {
    const std::lock_guard lock(mutex_);
    return sent_;
  }
  // The first message that `wanted` accepts; an empty one when none came in time.
  v1::ConnectRequest Wait(const std::function<bool(const v1::ConnectRequest&)>& wanted) {
    std::unique_lock lock(mutex_);
    v1::ConnectRequest found;
    changed_.wait_for(lock, kPatience, [&] {
      for (const v1::ConnectRequest& message : sent_) {
        if (!wanted(message)) continue;
        found = message;
        return true;
      }
      return false;
    });
    return found;
  }
  std::vector<v1::RankReport> Reports(const Id& id) {
    std::vector<v1::RankReport> reports;
    for (const v1::ConnectRequest& message : Sent()) {
      const v1::RankReport& report = message.report();
      if (message.has_report() && report.job_id() == id.job && report.attempt() == id.attempt &&
          report.rank() == id.rank)
        reports.push_back(report);
    }
    return reports;
  }
  std::vector<std::int64_t> Sequences(const Id& id) {
    std::vector<std::int64_t> sequences;
    for (const v1::RankReport& report : Reports(id)) sequences.push_back(report.sequence());
    return sequences;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int streams_ = 0;
  std::vector<v1::ConnectRequest> sent_;
};

class FakeLink : public RankLink {
 public:
  void Send(v1::AttachResponse message) override {
    const std::lock_guard lock(mutex_);
    received_.push_back(std::move(message));
  }
  void Resume() override { ++resumed; }
  std::vector<v1::AttachResponse> Received() {
    const std::lock_guard lock(mutex_);
    return received_;
  }
  std::vector<v1::Command::Kind> Commands() {
    std::vector<v1::Command::Kind> kinds;
    for (const v1::AttachResponse& message : Received()) {
      if (message.has_command()) kinds.push_back(message.command().kind());
    }
    return kinds;
  }
  std::vector<std::int64_t> Acks() {
    std::vector<std::int64_t> acks;
    for (const v1::AttachResponse& message : Received()) {
      if (message.has_ack()) acks.push_back(message.ack().sequence());
    }
    return acks;
  }
  std::atomic<int> resumed = 0;

 private:
  std::mutex mutex_;
  std::vector<v1::AttachResponse> received_;
};

// Notes its start and its secret, then does what DIR/does-RANK says, or nothing for long.
constexpr char kRankProgram[] = R"(#!/bin/sh
dir="$2"; id="$6-$8-${10}"; rank="${10}"
echo "$$" >> "$dir/starts-$id"
cat <&3 > "$dir/secret-$id.new"
mv "$dir/secret-$id.new" "$dir/secret-$id"
if [ -f "$dir/does-$rank" ]; then . "$dir/does-$rank"; fi
exec sleep 1000
)";
// Ends with the code the test writes.
constexpr char kExitsOnDemand[] = "read code < \"$dir/code-$rank\"; exit \"$code\"";
constexpr char kIgnoresTerm[] = "trap '' TERM; touch \"$dir/ready-$rank\"";
constexpr char kStopsOnTerm[] = "trap 'exit 10' TERM; touch \"$dir/ready-$rank\"; sleep 1000 & wait";

class AgentTest : public testing::Test {
 protected:
  AgentTest() {
    std::string name = "/tmp/vicreg-agent-XXXXXX";  // short: a socket's path may not exceed 107 bytes
    folder_ = mkdtemp(name.data());
    EXPECT_TRUE(MakeFolders(folder_ + "/ranks").ok() && MakeFolders(folder_ + "/logs").ok());
    EXPECT_TRUE(WriteFileAtomically(folder_ + "/rank", kRankProgram, 0700).ok());
    options_.folder = folder_;
    options_.socket_path = folder_ + "/rank.sock";
    options_.node = "here";
    options_.rank_program = folder_ + "/rank";
    options_.artifact_root = "/artifacts";
    options_.cpu_slots = 8;
    options_.threads_per_rank = 3;
    options_.data_roots = {{"images", "/data/images"}};
    agent_ = std::make_unique<Agent>(options_);
    Connect({});
  }
  ~AgentTest() override {
    server_.reset();
    for (const auto& [id, pidfd] : processes_) close(pidfd);
    // Nothing is kept: no test waits for reports that nobody will acknowledge.
    const v1::Register left = agent_->MakeRegister();
    Connect({});
    for (const v1::HeldRank& held : left.held()) {
      if (held.pid() > 1) kill(-held.pid(), SIGKILL);
    }
    agent_->StopAll(milliseconds(0));
    agent_.reset();
    std::filesystem::remove_all(folder_);
  }

  // ---- as the coordinator ----
  void Connect(const std::vector<Id>& keep) {
    agent_->MakeRegister();
    agent_->SetOutlet(coordinator_.Open());
    SendWelcome(keep);
  }
  void SendWelcome(const std::vector<Id>& keep) {
    v1::ConnectResponse message;
    v1::Welcome& welcome = *message.mutable_welcome();
    welcome.set_incarnation(5);
    for (const Id& id : keep) {
      v1::HeldRank& held = *welcome.add_keep();
      held.set_job_id(id.job);
      held.set_attempt(id.attempt);
      held.set_rank(id.rank);
    }
    agent_->OnMessage(message);
  }
  static v1::ConnectResponse MakeLaunch(const std::string& job, int attempt, const std::vector<int>& ranks,
                                        const std::string& root = "images") {
    v1::ConnectResponse message;
    v1::Launch& launch = *message.mutable_launch();
    launch.set_job_id(job);
    launch.set_attempt(attempt);
    launch.set_world_size(static_cast<int>(ranks.size()));
    launch.set_recipe_hash("abc");
    launch.mutable_spec()->set_project("vision");
    launch.mutable_spec()->mutable_data()->set_root(root);
    launch.mutable_resume()->set_step(40);
    for (const int rank : ranks) {
      v1::RankAssignment& assignment = *launch.add_ranks();
      assignment.set_rank(rank);
      assignment.set_slot(rank);
    }
    return message;
  }
  void Launch(const std::string& job, int attempt, const std::vector<int>& ranks) {
    agent_->OnMessage(MakeLaunch(job, attempt, ranks));
  }
  void Stop(const std::string& job, int attempt, double grace_seconds) {
    v1::ConnectResponse message;
    message.mutable_stop()->set_job_id(job);
    message.mutable_stop()->set_attempt(attempt);
    message.mutable_stop()->set_grace_seconds(grace_seconds);
    message.mutable_stop()->set_cause("cancelled by alice");
    agent_->OnMessage(message);
  }
  void Ack(const Id& id, std::int64_t sequence, bool fenced = false) {
    v1::ConnectResponse message;
    v1::ReportAck& ack = *message.mutable_ack();
    ack.set_job_id(id.job);
    ack.set_attempt(id.attempt);
    ack.set_rank(id.rank);
    ack.set_sequence(sequence);
    ack.set_fenced(fenced);
    agent_->OnMessage(message);
  }
  std::string Prepare(int slot, const std::string& root = "images") {
    coordinator_.Clear();
    v1::ConnectResponse message;
    v1::Prepare& prepare = *message.mutable_prepare();
    prepare.set_job_id(NewUuid());
    prepare.set_attempt(1);
    prepare.set_data_root(root);
    prepare.add_ranks()->set_slot(slot);
    agent_->OnMessage(message);
    const v1::ConnectRequest answer = coordinator_.Wait([](const auto& m) { return m.has_prepared(); });
    EXPECT_EQ(answer.prepared().job_id(), prepare.job_id());
    return answer.prepared().refusal();
  }
  v1::LogChunk ReadLog(const Id& id, std::int64_t offset) {
    coordinator_.Clear();
    v1::ConnectResponse message;
    v1::ReadLog& read = *message.mutable_read_log();
    read.set_call_id(9);
    read.set_job_id(id.job);
    read.set_attempt(id.attempt);
    read.set_rank(id.rank);
    read.set_offset(offset);
    read.set_max_bytes(1 << 16);
    agent_->OnMessage(message);
    return coordinator_.Wait([](const auto& m) { return m.has_log_chunk(); }).log_chunk();
  }
  v1::RankReport WaitForExit(const Id& id) {
    return coordinator_
        .Wait([&](const auto& m) {
          return m.report().has_exited() && m.report().job_id() == id.job && m.report().attempt() == id.attempt &&
                 m.report().rank() == id.rank;
        })
        .report();
  }
  bool Holds(const Id& id) const {
    const v1::Register message = agent_->MakeRegister();
    return std::any_of(message.held().begin(), message.held().end(), [&](const v1::HeldRank& h) {
      return h.job_id() == id.job && h.attempt() == id.attempt && h.rank() == id.rank;
    });
  }

  // ---- as a rank ----
  void Does(int rank, const std::string& script) {
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/does-" + std::to_string(rank), script).ok());
  }
  void DoesExitOnDemand(int rank) {
    ASSERT_EQ(mkfifo((folder_ + "/code-" + std::to_string(rank)).c_str(), 0600), 0);
    Does(rank, kExitsOnDemand);
  }
  void Exit(int rank, int code) {
    std::ofstream fifo(folder_ + "/code-" + std::to_string(rank));  // waits for the reader
    fifo << code << "\n";
  }
  bool IsReady(int rank) {
    return Until([&] { return std::filesystem::exists(folder_ + "/ready-" + std::to_string(rank)); });
  }
  // Of a started rank, once its process has its secret.
  v1::Hello HelloOf(const Id& id) {
    const std::string file =
        folder_ + "/secret-" + id.job + "-" + std::to_string(id.attempt) + "-" + std::to_string(id.rank);
    EXPECT_TRUE(Until([&] { return std::filesystem::exists(file); })) << file;
    v1::Hello hello;
    hello.set_job_id(id.job);
    hello.set_attempt(id.attempt);
    hello.set_rank(id.rank);
    hello.set_pid(PidOf(id));
    hello.set_secret(ReadFile(file).value_or(""));
    return hello;
  }
  int PidOf(const Id& id) const {
    const v1::Register message = agent_->MakeRegister();
    for (const v1::HeldRank& held : message.held()) {
      if (held.job_id() == id.job && held.attempt() == id.attempt && held.rank() == id.rank) return held.pid();
    }
    return 0;
  }
  // To be called while the rank lives.
  pollfd Watch(const Id& id) {
    const int pidfd = PidfdOpen(PidOf(id));
    EXPECT_GE(pidfd, 0) << "rank " << id.rank << " does not live";
    processes_.push_back({id, pidfd});
    return {pidfd, POLLIN, 0};
  }
  static bool Lives(pollfd process) { return poll(&process, 1, 0) == 0; }
  static bool EndsWithin(pollfd process, milliseconds limit) {
    return poll(&process, 1, static_cast<int>(limit.count())) == 1;
  }
  std::shared_ptr<FakeLink> Attach(const v1::Hello& hello) {
    const auto link = std::make_shared<FakeLink>();
    EXPECT_TRUE(agent_->OnHello(hello, link));
    return link;
  }
  bool SayRow(const v1::Hello& hello, std::int64_t sequence) {
    v1::RankSays says;
    says.set_sequence(sequence);
    says.mutable_rows()->add_rows()->set_step(sequence);
    return agent_->OnSays(hello, says);
  }
  void StartServer() {
    auto server = RankServer::Start(folder_ + "/rank.sock", *agent_, gate_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::string folder_;
  AgentOptions options_;
  FakeCoordinator coordinator_;
  std::unique_ptr<Agent> agent_;
  const rpc::Gate gate_{rpc::AllowLocalUser()};
  std::unique_ptr<RankServer> server_;
  std::vector<std::pair<Id, int>> processes_;
  const std::string job_ = NewUuid(), other_job_ = NewUuid();
};

// ---- starting ----

TEST_F(AgentTest, LaunchStartsEachRankOnceEvenWhenRepeated) {
  Launch(job_, 1, {0, 1});
  Launch(job_, 1, {0, 1});
  HelloOf({job_, 1, 0});
  HelloOf({job_, 1, 1});
  Launch(job_, 1, {0, 1});
  for (const int rank : {0, 1}) {
    EXPECT_THAT(coordinator_.Reports({job_, 1, rank}), SizeIs(1));
    EXPECT_EQ(*ReadFile(folder_ + "/starts-" + job_ + "-1-" + std::to_string(rank)),
              std::to_string(PidOf({job_, 1, rank})) + "\n");
    EXPECT_EQ(coordinator_.Reports({job_, 1, rank})[0].spawned().pid(), PidOf({job_, 1, rank}));
  }
}

TEST_F(AgentTest, LaunchOfTheNextAttemptStartsANewProcessBesideTheOld) {
  Launch(job_, 1, {0});
  Launch(job_, 2, {0});
  EXPECT_NE(PidOf({job_, 1, 0}), PidOf({job_, 2, 0}));
  EXPECT_NE(HelloOf({job_, 1, 0}).secret(), HelloOf({job_, 2, 0}).secret());
}

TEST_F(AgentTest, RegisterNamesWhatTheNodeOffersAndHolds) {
  Launch(job_, 3, {1});
  const v1::Register message = agent_->MakeRegister();
  EXPECT_EQ(message.node(), "here");
  EXPECT_EQ(message.incarnation(), 5);
  EXPECT_EQ(message.cpu_slots(), 8);
  EXPECT_EQ(message.boot_id(), BootId());
  EXPECT_THAT(message.data_roots(), ElementsAre("images")) << "names, not paths";
  ASSERT_EQ(message.held_size(), 1);
  EXPECT_EQ(message.held(0).job_id(), job_);
  EXPECT_EQ(message.held(0).slot(), 1);
  agent_->ForgetIncarnation();
  EXPECT_EQ(agent_->MakeRegister().incarnation(), 0);
}

TEST_F(AgentTest, LaunchWithAnUnknownDataRootFailsWithoutAProcess) {
  agent_->OnMessage(MakeLaunch(job_, 1, {0}, "nowhere"));
  const v1::RankReport report = WaitForExit({job_, 1, 0});
  EXPECT_EQ(report.exited().reason(), v1::EXIT_REASON_START_FAILED);
  EXPECT_THAT(report.exited().message(), HasSubstr("offers no data root \"nowhere\""));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/starts-" + job_ + "-1-0"));
  // Nobody can speak for a process that is not there.
  v1::Hello hello;
  hello.set_job_id(job_);
  hello.set_attempt(1);
  EXPECT_FALSE(agent_->OnHello(hello, std::make_shared<FakeLink>()));
  Ack({job_, 1, 0}, report.sequence());
  EXPECT_FALSE(Holds({job_, 1, 0}));
}

TEST_F(AgentTest, ProgramThatCannotBeStartedIsReportedAndItsSlotIsFree) {
  std::filesystem::remove(folder_ + "/rank");
  Launch(job_, 1, {0});
  EXPECT_EQ(WaitForExit({job_, 1, 0}).exited().reason(), v1::EXIT_REASON_START_FAILED);
  EXPECT_EQ(Prepare(0), "");
}

// ---- preparing ----

TEST_F(AgentTest, PrepareIsRefusedForASlotWhoseProcessStillRuns) {
  DoesExitOnDemand(0);
  EXPECT_EQ(Prepare(0), "");
  Launch(job_, 1, {0});
  EXPECT_THAT(Prepare(0), HasSubstr("slot 0 still holds job " + job_));
  EXPECT_EQ(Prepare(1), "");
  Exit(0, 0);
  WaitForExit({job_, 1, 0});
  EXPECT_EQ(Prepare(0), "") << "the slot is free before the report is committed";
}

TEST_F(AgentTest, PrepareIsRefusedForAnUnknownDataRoot) {
  EXPECT_EQ(Prepare(0, "nowhere"), "it offers no data root nowhere");
  EXPECT_EQ(Prepare(0, "images"), "");
}

// ---- a rank's line ----

TEST_F(AgentTest, RankGetsItsAssignment) {
  Launch(job_, 1, {0, 1});
  const auto link = Attach(HelloOf({job_, 1, 1}));
  ASSERT_THAT(link->Received(), SizeIs(1));
  const v1::Assignment assignment = link->Received()[0].assignment();
  EXPECT_EQ(assignment.data_root(), "/data/images");
  EXPECT_EQ(assignment.artifact_root(), "/artifacts");
  EXPECT_EQ(assignment.world_size(), 2);
  EXPECT_EQ(assignment.recipe_hash(), "abc");
  EXPECT_EQ(assignment.resume().step(), 40);
  EXPECT_EQ(assignment.threads(), 3);
  EXPECT_EQ(assignment.project(), "vision");
}

TEST_F(AgentTest, RankWithAWrongSecretPidOrAttemptIsDenied) {
  Launch(job_, 2, {0, 1});
  const v1::Hello right = HelloOf({job_, 2, 0});
  std::vector<v1::Hello> wrong(6, right);
  wrong[0].set_secret(HelloOf({job_, 2, 1}).secret());
  wrong[1].set_secret("");
  wrong[2].set_pid(right.pid() + 1);
  wrong[3].set_attempt(1);
  wrong[4].set_rank(1);
  wrong[5].set_job_id(other_job_);
  for (const v1::Hello& hello : wrong) {
    const auto link = std::make_shared<FakeLink>();
    EXPECT_FALSE(agent_->OnHello(hello, link)) << hello.DebugString();
    EXPECT_THAT(link->Received(), IsEmpty());
  }
  EXPECT_TRUE(agent_->OnHello(right, std::make_shared<FakeLink>()));
}

TEST_F(AgentTest, AcknowledgementReachesTheRankInItsOwnNumbers) {
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf({job_, 1, 0});
  const auto link = Attach(hello);
  for (int i = 1; i <= 3; ++i) SayRow(hello, i);
  EXPECT_THAT(coordinator_.Sequences({job_, 1, 0}), ElementsAre(1, 2, 3, 4)) << "first: it was started";
  Ack({job_, 1, 0}, 3);
  EXPECT_THAT(link->Acks(), ElementsAre(2));
}

TEST_F(AgentTest, WhatARankRepeatsAfterItsOwnReconnectIsNotDoubled) {
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf({job_, 1, 0});
  const auto first = Attach(hello);
  SayRow(hello, 1);
  SayRow(hello, 2);
  agent_->OnRankStreamEnd(hello, first.get());
  Ack({job_, 1, 0}, 2);
  const auto second = Attach(hello);
  EXPECT_THAT(second->Acks(), ElementsAre(1)) << "committed while it was not connected";
  for (int i = 1; i <= 3; ++i) SayRow(hello, i);
  EXPECT_THAT(coordinator_.Sequences({job_, 1, 0}), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(coordinator_.Reports({job_, 1, 0}).back().rows().rows(0).step(), 3);
}

TEST_F(AgentTest, EndOfAnOldStreamDoesNotCutTheNewOne) {
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf({job_, 1, 0});
  const auto first = Attach(hello), second = Attach(hello);
  agent_->OnRankStreamEnd(hello, first.get());
  Stop(job_, 1, 1000);
  EXPECT_THAT(second->Commands(), ElementsAre(v1::Command::KIND_STOP));
}

// ---- reports ----

TEST_F(AgentTest, ReportsAreRepeatedAfterAReconnectInOrderUntilAcknowledged) {
  const Id id{job_, 1, 0};
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf(id);
  const auto link = Attach(hello);
  for (int i = 1; i <= 3; ++i) SayRow(hello, i);
  Ack(id, 2);
  agent_->SetOutlet(nullptr);
  SayRow(hello, 4);
  SayRow(hello, 5);
  coordinator_.Clear();
  agent_->SetOutlet(coordinator_.Open());
  SayRow(hello, 6);  // before what is older has been sent
  EXPECT_THAT(coordinator_.Sequences(id), IsEmpty());
  SendWelcome({id});
  SayRow(hello, 7);
  EXPECT_THAT(coordinator_.Sequences(id), ElementsAre(3, 4, 5, 6, 7, 8));
  Ack(id, 8);
  coordinator_.Clear();
  Connect({id});
  EXPECT_THAT(coordinator_.Sequences(id), IsEmpty());
}

TEST_F(AgentTest, EndOfARankIsReportedAgainUntilItIsCommitted) {
  const Id id{job_, 1, 0};
  DoesExitOnDemand(0);
  Launch(job_, 1, {0});
  agent_->SetOutlet(nullptr);
  const pollfd process = Watch(id);
  Exit(0, 24);
  EXPECT_TRUE(EndsWithin(process, kPatience));
  for (int i = 0; i < 2; ++i) {
    coordinator_.Clear();
    Connect({id});
    EXPECT_EQ(WaitForExit(id).sequence(), 2);
    EXPECT_TRUE(Holds(id));
  }
  EXPECT_THAT(coordinator_.Sequences(id), ElementsAre(1, 2));
  Ack(id, 2);
  EXPECT_TRUE(Until([&] { return !Holds(id); }));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/ranks/" + job_ + "-a1-r0.json"));
}

TEST_F(AgentTest, FullBufferStopsReadingUntilAnAcknowledgementMakesRoom) {
  const Id id{job_, 1, 0};
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf(id);
  const auto link = Attach(hello);
  agent_->SetOutlet(nullptr);
  const auto most =
      static_cast<std::int64_t>(worker::ReportBuffer::kMostReports);  // one of them says that the rank was started
  for (std::int64_t i = 1; i < most - 1; ++i) ASSERT_TRUE(SayRow(hello, i)) << i;
  EXPECT_FALSE(SayRow(hello, most - 1)) << "kept, but read no more";
  coordinator_.Clear();
  Connect({id});
  EXPECT_EQ(link->resumed, 0);
  EXPECT_THAT(coordinator_.Reports(id), SizeIs(most));
  Ack(id, 2);
  EXPECT_EQ(link->resumed, 1);
  Ack(id, 3);
  EXPECT_EQ(link->resumed, 1) << "it reads already";
  EXPECT_TRUE(SayRow(hello, most));
}

TEST_F(AgentTest, FullBufferStillReadsTheLastWordsOfARankThatEnded) {
  const Id id{job_, 1, 0};
  DoesExitOnDemand(0);
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf(id);
  const auto link = Attach(hello);
  for (std::int64_t i = 1; SayRow(hello, i); ++i) {
  }
  Exit(0, 24);
  ASSERT_TRUE(Until([&] { return link->resumed == 1; }));
  v1::RankSays says;
  says.mutable_leaving()->set_message("loss is nan in step 7");
  EXPECT_TRUE(agent_->OnSays(hello, says));
  EXPECT_EQ(WaitForExit(id).exited().message(), "loss is nan in step 7");
}

// ---- the worker before ----

TEST_F(AgentTest, RankOfTheWorkerBeforeIsAdoptedAndItsEndReportedByWhatItLeft) {
  Launch(job_, 1, {0, 1, 2});
  const v1::Hello hello = HelloOf({job_, 1, 0});
  const int pids[] = {hello.pid(), HelloOf({job_, 1, 1}).pid(), HelloOf({job_, 1, 2}).pid()};
  agent_.reset();  // as if it were killed: its ranks live on
  agent_ = std::make_unique<Agent>(options_);
  ASSERT_TRUE(agent_->AdoptRanks().ok());
  EXPECT_EQ(agent_->MakeRegister().held_size(), 3);
  Connect({{job_, 1, 0}, {job_, 1, 1}, {job_, 1, 2}});
  EXPECT_TRUE(agent_->OnHello(hello, std::make_shared<FakeLink>())) << "the same secret";
  coordinator_.Clear();
  ASSERT_TRUE(SaveExitRecord(ExitRecordPath(folder_ + "/ranks", job_, 1, 0), {0, 0, "finished"}));
  kill(pids[0], SIGKILL);
  v1::Exited exited = WaitForExit({job_, 1, 0}).exited();
  EXPECT_EQ(exited.reason(), v1::EXIT_REASON_COMPLETED);
  EXPECT_EQ(exited.message(), "finished");
  kill(pids[1], SIGKILL);  // without a word
  exited = WaitForExit({job_, 1, 1}).exited();
  EXPECT_EQ(exited.reason(), v1::EXIT_REASON_SIGNALLED);
  EXPECT_EQ(WaitForExit({job_, 1, 2}).exited().reason(), v1::EXIT_REASON_ABORTED) << "its peer";
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/ranks"));
}

// ---- endings ----

TEST_F(AgentTest, RankDeathAbortsItsPeersWithinTwoSecondsAndNobodyElse) {
  Launch(job_, 2, {0, 1, 2});
  Launch(job_, 3, {3});
  Launch(other_job_, 2, {4});
  const auto deaf = Attach(HelloOf({job_, 2, 1})), next = Attach(HelloOf({job_, 3, 3})),
             stranger = Attach(HelloOf({other_job_, 2, 4}));
  const pollfd first = Watch({job_, 2, 0}), connected = Watch({job_, 2, 1}), unconnected = Watch({job_, 2, 2});
  const pollfd later = Watch({job_, 3, 3}), other = Watch({other_job_, 2, 4});
  const auto begin = Clock::now();
  kill(PidOf({job_, 2, 0}), SIGKILL);
  EXPECT_TRUE(EndsWithin(first, seconds(2)));
  EXPECT_TRUE(EndsWithin(connected, seconds(2)));
  EXPECT_TRUE(EndsWithin(unconnected, seconds(2)));
  EXPECT_LT(Clock::now() - begin, seconds(2));
  EXPECT_THAT(deaf->Commands(), ElementsAre(v1::Command::KIND_ABORT));
  EXPECT_THAT(deaf->Received().back().command().cause(), HasSubstr("rank 0 ended: killed by signal 9"));
  EXPECT_EQ(WaitForExit({job_, 2, 0}).exited().reason(), v1::EXIT_REASON_SIGNALLED);
  // The worker's own signal is not what ended the attempt.
  for (const int rank : {1, 2}) EXPECT_EQ(WaitForExit({job_, 2, rank}).exited().reason(), v1::EXIT_REASON_ABORTED);
  EXPECT_TRUE(Lives(later) && Lives(other));
  EXPECT_THAT(next->Commands(), IsEmpty());
  EXPECT_THAT(stranger->Commands(), IsEmpty());
}

TEST_F(AgentTest, RankThatEndsWellSparesItsPeers) {
  for (const int code : {0, 10, 11}) {
    SCOPED_TRACE(code);
    const std::string job = NewUuid();
    std::filesystem::remove(folder_ + "/code-0");
    DoesExitOnDemand(0);
    Launch(job, 1, {0, 1});
    const auto peer = Attach(HelloOf({job, 1, 1}));
    Exit(0, code);
    EXPECT_EQ(WaitForExit({job, 1, 0}).exited().code(), code);
    // Peers are told before the end is reported, and in order.
    EXPECT_THAT(peer->Commands(), IsEmpty());
  }
}

TEST_F(AgentTest, ExitReasonIsTheCodesAndTheWordsAreTheRanks) {
  for (const bool spoke : {false, true}) {
    const std::string job = NewUuid();
    std::filesystem::remove(folder_ + "/code-0");
    DoesExitOnDemand(0);
    Launch(job, 1, {0});
    const v1::Hello hello = HelloOf({job, 1, 0});
    const auto link = Attach(hello);
    v1::RankSays says;
    says.mutable_leaving()->set_message("step 7: loss is nan");
    says.mutable_leaving()->set_nonfinite_step(7);
    if (spoke) agent_->OnSays(hello, says);
    agent_->OnRankStreamEnd(hello, link.get());
    Exit(0, 24);
    const v1::Exited exited = WaitForExit({job, 1, 0}).exited();
    EXPECT_EQ(exited.reason(), v1::EXIT_REASON_NUMERIC);
    EXPECT_EQ(exited.code(), 24);
    EXPECT_EQ(exited.message(), spoke ? "step 7: loss is nan" : "exit code 24");
    EXPECT_EQ(exited.nonfinite_step(), spoke ? 7 : 0);
  }
}

TEST_F(AgentTest, LastWordsStillOnTheSocketAreWaitedFor) {
  const Id id{job_, 1, 0};
  DoesExitOnDemand(0);
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf(id);
  const auto link = Attach(hello);
  const pollfd process = Watch(id);
  Exit(0, 21);
  ASSERT_TRUE(EndsWithin(process, kPatience));
  v1::RankSays says;
  says.mutable_leaving()->set_message("train-images is cut");
  agent_->OnSays(hello, says);
  agent_->OnRankStreamEnd(hello, link.get());
  EXPECT_EQ(WaitForExit(id).exited().message(), "train-images is cut");
}

TEST_F(AgentTest, SignalOverridesLastWords) {
  const Id id{job_, 1, 0};
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf(id);
  Attach(hello);
  v1::RankSays says;
  says.mutable_leaving()->set_reason(v1::EXIT_REASON_COMPLETED);
  says.mutable_leaving()->set_message("done");
  agent_->OnSays(hello, says);
  kill(hello.pid(), SIGSEGV);
  const v1::Exited exited = WaitForExit(id).exited();
  EXPECT_EQ(exited.reason(), v1::EXIT_REASON_SIGNALLED);
  EXPECT_EQ(exited.code(), 128 + SIGSEGV);
  EXPECT_THAT(exited.message(), HasSubstr("killed by signal 11"));
}

TEST_F(AgentTest, WhatARankStartedEndsWithIt) {
  Does(0, "sleep 1000 & echo $! > \"$dir/child\"; touch \"$dir/ready-0\"; wait");
  Launch(job_, 1, {0});
  ASSERT_TRUE(IsReady(0));
  const int child = std::stoi(*ReadFile(folder_ + "/child"));
  pollfd watch{PidfdOpen(child), POLLIN, 0};
  ASSERT_GE(watch.fd, 0);
  kill(PidOf({job_, 1, 0}), SIGKILL);
  EXPECT_EQ(poll(&watch, 1, 20'000), 1);
  close(watch.fd);
}

TEST_F(AgentTest, FencedAcknowledgementEndsTheRankAndForgetsItsReports) {
  const Id id{job_, 1, 0};
  Launch(job_, 1, {0, 1});
  const v1::Hello hello = HelloOf(id);
  const auto link = Attach(hello), peer = Attach(HelloOf({job_, 1, 1}));
  const pollfd process = Watch(id);
  SayRow(hello, 1);
  coordinator_.Clear();
  Ack(id, 2, /*fenced=*/true);
  EXPECT_THAT(link->Commands(), ElementsAre(v1::Command::KIND_FENCE));
  EXPECT_TRUE(EndsWithin(process, seconds(2)));
  SayRow(hello, 2);
  EXPECT_TRUE(Until([&] { return !Holds(id); }));
  EXPECT_THAT(coordinator_.Reports(id), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/ranks/" + job_ + "-a1-r0.json")) << "cleared away";
}

TEST_F(AgentTest, FencingARankThatHasJustEndedStillClearsItAway) {
  const Id id{job_, 1, 0};
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf(id);
  Attach(hello);  // its last words are waited for
  const pollfd process = Watch(id);
  kill(hello.pid(), SIGKILL);
  ASSERT_TRUE(EndsWithin(process, seconds(2)));
  ASSERT_TRUE(Until([&] { return PidfdOpen(hello.pid()) < 0; })) << "reaped";
  Ack(id, 1, /*fenced=*/true);
  EXPECT_TRUE(Until([&] { return !Holds(id); }));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/ranks/" + job_ + "-a1-r0.json"));
}

TEST_F(AgentTest, RanksTheCoordinatorDoesNotKeepAreEnded) {
  const Id kept{job_, 2, 0}, older{job_, 1, 0}, other{other_job_, 2, 0};
  for (const Id& id : {kept, older, other}) Launch(id.job, id.attempt, {id.rank});
  const auto link = Attach(HelloOf(older));
  const pollfd lives = Watch(kept);
  std::vector<pollfd> ended;
  for (const Id& id : {older, other}) ended.push_back(Watch(id));
  agent_->SetOutlet(nullptr);
  coordinator_.Clear();
  Connect({kept});
  for (const pollfd& process : ended) EXPECT_TRUE(EndsWithin(process, seconds(2)));
  EXPECT_THAT(link->Commands(), ElementsAre(v1::Command::KIND_FENCE));
  EXPECT_TRUE(Until([&] { return !Holds(older) && !Holds(other); }));
  EXPECT_TRUE(Lives(lives) && Holds(kept));
  for (const Id& id : {older, other}) EXPECT_THAT(coordinator_.Reports(id), IsEmpty());
  EXPECT_THAT(coordinator_.Sequences(kept), ElementsAre(1));
}

// ---- the ladder ----

TEST_F(AgentTest, StopReachesOnlyTheRanksOfItsAttempt) {
  Launch(job_, 1, {0});
  Launch(job_, 2, {0});
  Launch(other_job_, 1, {0});
  const auto right = Attach(HelloOf({job_, 1, 0})), next = Attach(HelloOf({job_, 2, 0})),
             other = Attach(HelloOf({other_job_, 1, 0}));
  Stop(job_, 1, 1000);
  EXPECT_THAT(right->Commands(), ElementsAre(v1::Command::KIND_STOP));
  EXPECT_EQ(right->Received().back().command().cause(), "cancelled by alice");
  EXPECT_THAT(next->Commands(), IsEmpty());
  EXPECT_THAT(other->Commands(), IsEmpty());
}

TEST_F(AgentTest, RankThatConnectsAfterItWasToldToStopHearsItThen) {
  Launch(job_, 1, {0});
  const v1::Hello hello = HelloOf({job_, 1, 0});
  Stop(job_, 1, 1000);
  const auto link = Attach(hello);
  ASSERT_THAT(link->Received(), SizeIs(2));
  EXPECT_TRUE(link->Received()[0].has_assignment()) << "what a rank expects first";
  EXPECT_THAT(link->Commands(), ElementsAre(v1::Command::KIND_STOP));
}

TEST_F(AgentTest, RankThatDoesNotListenIsToldByASignalBeforeTheDeadline) {
  Does(0, kStopsOnTerm);
  Launch(job_, 1, {0});
  ASSERT_TRUE(IsReady(0));
  const pollfd process = Watch({job_, 1, 0});
  Stop(job_, 1, 30);  // shorter than the 40 s that SIGTERM comes ahead
  EXPECT_TRUE(EndsWithin(process, seconds(10)));
  EXPECT_EQ(WaitForExit({job_, 1, 0}).exited().reason(), v1::EXIT_REASON_STOPPED);
}

TEST_F(AgentTest, RankThatIgnoresStopAndSignalIsKilledAtTheDeadlineAndNotBefore) {
  Does(0, kIgnoresTerm);
  Launch(job_, 1, {0});
  ASSERT_TRUE(IsReady(0));
  const auto link = Attach(HelloOf({job_, 1, 0}));
  const pollfd process = Watch({job_, 1, 0});
  const auto begin = Clock::now();
  Stop(job_, 1, 0.5);
  EXPECT_THAT(link->Commands(), ElementsAre(v1::Command::KIND_STOP));
  EXPECT_TRUE(EndsWithin(process, seconds(5)));
  EXPECT_GE(Clock::now() - begin, milliseconds(500));
  EXPECT_EQ(WaitForExit({job_, 1, 0}).exited().code(), 128 + SIGKILL);
}

TEST_F(AgentTest, NearerDeadlineWinsAndAFartherOneDoesNotMoveIt) {
  Does(0, kIgnoresTerm);
  Launch(job_, 1, {0});
  ASSERT_TRUE(IsReady(0));
  const pollfd process = Watch({job_, 1, 0});
  Stop(job_, 1, 1000);
  Stop(job_, 1, 0.2);
  Stop(job_, 1, 1000);
  EXPECT_TRUE(EndsWithin(process, seconds(5)));
}

TEST_F(AgentTest, StopAllKillsWhatDoesNotStop) {
  Does(0, kIgnoresTerm);
  Does(1, kStopsOnTerm);
  Launch(job_, 1, {0, 1});
  ASSERT_TRUE(IsReady(0) && IsReady(1));
  const pollfd deaf = Watch({job_, 1, 0}), obedient = Watch({job_, 1, 1});
  agent_->StopAll(milliseconds(300));
  EXPECT_FALSE(Lives(deaf) || Lives(obedient)) << "StopAll returns when none is left";
  EXPECT_EQ(WaitForExit({job_, 1, 0}).exited().reason(), v1::EXIT_REASON_ABORTED);
  EXPECT_EQ(WaitForExit({job_, 1, 1}).exited().reason(), v1::EXIT_REASON_STOPPED);
}

TEST_F(AgentTest, StoppingWorkerStartsNothingMore) {
  agent_->StopAll(milliseconds(0));
  EXPECT_EQ(Prepare(0), "it is stopping");
  Launch(job_, 1, {0});
  const v1::Exited exited = WaitForExit({job_, 1, 0}).exited();
  EXPECT_EQ(exited.reason(), v1::EXIT_REASON_START_FAILED);
  EXPECT_THAT(exited.message(), HasSubstr("is stopping"));
}

// ---- rendezvous ----

TEST_F(AgentTest, RendezvousIsRelayedAndItsAnswerFindsTheRightCaller) {
  Launch(job_, 1, {0, 1});
  std::map<int, std::promise<v1::StoreReply>> answers;
  for (const int rank : {0, 1}) {
    v1::RendezvousRequest request;
    request.set_job_id(job_);
    request.set_attempt(1);
    request.set_rank(rank);
    request.set_secret(HelloOf({job_, 1, rank}).secret());
    agent_->OnRendezvous(request, [&answers, rank](const v1::StoreReply& reply) { answers[rank].set_value(reply); });
  }
  for (const int rank : {1, 0}) {
    const v1::ConnectRequest call =
        coordinator_.Wait([&](const auto& m) { return m.has_store_call() && m.store_call().rank() == rank; });
    v1::ConnectResponse reply;
    reply.mutable_store_reply()->set_call_id(call.store_call().call_id());
    reply.mutable_store_reply()->set_number(100 + rank);
    agent_->OnMessage(reply);
    agent_->OnMessage(reply);  // a second answer finds nobody
    EXPECT_EQ(answers[rank].get_future().get().number(), 100 + rank);
  }
}

TEST_F(AgentTest, RendezvousWithoutACoordinatorOrWithoutTheSecretIsRefusedAtOnce) {
  Launch(job_, 1, {0});
  v1::RendezvousRequest request;
  request.set_job_id(job_);
  request.set_attempt(1);
  request.set_secret(HelloOf({job_, 1, 0}).secret());
  std::vector<std::string> errors;
  const auto note = [&](const v1::StoreReply& reply) { errors.push_back(reply.error()); };
  agent_->OnRendezvous(request, note);
  agent_->SetOutlet(nullptr);  // the answer cannot come any more
  agent_->OnRendezvous(request, note);
  request.set_secret("guess");
  agent_->OnRendezvous(request, note);
  EXPECT_THAT(errors, ElementsAre("the coordinator is away", "the coordinator is away", "fenced"));
}

// ---- logs ----

TEST_F(AgentTest, LogIsReadByOffsetAndEndsWithItsRank) {
  const Id id{job_, 1, 0};
  ASSERT_EQ(mkfifo((folder_ + "/code-0").c_str(), 0600), 0);
  Does(0, "echo hello; echo world >&2; touch \"$dir/ready-0\"; " + std::string(kExitsOnDemand));
  Launch(job_, 1, {0});
  ASSERT_TRUE(IsReady(0));
  EXPECT_EQ(ReadLog(id, 0).data(), "hello\nworld\n");
  EXPECT_EQ(ReadLog(id, 6).data(), "world\n");
  EXPECT_EQ(ReadLog(id, 6).offset(), 6);
  EXPECT_FALSE(ReadLog(id, 12).end()) << "more may come";
  Exit(0, 0);
  WaitForExit(id);
  EXPECT_TRUE(ReadLog(id, 12).end());
  EXPECT_FALSE(ReadLog(id, 0).end());
  EXPECT_THAT(ReadLog({job_, 2, 0}, 0).error(), HasSubstr("no log of rank 0 in attempt 2"));
}

TEST_F(AgentTest, LogOfAnIdThatIsNoUuidIsRefused) {
  for (const std::string job : {"../outside", "..", "", "x", "/etc"}) {
    const std::string file = RankLogPath(folder_, job, 1, 0);
    if (job != "/etc") {
      ASSERT_TRUE(MakeFolders(file.substr(0, file.rfind('/'))).ok());
      ASSERT_TRUE(WriteFileAtomically(file, "not for you").ok());
    }
    const v1::LogChunk chunk = ReadLog({job, 1, 0}, 0);
    EXPECT_THAT(chunk.error(), HasSubstr("no log")) << job;
    EXPECT_EQ(chunk.data(), "") << job;
  }
}

TEST_F(AgentTest, LogOfARankThatWritesWithoutEndIsCutWhileItRuns) {
  const Id id{job_, 1, 0};
  Does(0, "yes 'a line of a rank that says too much' | head -c 40000000; touch \"$dir/ready-0\"");
  Launch(job_, 1, {0});
  ASSERT_TRUE(IsReady(0));
  const std::string path = RankLogPath(folder_, job_, 1, 0);
  EXPECT_TRUE(Until([&] {
    struct stat found {};
    return stat(path.c_str(), &found) == 0 && found.st_size == 40'000'000 && found.st_blocks * 512 <= kMostLogBytes;
  }));
  const v1::LogChunk cut = ReadLog(id, kLogHead);
  EXPECT_THAT(cut.data(), HasSubstr("bytes of this log were cut"));
  EXPECT_GT(cut.offset(), kLogHead);
  EXPECT_EQ(ReadLog(id, 39'999'999).data().size(), 1u);
}

// ---- over the socket ----

TEST_F(AgentTest, SocketBelongsToItsUserAndStrangersAreDenied) {
  StartServer();
  struct stat found {};
  ASSERT_EQ(stat((folder_ + "/rank.sock").c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0600u);
  Launch(job_, 1, {0});
  v1::Hello hello = HelloOf({job_, 1, 0});
  hello.set_secret("guess");
  FakeRank stranger(folder_ + "/rank.sock", hello);
  EXPECT_EQ(stranger.Close().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  v1::RendezvousRequest request;
  request.set_job_id(job_);
  request.set_attempt(1);
  request.set_secret("guess");
  grpc::ClientContext context;
  v1::RendezvousResponse response;
  EXPECT_EQ(stranger.stub().Rendezvous(&context, request, &response).error_code(), grpc::StatusCode::ABORTED);
}

TEST_F(AgentTest, StreamThatDoesNotBeginWithHelloIsRefused) {
  StartServer();
  const auto stub = v1::RankService::NewStub(
      grpc::CreateChannel("unix:" + folder_ + "/rank.sock", grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Attach(&context);
  v1::AttachRequest request;
  request.mutable_says()->mutable_stepping()->set_step(1);
  stream->Write(request);
  v1::AttachResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(AgentTest, SocketPathThatIsTooLongIsAnErrorThatSaysWhatToDo) {
  const auto server = RankServer::Start(folder_ + "/" + std::string(100, 'x'), *agent_, gate_);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(server.status().message(), HasSubstr("choose a shorter --dir"));
}

TEST_F(AgentTest, RowsSaidWhileTheCoordinatorIsAwayAllArriveInOrderThroughABoundedBuffer) {
  constexpr std::int64_t kRows = 10'000;
  const Id id{job_, 1, 0};
  StartServer();
  Launch(job_, 1, {0});
  Ack(id, 1);
  FakeRank rank(folder_ + "/rank.sock", HelloOf(id));
  ASSERT_EQ(rank.WaitForAssignment().data_root(), "/data/images");
  agent_->SetOutlet(nullptr);
  coordinator_.Clear();
  auto saying = std::async(std::launch::async, [&] {
    std::int64_t said = 0;
    while (said < kRows && rank.SayRow(said + 1)) ++said;
    return said;
  });
  // Nobody announces that the worker has stopped reading: reconnect until its buffer is full. Disconnected first, or a
  // row that came between Clear and Connect would be sent on both connections.
  ASSERT_TRUE(Until([&] {
    agent_->SetOutlet(nullptr);
    coordinator_.Clear();
    Connect({id});
    return coordinator_.Reports(id).size() >= worker::ReportBuffer::kMostReports;
  }));
  EXPECT_EQ(coordinator_.Reports(id).size(), worker::ReportBuffer::kMostReports);
  // From now on the coordinator commits what it gets.
  std::int64_t committed = 1;
  ASSERT_TRUE(Until([&] {
    const std::vector<v1::RankReport> reports = coordinator_.Reports(id);
    if (!reports.empty() && reports.back().sequence() > committed) Ack(id, committed = reports.back().sequence());
    return committed == kRows + 1;
  })) << "stuck at "
      << committed;
  EXPECT_EQ(saying.get(), kRows);
  std::vector<std::int64_t> expected(kRows), steps;
  std::iota(expected.begin(), expected.end(), 1);
  for (const v1::RankReport& report : coordinator_.Reports(id)) steps.push_back(report.rows().rows(0).step());
  EXPECT_THAT(steps, ElementsAreArray(expected));
  EXPECT_TRUE(rank.WaitForAck(kRows));
}

TEST_F(AgentTest, RankThatDiesWhileNobodyReadsItLeavesNothingBehind) {
  const Id id{job_, 1, 0};
  StartServer();
  Launch(job_, 1, {0});
  auto rank = std::make_unique<FakeRank>(folder_ + "/rank.sock", HelloOf(id));
  rank->WaitForAssignment();
  std::thread saying([&] {
    for (std::int64_t i = 1; rank->SayRow(i); ++i) {
    }
  });
  ASSERT_TRUE(Until([&] { return coordinator_.Reports(id).size() >= worker::ReportBuffer::kMostReports; }));
  kill(PidOf(id), SIGKILL);
  EXPECT_EQ(WaitForExit(id).exited().reason(), v1::EXIT_REASON_SIGNALLED);
  server_.reset();  // waits for every stream
  saying.join();
  rank.reset();
  Ack(id, 1 << 20);
  EXPECT_TRUE(Until([&] { return !Holds(id); }));
}

}  // namespace
}  // namespace vicreg::agent
