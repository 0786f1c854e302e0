// Goal: a copy of the store is whole at any moment, a check finds each kind of damage and nothing else, and after a
// restore nothing that ran since can change anything. Method: real files, changed by the real decisions or by hand.

#include "coordinator/store/maintenance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "common/files.h"
#include "coordinator/core/decide.h"
#include "coordinator/store/sqlite_store.h"
#include "tests/coordinator/core_cluster.h"

namespace vicreg::store {
namespace {

namespace fs = std::filesystem;
using core::CoreCluster;
using core::JobState;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::int64_t kNow = 1'700'000'000'000'000;  // 2023-11-14T22:13:20Z

class Maintenance : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "maintenance_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    // What a coordinator would have stored of a running gang, a queued job and one that has ended.
    auto store = SqliteStore::Open(folder_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_id_ = (*store)->store_id();
    CoreCluster c;
    c.JobIn(JobState::kRunning);
    const core::State before;
    core::Transaction all(before, c.options, c.clock.SteadyNow(), c.clock.WallMicros());
    for (const auto& [name2, node] : c.state.nodes) all.AddNode(node);
    for (const auto& [id, job] : c.state.jobs) {
      core::Job fresh = job;
      fresh.state = JobState::kQueued;
      fresh.ranks.clear();
      fresh.attempt = 0;
      fresh.events = 0;
      core::Job& added = all.AddJob(fresh);
      all.Move(added, JobState::kQueued, core::Reason::kNone, "submitted", "SUBMITTED", "user");
      added.attempt = job.attempt;
      added.ranks = job.ranks;
      all.Move(added, JobState::kReserved, core::Reason::kReserving, "", "RESERVED", "scheduler");
      all.Move(added, JobState::kStarting, core::Reason::kLaunching, "", "STARTING", "worker");
      all.Move(added, JobState::kRunning, core::Reason::kTraining, "", "RUNNING", "worker");
    }
    ASSERT_TRUE((*store)->Commit(all).ok());
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string file() const { return folder_ + "/control.db"; }
  void Change(const std::string& sql) {
    SQLite::Database database(file(), SQLite::OPEN_READWRITE);
    database.exec(sql);
  }
  std::vector<std::string> Problems() {
    const auto found = CheckStore(file());
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? found->problems : std::vector<std::string>{};
  }
  core::State Load() {
    auto store = SqliteStore::Open(folder_);
    EXPECT_TRUE(store.ok()) << store.status();
    new_id_ = (*store)->store_id();
    return *(*store)->Load();
  }

  std::string folder_, store_id_, new_id_;
};

TEST_F(Maintenance, SoundStoreHasNoProblems) {
  const auto found = CheckStore(file());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->problems, IsEmpty());
  EXPECT_EQ(std::tuple(found->jobs, found->live, found->events), std::tuple(1, 1, 4));
}

TEST_F(Maintenance, EachKindOfDamageIsFoundAndNamed) {
  const struct {
    const char *sql, *undo, *says;
  } rows[] = {
      {"DELETE FROM claims WHERE slot=0 AND node='a'", "INSERT INTO claims SELECT 'a','cpu',0,id,1,0 FROM jobs",
       "held, but not claimed: slot cpu 0 of a"},
      {"INSERT INTO claims VALUES('z','cpu',0,'nobody',1,0)", "DELETE FROM claims WHERE node='z'",
       "claimed, but by no gang: slot cpu 0 of z"},
      {"UPDATE events SET job_seq=9 WHERE job_seq=2", "UPDATE events SET job_seq=2 WHERE job_seq=9",
       "event 9 where 2 belongs"},
      {"UPDATE events SET kind='PAUSED' WHERE kind='RUNNING'", "UPDATE events SET kind='RUNNING' WHERE kind='PAUSED'",
       "is RUNNING, its events end in PAUSED"},
      {"UPDATE events SET kind='FAILED' WHERE kind='STARTING'", "UPDATE events SET kind='STARTING' WHERE kind='FAILED'",
       "RUNNING after FAILED, which is for good"},
      {"UPDATE events SET attempt=5 WHERE job_seq=3", "UPDATE events SET attempt=1 WHERE job_seq=3",
       "attempt fell from 5 to 1 at event 4"},
      {"INSERT INTO attempts SELECT id,7,0,2,1 FROM jobs", "DELETE FROM attempts WHERE number=7",
       "attempt 7 of job job began, but its record says 1"},
      {"INSERT INTO requests VALUES('r','s','nobody')", "DELETE FROM requests",
       "request r was answered with job nobody, which is not there"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.sql);
    Change(row.sql);
    EXPECT_THAT(Problems(), ::testing::Contains(HasSubstr(row.says)));
    Change(row.undo);
    EXPECT_THAT(Problems(), IsEmpty());
  }
}

TEST_F(Maintenance, FileThatIsNoStoreIsAnErrorAndLeftAlone) {
  EXPECT_EQ(CheckStore(folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/text", "not a database, but long enough to be read as one").ok());
  EXPECT_EQ(CheckStore(folder_ + "/text").status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(Maintenance, SnapshotIsWholeWhileTheStoreIsOpenAndOnlyTheNewestAreKept) {
  const auto open = SqliteStore::Open(folder_);
  ASSERT_TRUE(open.ok());
  std::string newest;
  for (int i = 0; i < 26; ++i) {
    const auto taken = TakeSnapshot(folder_, kNow + i * std::int64_t{1'000'000});
    ASSERT_TRUE(taken.ok()) << taken.status();
    newest = taken->name;
    EXPECT_EQ(taken->bytes, static_cast<std::int64_t>(fs::file_size(folder_ + "/snapshots/" + taken->name)));
  }
  EXPECT_EQ(newest, "control-20231114T221345Z.db");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ + "/snapshots"), fs::directory_iterator()), 24);
  const auto found = CheckStore(folder_ + "/snapshots/" + newest);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->problems, IsEmpty());
  EXPECT_EQ(found->jobs, 1);
}

TEST_F(Maintenance, RestoreFencesWhatRanSinceAndQueuesGangsAgain) {
  ASSERT_TRUE(TakeSnapshot(folder_, kNow).ok());
  const std::string artifacts = folder_ + "/artifacts", snapshot = folder_ + "/snapshots/control-20231114T221320Z.db";
  const core::Job before = Load().jobs.at("job");
  // Attempts 2 to 11 began after the copy was made.
  ASSERT_TRUE(MakeFolders(artifacts + "/" + before.project + "/job/a11/step-5").ok());
  ASSERT_TRUE(MakeFolders(artifacts + "/" + before.project + "/job/a2").ok());
  ASSERT_TRUE(MakeFolders(artifacts + "/" + before.project + "/job/export").ok());
  const auto restored = RestoreSnapshot(folder_, snapshot, artifacts, kNow);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->requeued, 1);
  EXPECT_TRUE(fs::exists(restored->moved_aside + "/control.db")) << "nothing is thrown away";
  const core::State state = Load();
  EXPECT_EQ(new_id_, restored->store_id);
  EXPECT_NE(new_id_, store_id_);
  const core::Job& job = state.jobs.at("job");
  EXPECT_EQ(job.state, JobState::kQueued);
  EXPECT_THAT(job.ranks, IsEmpty());
  EXPECT_GT(job.attempt, 11);
  EXPECT_THAT(Problems(), IsEmpty());
}

TEST_F(Maintenance, RestoreRefusesADamagedSnapshotAndARunningCoordinator) {
  ASSERT_TRUE(TakeSnapshot(folder_, kNow).ok());
  const std::string snapshot = folder_ + "/snapshots/control-20231114T221320Z.db";
  {
    const auto open = SqliteStore::Open(folder_);
    ASSERT_TRUE(open.ok());
    EXPECT_EQ(RestoreSnapshot(folder_, snapshot, folder_, kNow).status().code(), absl::StatusCode::kFailedPrecondition);
  }
  {
    SQLite::Database database(snapshot, SQLite::OPEN_READWRITE);
    database.exec("DELETE FROM claims");
  }
  const auto refused = RestoreSnapshot(folder_, snapshot, folder_, kNow);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("held, but not claimed"));
  EXPECT_EQ(Load().jobs.at("job").state, JobState::kRunning) << "the store is as it was";
}

}  // namespace
}  // namespace vicreg::store
