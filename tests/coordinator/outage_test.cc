// Goal: while the store cannot be written nothing is promised and no worker is blamed; afterwards all goes on as
// before. Method: the real shell over a real store whose writer is refused, with a clock that moves only when told to.
#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

#include "coordinator/service/coordinator.h"
#include "tests/coordinator/connections.h"
#include "tests/testing/fake_clock.h"

namespace vicreg::service {
namespace {

using std::chrono::seconds;

class Outage : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "outage_test_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    auto store = store::SqliteStore::Open(folder_);
    ASSERT_TRUE(store.ok()) << store.status();
    auto history = telemetry::History::Open(folder_);
    ASSERT_TRUE(history.ok()) << history.status();
    coordinator_ = std::make_unique<Coordinator>(*std::move(store), *std::move(history), clock_, folder_);
    ASSERT_TRUE(coordinator_->Start([this] { ++deposed_; }).ok());
  }
  void TearDown() override {
    coordinator_.reset();
    std::filesystem::remove_all(folder_);
  }

  absl::Status Do(Coordinator::Decide decide) {
    std::promise<absl::Status> done;
    coordinator_->Post(std::move(decide), [&](absl::Status status) { done.set_value(std::move(status)); });
    return done.get_future().get();
  }
  absl::Status Register() {
    core::Registration registration;
    registration.node.name = "n";
    registration.node.boot_id = "b";
    registration.node.cpu_slots = 1;
    registration.node.data_roots = {"images"};
    RETURN_IF_ERROR(Do([=](core::Transaction& tx) { return core::Register(tx, registration).status(); }));
    return Do([](core::Transaction& tx) { return core::OnProbed(tx, {"n", 1, 1, ""}), absl::OkStatus(); });
  }
  absl::Status Heartbeat() {
    return Do([](core::Transaction& tx) { return core::Heartbeat(tx, "n", 1); });
  }
  static void Writable(bool yes) { store::Connections::Run(yes ? "PRAGMA query_only=0" : "PRAGMA query_only=1"); }
  core::NodeState State() { return coordinator_->Nodes().at(0).state; }
  template <typename F>
  bool Until(F condition) {
    for (int i = 0; i < 500 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return condition();
  }

  std::atomic<int> deposed_ = 0;
  testing::FakeClock clock_;
  store::Connections connections_;
  std::string folder_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(Outage, NobodyIsLostForASilenceThatWasOurs) {
  ASSERT_TRUE(Register().ok());
  for (int i = 0; i < 40; ++i) {  // well past the grace after a start
    clock_.Advance(seconds(2));
    ASSERT_TRUE(Heartbeat().ok());
  }
  Writable(false);
  EXPECT_FALSE(Register().ok());
  EXPECT_FALSE(coordinator_->Ready().ok());
  // The worker's reports fail and it cannot register anew for half a minute.
  for (int i = 0; i < 15; ++i) {
    clock_.Advance(seconds(2));
    EXPECT_FALSE(Register().ok());
  }
  Writable(true);
  ASSERT_TRUE(Until([&] {
    clock_.Advance(seconds(1));
    return coordinator_->Ready().ok();
  }));
  for (int i = 0; i < 5; ++i) {  // every batch looks at the time
    clock_.Advance(seconds(1));
    ASSERT_TRUE(Do([](core::Transaction&) { return absl::OkStatus(); }).ok());
  }
  EXPECT_EQ(State(), core::NodeState::kSuspect);
  EXPECT_TRUE(Heartbeat().ok());
  EXPECT_EQ(State(), core::NodeState::kReady);
  // From here on silence counts again.
  for (int i = 0; i < 61; ++i) {
    clock_.Advance(seconds(1));
    ASSERT_TRUE(Do([](core::Transaction&) { return absl::OkStatus(); }).ok());
  }
  EXPECT_TRUE(Until([&] { return State() == core::NodeState::kLost; }));
}

TEST_F(Outage, PassThatCouldNotBeCommittedIsMadeAgain) {
  ASSERT_TRUE(Register().ok());
  core::Job job;
  job.id = "job";
  job.state = core::JobState::kQueued;
  // Without a wake-up, so that the one below is the only reason for a pass.
  ASSERT_TRUE(Do([&](core::Transaction& tx) {
                tx.AddJob(job).data_root = "images";
                tx.Rest();
                return absl::OkStatus();
              }).ok());
  Writable(false);
  EXPECT_FALSE(Do([](core::Transaction& tx) { return tx.Wake(), absl::OkStatus(); }).ok());
  EXPECT_TRUE(Heartbeat().ok()) << "nothing of it needs the store";
  Writable(true);
  EXPECT_TRUE(Until([&] {
    clock_.Advance(std::chrono::milliseconds(10));
    return coordinator_->FindJob("job")->state == core::JobState::kReserved;
  }));
}

TEST_F(Outage, EndsWithoutAnybodyWriting) {
  Writable(false);
  EXPECT_FALSE(Register().ok());
  EXPECT_FALSE(coordinator_->Ready().ok());
  Writable(true);
  EXPECT_TRUE(Until([&] {
    clock_.Advance(seconds(1));
    return coordinator_->Ready().ok();
  }));
}

// ---- what no outage explains ----

TEST_F(Outage, JobThatNothingIsBoundToEndIsSaidAndCounted) {
  ASSERT_TRUE(Register().ok());
  ASSERT_TRUE(Do([](core::Transaction& tx) {
                core::Job job;
                job.id = "forgotten";
                job.state = core::JobState::kStopping;
                job.reason = core::Reason::kCrash;
                job.message = "stopping";
                job.attempt = 1;
                core::Rank rank;
                rank.node = "n";
                rank.state = core::RankState::kExited;
                rank.exit_reason = core::ExitReason::kSignalled;
                job.ranks = {rank};
                tx.AddJob(job);
                return absl::OkStatus();
              }).ok());
  for (int i = 0; i < 59; ++i) {
    clock_.Advance(seconds(1));
    ASSERT_TRUE(Heartbeat().ok());
  }
  EXPECT_EQ(coordinator_->View(0).ownerless_jobs, 0) << "it may still be catching up";
  for (int i = 0; i < 31; ++i) {
    clock_.Advance(seconds(1));
    ASSERT_TRUE(Heartbeat().ok());
  }
  EXPECT_EQ(coordinator_->View(0).ownerless_jobs, 1);
}

TEST_F(Outage, CoordinatorWhoseTermIsOverEnds) {
  ASSERT_TRUE(Register().ok());
  SQLite::Database(folder_ + "/control.db", SQLite::OPEN_READWRITE).exec("UPDATE meta SET value='9' WHERE key='term'");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(absl::IsUnavailable(Register()));
  EXPECT_TRUE(Until([&] { return deposed_ == 1; }));
  EXPECT_TRUE(absl::IsAborted(coordinator_->Ready()));
  EXPECT_EQ(deposed_, 1);
}

}  // namespace
}  // namespace vicreg::service
