// Goal: a rank's reports survive any loss of its worker, never hold up training, and a rank does not outlive its worker
// for ever. Method: the real line against a worker that the test runs, breaks and starts again on the same socket.

#include "worker/rank/link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "tests/worker/fake_worker.h"

namespace vicreg::rank {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr milliseconds kNever = std::chrono::hours(1);

// What the line asked of the rank.
class Commands {
 public:
  Link::OnCommand Note() {
    return [this](const v1::Command& command) {
      const std::lock_guard lock(mutex_);
      commands_.push_back(command);
      changed_.notify_all();
    };
  }
  std::vector<v1::Command> Wait(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, seconds(20), [&] { return commands_.size() >= count; });
    return commands_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::Command> commands_;
};

class LinkTest : public testing::Test {
 protected:
  LinkTest() {
    std::string name = "/tmp/vicreg-link-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~LinkTest() override {
    worker_.reset();
    // Ends the line's thread; the line itself is made for a process that ends by _exit, and stays.
    if (link_ != nullptr) link_->Leave({});
    std::filesystem::remove_all(folder_);
  }

  void StartWorker(FakeWorker::Options options = {}) {
    worker_.reset();
    worker_ = std::make_unique<FakeWorker>(folder_ + "/s", std::move(options));
  }
  void StartLink(milliseconds orphan_grace = kNever) {
    v1::Hello hello;
    hello.set_job_id("job");
    link_ = new Link(folder_ + "/s", hello, commands_->Note(), orphan_grace);
  }
  void SayRows(std::int64_t first, std::int64_t last) {
    for (std::int64_t step = first; step <= last; ++step) {
      v1::RankSays says;
      says.mutable_rows()->add_rows()->set_step(step);
      link_->Say(std::move(says));
    }
  }
  // Steps the worker heard, once there are `count`.
  std::vector<std::int64_t> Steps(std::size_t count) {
    EXPECT_TRUE(worker_->Wait([&](const auto& said) { return said.size() >= count; }));
    std::vector<std::int64_t> steps;
    for (const v1::RankSays& says : worker_->Said()) {
      EXPECT_EQ(says.sequence(), says.rows().rows(0).step());
      steps.push_back(says.sequence());
    }
    return steps;
  }

  std::string folder_;
  std::unique_ptr<FakeWorker> worker_;
  Commands* const commands_ = new Commands();  // stays with the line
  Link* link_ = nullptr;
};

TEST_F(LinkTest, AssignmentComesFromTheWorkerWheneverItIsThere) {
  StartLink();
  FakeWorker::Options options;
  options.assignment.set_world_size(7);
  StartWorker(options);
  const auto assignment = link_->WaitForAssignment(seconds(20));
  ASSERT_TRUE(assignment.ok()) << assignment.status();
  EXPECT_EQ(assignment->world_size(), 7);
}

TEST_F(LinkTest, RankTheWorkerDoesNotKnowIsFenced) {
  StartWorker({.deny = true});
  StartLink();
  EXPECT_EQ(link_->WaitForAssignment(seconds(20)).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(commands_->Wait(1).at(0).kind(), v1::Command::KIND_FENCE);
}

TEST_F(LinkTest, WhatIsNotAcknowledgedIsSaidAgainInOrderToTheNextWorker) {
  StartWorker();
  StartLink();
  SayRows(1, 4);
  EXPECT_THAT(Steps(4), ElementsAre(1, 2, 3, 4));
  worker_->Ack(2);
  worker_->Command(v1::Command::KIND_STOP);  // heard after the acknowledgement
  ASSERT_EQ(commands_->Wait(1).size(), 1u);
  worker_.reset();
  SayRows(5, 6);
  StartWorker();
  EXPECT_THAT(Steps(4), ElementsAre(3, 4, 5, 6));
  SayRows(7, 7);
  EXPECT_THAT(Steps(5), ElementsAre(3, 4, 5, 6, 7));
}

TEST_F(LinkTest, WaitsUntilAllIsAcknowledged) {
  StartWorker();
  StartLink();
  SayRows(1, 3);
  Steps(3);
  worker_->Ack(2);
  EXPECT_FALSE(link_->WaitForAcks(seconds(0)));
  worker_->Ack(3);
  EXPECT_TRUE(link_->WaitForAcks(seconds(20)));
}

TEST_F(LinkTest, WorkerThatDoesNotReadHoldsUpNobodyAndLosesNothing) {
  constexpr std::int64_t kRows = 50'000;  // far more than a socket holds
  StartWorker({.read = false});
  StartLink();
  ASSERT_TRUE(link_->WaitForAssignment(seconds(20)).ok());
  SayRows(1, kRows);
  worker_->Read();
  std::vector<std::int64_t> expected(kRows);
  std::iota(expected.begin(), expected.end(), 1);
  EXPECT_THAT(Steps(kRows), ElementsAreArray(expected));
  worker_->Ack(kRows);
  EXPECT_TRUE(link_->WaitForAcks(seconds(20)));
}

TEST_F(LinkTest, RankWithoutAWorkerForTheGraceIsAskedToStopOnceAndWaitsForNobody) {
  constexpr milliseconds kGrace{600};
  StartWorker({.acknowledge = true});
  StartLink(kGrace);
  // While the worker is there no time counts.
  const auto begin = Clock::now();
  for (std::int64_t step = 1; Clock::now() - begin < 2 * kGrace; ++step) {
    SayRows(step, step);
    ASSERT_TRUE(link_->WaitForAcks(seconds(20)));
  }
  const auto cut = Clock::now();
  worker_.reset();
  const auto commands = commands_->Wait(1);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_GE(Clock::now() - cut, kGrace);
  EXPECT_EQ(commands[0].kind(), v1::Command::KIND_STOP);
  EXPECT_THAT(commands[0].cause(), HasSubstr("no worker for"));
  SayRows(1'000'000, 1'000'000);
  const auto wait = Clock::now();
  EXPECT_FALSE(link_->WaitForAcks(seconds(60)));
  EXPECT_LT(Clock::now() - wait, seconds(30));
  EXPECT_EQ(commands_->Wait(1).size(), 1u);
}

TEST_F(LinkTest, RankThatStopsWithoutACoordinatorWaitsUntilItsWorkerHasAllItSaid) {
  StartWorker();
  StartLink();
  SayRows(1, 3);
  Steps(3);
  EXPECT_FALSE(link_->WaitForAcks(seconds(0)));
  EXPECT_FALSE(link_->HandedOver()) << "a coordinator will confirm them";
  worker_->Command(v1::Command::KIND_STOP, true);
  ASSERT_EQ(commands_->Wait(1).size(), 1u);
  SayRows(4, 5);
  const auto wait = Clock::now();
  EXPECT_FALSE(link_->WaitForAcks(seconds(60))) << "nobody confirmed them";
  EXPECT_LT(Clock::now() - wait, seconds(30));
  EXPECT_TRUE(link_->HandedOver());
  EXPECT_THAT(Steps(5), ElementsAre(1, 2, 3, 4, 5));
  // With its worker gone nobody has what it says now.
  worker_.reset();
  SayRows(6, 6);
  EXPECT_FALSE(link_->HandedOver());
}

TEST_F(LinkTest, MoreUnconfirmedReportsThanTheBoundAskForAStopOnceAndAreKept) {
  StartLink();
  const std::string large(1 << 20, 'p');
  const std::size_t count = Link::kMostUnackedBytes / large.size() + 2;
  for (std::size_t i = 0; i < count; ++i) {
    v1::RankSays says;
    says.mutable_exported()->set_path(large);
    link_->Say(std::move(says));
    if (i + 3 < count) {
      ASSERT_EQ(commands_->Wait(0).size(), 0u) << i;
    }
  }
  const auto commands = commands_->Wait(1);
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].kind(), v1::Command::KIND_STOP);
  EXPECT_THAT(commands[0].cause(), HasSubstr("has not confirmed"));
  StartWorker({.acknowledge = true});
  EXPECT_TRUE(link_->WaitForAcks(seconds(60)));
  EXPECT_EQ(worker_->Said().size(), count);
}

}  // namespace
}  // namespace vicreg::rank
