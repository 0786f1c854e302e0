// Goal: what the store said it has, it has after any restart; what it could not write never half happened; a file that
// is not its own is left alone. Method: real files in a temporary folder, changed by the real decisions. A page limit
// set on the store's own connection stands in for a full disk.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>

#include "common/files.h"
#include "coordinator/core/decide.h"
#include "coordinator/store/record.h"
#include "coordinator/store/sqlite_store.h"
#include "tests/coordinator/connections.h"
#include "tests/coordinator/core_cluster.h"

namespace vicreg::store {
namespace {

using core::CoreCluster;
using core::ExitReason;
using core::JobState;
using core::Transaction;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Store : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "store_test_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string file() const { return folder_ + "/control.db"; }
  std::unique_ptr<SqliteStore> Open() {
    auto store = SqliteStore::Open(folder_);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  core::State Load(SqliteStore& store) {
    auto state = store.Load();
    EXPECT_TRUE(state.ok()) << state.status();
    return state.ok() ? *state : core::State{};
  }
  // Another program writes to the file.
  void Change(const std::string& sql) {
    SQLite::Database database(file(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    database.exec(sql);
  }

  std::string folder_;
};

// Decides on `cluster` and commits what was decided; applied only when it was stored, as the shell does.
template <typename F>
absl::Status Commit(SqliteStore& store, CoreCluster& cluster, F decide) {
  Transaction tx(cluster.state, cluster.options, cluster.clock.SteadyNow(), cluster.clock.WallMicros());
  decide(tx);
  const absl::Status saved = store.Commit(tx);
  if (saved.ok()) tx.ApplyTo(cluster.state);
  return saved;
}

// Everything that must survive, as text.
std::string Durable(const core::State& state) {
  std::string text;
  for (const auto& [id, job] : state.jobs) text += id + " = " + JobRecord(job) + job.spec + "\n";
  for (auto [name, node] : state.nodes) {
    // Whether it is there is found out anew.
    if (node.state != core::NodeState::kLost) node.state = core::NodeState::kReady;
    node.message.clear();
    text += name + " = " + NodeRecord(node) + "\n";
  }
  for (const auto& [id, request] : state.requests) text += id + " = " + request.sha256 + " " + request.job_id + "\n";
  for (const auto& [queue_seq, id] : state.live) text += "live: " + std::to_string(queue_seq) + " " + id + "\n";
  return text + std::to_string(state.next_queue_seq) + " " + std::to_string(state.next_event_seq);
}

// Field by field, not by the record that is being tested.
bool Same(const core::Rank& a, const core::Rank& b) {
  const auto all = [](const core::Rank& r) {
    return std::tie(r.rank, r.node, r.incarnation, r.slot, r.state, r.pid, r.acked, r.exit_reason, r.exit_message,
                    r.nonfinite_step, r.last_step);
  };
  return all(a) == all(b);
}
bool Same(const core::Checkpoint& a, const core::Checkpoint& b) {
  const auto all = [](const core::Checkpoint& c) { return std::tie(c.attempt, c.step, c.path, c.hash, c.bytes); };
  return all(a) == all(b);
}
bool Same(const core::Job& a, const core::Job& b) {
  const auto all = [](const core::Job& j) {
    return std::tie(j.id, j.name, j.owner, j.spec, j.recipe_hash, j.slot_kind, j.data_root, j.world_size, j.max_charges,
                    j.checkpoint_keep, j.queue_seq, j.state, j.reason, j.message, j.attempt, j.prepared, j.destination,
                    j.charges, j.resumed_step, j.total_steps, j.substituted_step, j.export_path, j.events,
                    j.submitted_us, j.started_us, j.ended_us, j.restarts, j.project, j.queue, j.priority, j.labels,
                    j.min_world, j.max_world, j.batch_size, j.cause, j.held, j.rollback_to, j.last_slots, j.excluded,
                    j.infra_ends_us, j.one_attempt, j.deadline_us, j.lived_us, j.crash.rank, j.crash.step,
                    j.crash.times, j.bad_pairs, j.suspect_pair);
  };
  const auto equal = [](const auto& x, const auto& y) { return Same(x, y); };
  return all(a) == all(b) && a.topology == b.topology &&
         std::equal(a.ranks.begin(), a.ranks.end(), b.ranks.begin(), b.ranks.end(), equal) &&
         std::equal(a.checkpoints.begin(), a.checkpoints.end(), b.checkpoints.begin(), b.checkpoints.end(), equal);
}
bool Same(const core::Node& a, const core::Node& b) {
  const auto all = [](const core::Node& n) {
    return std::tie(n.name, n.boot_id, n.build, n.incarnation, n.state, n.cpu_slots, n.gpu_slots, n.data_roots,
                    n.message, n.last_heard_us, n.labels, n.admin, n.probe, n.problem);
  };
  return all(a) == all(b) && std::equal(a.strikes.begin(), a.strikes.end(), b.strikes.begin(), b.strikes.end(),
                                        [](const core::Strike& x, const core::Strike& y) {
                                          return x.time_us == y.time_us && x.job_id == y.job_id;
                                        });
}

absl::Status Register(SqliteStore& store, CoreCluster& cluster, const std::string& name, int slots) {
  core::Registration registration;
  registration.node.name = name;
  registration.node.boot_id = "boot";
  registration.node.build = "1.2";
  registration.node.cpu_slots = slots;
  registration.node.gpu_slots = 1;
  registration.node.data_roots = {"images", "photos"};
  RETURN_IF_ERROR(Commit(store, cluster, [&](Transaction& tx) { EXPECT_TRUE(core::Register(tx, registration).ok()); }));
  return Commit(store, cluster, [&](Transaction& tx) {
    const core::Node& node = *tx.FindNode(name);
    core::OnProbed(tx, {name, node.incarnation, node.probe, ""});
  });
}

absl::Status Submit(SqliteStore& store, CoreCluster& cluster, const std::string& id, int world,
                    std::size_t spec_bytes = 10) {
  return Commit(store, cluster, [&](Transaction& tx) {
    core::Job job = CoreCluster::Wanted(world);
    job.spec = std::string(spec_bytes, '\x01') + std::string("\0\xff", 2);  // any bytes
    EXPECT_TRUE(core::Submit(tx, job, id, "request of " + id, "sha of " + id).ok());
  });
}

absl::Status Schedule(SqliteStore& store, CoreCluster& cluster) {
  return Commit(store, cluster, [](Transaction& tx) { core::Schedule(tx); });
}

absl::Status Confirm(SqliteStore& store, CoreCluster& cluster, const std::string& id) {
  return Commit(store, cluster, [&](Transaction& tx) {
    for (const core::Rank& rank : std::vector(cluster.job(id).ranks))
      core::OnPrepared(tx, rank.node, rank.incarnation, id, cluster.job(id).attempt, "");
  });
}

absl::Status Say(SqliteStore& store, CoreCluster& cluster, const core::Report& report) {
  const core::Rank rank = cluster.job(report.job_id).ranks.at(static_cast<std::size_t>(report.rank));
  return Commit(store, cluster, [&](Transaction& tx) { core::OnReport(tx, rank.node, rank.incarnation, report); });
}

// A job that trains, with a checkpoint, one that was cancelled, one in its second attempt, one that waits.
void LiveALittle(SqliteStore& store, CoreCluster& cluster) {
  ASSERT_TRUE(Register(store, cluster, "a", 2).ok());
  ASSERT_TRUE(Register(store, cluster, "b", 3).ok());
  ASSERT_TRUE(Submit(store, cluster, "training", 2).ok());
  ASSERT_TRUE(Submit(store, cluster, "retried", 1).ok());
  ASSERT_TRUE(Submit(store, cluster, "waiting", 9).ok());
  ASSERT_TRUE(Submit(store, cluster, "cancelled", 1).ok());
  ASSERT_TRUE(Commit(store, cluster, [](Transaction& tx) {
                EXPECT_TRUE(core::Cancel(tx, {"cancelled", "local:test", 1}).ok());
              }).ok());
  ASSERT_TRUE(Schedule(store, cluster).ok());
  ASSERT_TRUE(Confirm(store, cluster, "training").ok());
  ASSERT_TRUE(Confirm(store, cluster, "retried").ok());
  core::Report spawned = cluster.Next("training", 0, core::Report::Kind::kSpawned);
  spawned.pid = 4711;
  ASSERT_TRUE(Say(store, cluster, spawned).ok());
  for (int rank : {0, 1})
    ASSERT_TRUE(Say(store, cluster, cluster.Next("training", rank, core::Report::Kind::kStepping)).ok());
  for (const std::int64_t step : {10, 20}) {
    core::Report checkpoint = cluster.Next("training", 0, core::Report::Kind::kCheckpoint);
    checkpoint.checkpoint = {1, step, "p/training/a1/step-" + std::to_string(step), "hash", 1234};
    ASSERT_TRUE(Say(store, cluster, checkpoint).ok());
  }
  core::Report exit = cluster.Next("retried", 0, core::Report::Kind::kExited);
  exit.exit_reason = ExitReason::kSignalled;
  exit.exit_message = "signal 9, \"quoted\", \n new line, ü";
  ASSERT_TRUE(Say(store, cluster, exit).ok());
  cluster.clock.Advance(seconds(2));
  ASSERT_TRUE(Commit(store, cluster, [](Transaction& tx) { core::OnTime(tx, seconds(100)), core::Schedule(tx); }).ok());
  ASSERT_EQ(cluster.job("training").state, JobState::kRunning);
  ASSERT_EQ(cluster.job("retried").attempt, 2);
  ASSERT_EQ(cluster.job("waiting").state, JobState::kQueued);
}

TEST_F(Store, WhatWasCommittedIsReadBackEqualAfterReopening) {
  CoreCluster cluster;
  {
    auto store = Open();
    cluster.state = Load(*store);
    LiveALittle(*store, cluster);
  }
  const core::State state = Load(*Open());
  EXPECT_EQ(Durable(state), Durable(cluster.state));
  for (const auto& [id, job] : cluster.state.jobs) EXPECT_TRUE(Same(state.jobs.at(id), job)) << id;
  EXPECT_EQ(state.nodes.at("a").state, core::NodeState::kJoining) << "nothing is placed before it is heard";
  EXPECT_EQ(state.jobs.at("training").checkpoints.size(), 2u);
  EXPECT_EQ(state.jobs.at("training").ranks.at(0).pid, 4711);
}

TEST(Record, EveryFieldIsReadBackEqual) {
  core::Job job;
  job.id = "id";
  job.name = "name";
  job.owner = "owner";
  job.spec = std::string("\0\xff", 2);
  job.recipe_hash = "recipe";
  job.slot_kind = "gpu";
  job.data_root = "root";
  job.min_world = job.max_world = job.world_size = 2;
  job.max_charges = 7;
  job.checkpoint_keep = 8;
  job.queue_seq = std::int64_t{1} << 60;
  job.state = JobState::kStopping;
  job.reason = core::Reason::kNodeLost;
  job.message = "quote \" backslash \\ new line \n tab \t ü";
  job.attempt = 9;
  job.ranks = {{0, "a", 3, 1, core::RankState::kStepping, 4711, 12, ExitReason::kNone, ""},
               {1, "b", 4, 2, core::RankState::kExited, 0, 13, ExitReason::kHung, "hung in step 5", 5, 4}};
  job.prepared = {"a", "b"};
  job.destination = core::Destination::kPause;
  job.cause = core::Reason::kPauseRequested;
  job.held = true;
  job.rollback_to = 100;
  job.last_slots = {{"a", 1}, {"b", 2}};
  job.excluded = {"c"};
  job.infra_ends_us = {5, 6};
  job.one_attempt = true;
  job.deadline_us = 60'000'000;
  job.lived_us = 5'000'000;
  job.crash = {1, 137, 2};
  job.bad_pairs = {{"a", "b"}};
  job.suspect_pair = {"b", "c"};
  job.project = "vision";
  job.queue = "night";
  job.priority = -5;
  job.labels = {"rack=r1"};
  job.topology = {core::Level::kRack, true};
  job.min_world = 1;
  job.max_world = 4;
  job.batch_size = 64;
  job.charges = 2;
  job.resumed_step = 100;
  job.total_steps = 1000;
  job.substituted_step = 77;
  job.checkpoints = {{2, 200, "path 2", "hash 2", 20}, {1, 100, "path 1", "hash 1", 10}};
  job.export_path = "export";
  job.events = 33;
  job.submitted_us = 1;
  job.started_us = 2;
  job.ended_us = 3;
  job.restarts = {{"crash", 2}, {"node_lost", 1}};
  EXPECT_TRUE(Same(JobFromRecord(JobRecord(job), job.spec), job));
  EXPECT_FALSE(Same(core::Job{}, job));

  // Written before there were rollbacks.
  auto older = nlohmann::json::parse(JobRecord(job));
  older.erase("substituted_step");
  for (auto& rank : older["ranks"]) {
    rank.erase("nonfinite_step");
    rank.erase("last_step");
  }
  const core::Job read = JobFromRecord(older.dump(), job.spec);
  EXPECT_EQ(read.substituted_step, 0);
  EXPECT_EQ(read.ranks.at(1).nonfinite_step, 0);
  EXPECT_EQ(read.message, job.message);
  // Written before gangs could have other sizes, and a stop another end than a cancel.
  for (const char* key :
       {"project",       "queue",       "priority",    "labels",   "topology",    "min_world",  "max_world",
        "batch_size",    "destination", "cause",       "held",     "rollback_to", "last_slots", "excluded",
        "infra_ends_us", "one_attempt", "deadline_us", "lived_us", "crash",       "bad_pairs",  "suspect_pair"})
    ASSERT_EQ(older.erase(key), 1u) << key;
  older["cancel"] = true;
  const core::Job oldest = JobFromRecord(older.dump(), job.spec);
  EXPECT_EQ(oldest.min_world, 2);
  EXPECT_EQ(oldest.max_world, 2);
  EXPECT_EQ(oldest.destination, core::Destination::kCancel);
  EXPECT_EQ(oldest.project, "default");
  EXPECT_EQ(oldest.rollback_to, -1);
  EXPECT_FALSE(oldest.one_attempt);
  EXPECT_EQ(oldest.deadline_us, 0);
  EXPECT_EQ(oldest.crash.rank, -1);
  EXPECT_EQ(oldest.message, job.message);

  core::Node node;
  node.name = "name";
  node.boot_id = "boot";
  node.build = "build";
  node.incarnation = 5;
  node.state = core::NodeState::kSuspect;
  node.cpu_slots = 6;
  node.gpu_slots = 7;
  node.data_roots = {"x", "y"};
  node.message = "message";
  node.last_heard_us = 8;
  node.labels = {"rack=r1", "gpu=h100"};
  node.admin = core::AdminState::kDraining;
  node.strikes = {{7, "job"}, {8, "other"}};
  node.probe = 9;
  node.problem = "no space";
  EXPECT_TRUE(Same(NodeFromRecord(NodeRecord(node)), node));
  auto earlier = nlohmann::json::parse(NodeRecord(node));
  for (const char* added : {"probe", "problem"}) earlier.erase(added);
  node.probe = 0;
  node.problem = "";
  EXPECT_TRUE(Same(NodeFromRecord(earlier.dump()), node)) << "as a build before these wrote it";
}

TEST_F(Store, WhatWasCommittedSurvivesAKill) {
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    CoreCluster cluster;
    auto store = SqliteStore::Open(folder_);
    if (!store.ok()) _exit(1);
    cluster.state = *(*store)->Load();
    for (int i = 0;; ++i) {
      if (!Submit(**store, cluster, "job " + std::to_string(i), 1, 2000).ok()) _exit(1);
      if (write(pipe_fds[1], &i, sizeof i) != sizeof i) _exit(1);
    }
  }
  close(pipe_fds[1]);
  int acknowledged = -1;
  while (acknowledged < 50 && read(pipe_fds[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
  }
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  // What it said in its last moments counts as well.
  while (read(pipe_fds[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) {
  }
  close(pipe_fds[0]);
  ASSERT_GE(acknowledged, 50);
  const core::State state = Load(*Open());
  for (int i = 0; i <= acknowledged; ++i) EXPECT_EQ(state.jobs.count("job " + std::to_string(i)), 1u) << i;
  EXPECT_LE(state.jobs.size(), static_cast<std::size_t>(acknowledged) + 2);
  EXPECT_EQ(state.requests.size(), state.jobs.size());
}

TEST_F(Store, TermGrowsWithEachOpeningAndTheIdStays) {
  std::string id;
  for (std::int64_t term = 1; term <= 3; ++term) {
    auto store = Open();
    EXPECT_EQ(store->term(), term);
    EXPECT_EQ(Load(*store).term, term);
    EXPECT_TRUE(term == 1 || store->store_id() == id);
    id = store->store_id();
  }
}

// The lock keeps two processes apart; where it does not (a folder that was copied while in use, a file system that
// forgets locks), the older one must not write over the newer one's.
TEST_F(Store, OlderTermStoresNothingAndLearnsThatItIsOver) {
  auto older = Open();
  CoreCluster cluster;
  ASSERT_TRUE(Commit(*older, cluster, [](Transaction& tx) {
                EXPECT_TRUE(Submit(tx, CoreCluster::Wanted(1), "first", "1", "sha").ok());
              }).ok());
  Change("UPDATE meta SET value='2' WHERE key='term'");
  const absl::Status refused = Commit(*older, cluster, [](Transaction& tx) {
    EXPECT_TRUE(Submit(tx, CoreCluster::Wanted(1), "second", "2", "sha").ok());
  });
  EXPECT_TRUE(absl::IsAborted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("term 1 is over: another coordinator began term 2"));
  EXPECT_TRUE(absl::IsAborted(older->Probe()));
  older.reset();
  EXPECT_EQ(Load(*Open()).jobs.size(), 1u);
}

TEST_F(Store, ReservationMayBeSavedAgainBeforeAnyWorkerConfirmed) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  ASSERT_TRUE(Register(*store, cluster, "a", 2).ok());
  ASSERT_TRUE(Register(*store, cluster, "b", 2).ok());
  ASSERT_TRUE(Submit(*store, cluster, "job", 4).ok());
  ASSERT_TRUE(Schedule(*store, cluster).ok());
  ASSERT_EQ(cluster.job("job").state, JobState::kReserved);
  // The worker's stream broke before it answered; it connects again.
  core::Registration again{cluster.state.nodes.at("a"), {}};
  const absl::Status saved =
      Commit(*store, cluster, [&](Transaction& tx) { EXPECT_TRUE(core::Register(tx, again).ok()); });
  EXPECT_TRUE(saved.ok()) << saved;
  ASSERT_TRUE(Confirm(*store, cluster, "job").ok());
  EXPECT_EQ(cluster.job("job").state, JobState::kStarting);
}

TEST_F(Store, EveryAttemptIsRecordedOnce) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  ASSERT_TRUE(Register(*store, cluster, "a", 1).ok());
  ASSERT_TRUE(Submit(*store, cluster, "job", 1).ok());
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_TRUE(Schedule(*store, cluster).ok());
    ASSERT_EQ(cluster.job("job").attempt, attempt);
    ASSERT_TRUE(
        Commit(*store, cluster, [&](Transaction& tx) { core::OnPrepared(tx, "a", 1, "job", attempt, "no"); }).ok());
    cluster.clock.Advance(seconds(1));
    ASSERT_TRUE(Commit(*store, cluster, [](Transaction& tx) { core::OnTime(tx, seconds(100)); }).ok());
  }
  store.reset();
  SQLite::Database database(file());
  EXPECT_EQ(
      database.execAndGet("SELECT group_concat(number) FROM (SELECT number FROM attempts ORDER BY number)").getString(),
      "1,2,3");
}

TEST_F(Store, AttemptNumberThatFallsIsRefused) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  LiveALittle(*store, cluster);
  for (const int attempt : {0, 1}) {
    EXPECT_FALSE(Commit(*store, cluster, [&](Transaction& tx) { tx.EditJob("retried").attempt = attempt; }).ok())
        << attempt;
  }
  EXPECT_EQ(Load(*store).jobs.at("retried").attempt, 2);
}

TEST_F(Store, CommitThatFailsLeavesTheOldState) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  LiveALittle(*store, cluster);
  const std::string before = Durable(Load(*store));
  const auto events = store->ReadEvents("", 0, 1000);

  // The second job's claim is already another's; the first part of the commit must not stay either.
  const absl::Status saved = Commit(*store, cluster, [&](Transaction& tx) {
    EXPECT_TRUE(core::Submit(tx, CoreCluster::Wanted(1), "new", "new request", "sha").ok());
    core::Job& thief = tx.EditJob("waiting");
    thief.attempt = 1;
    thief.ranks = cluster.job("training").ranks;
    tx.Move(thief, JobState::kReserved, core::Reason::kReserving, "x", "RESERVED", "test");
  });
  EXPECT_FALSE(saved.ok());
  EXPECT_EQ(Durable(Load(*store)), before);
  EXPECT_EQ(store->ReadEvents("", 0, 1000)->size(), events->size());
  EXPECT_TRUE(Submit(*store, cluster, "next", 1).ok()) << "the store works on";
}

TEST_F(Store, SlotMayPassFromOneJobToAnotherInOneCommit) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  ASSERT_TRUE(Register(*store, cluster, "a", 1).ok());
  // The younger job has the smaller name, so it is written first.
  ASSERT_TRUE(Submit(*store, cluster, "z", 1).ok());
  ASSERT_TRUE(Submit(*store, cluster, "a", 1).ok());
  ASSERT_TRUE(Schedule(*store, cluster).ok());
  ASSERT_EQ(cluster.job("z").state, JobState::kReserved);
  const absl::Status saved = Commit(*store, cluster, [](Transaction& tx) {
    EXPECT_TRUE(core::Cancel(tx, {"z", "test", 1}).ok());
    core::Schedule(tx);
  });
  EXPECT_TRUE(saved.ok()) << saved;
  EXPECT_EQ(cluster.job("a").state, JobState::kReserved);
}

TEST_F(Store, FullDiskIsSaidChangesNothingAndPasses) {
  const Connections connections;
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  ASSERT_TRUE(Submit(*store, cluster, "before", 1).ok());
  const std::string before = Durable(Load(*store));
  Connections::LimitPages(1);  // no page more than there are
  for (int i = 0; i < 3; ++i) {
    const absl::Status saved = Submit(*store, cluster, "big", 1, 1'000'000);
    EXPECT_EQ(saved.code(), absl::StatusCode::kResourceExhausted) << saved;
    EXPECT_THAT(std::string(saved.message()), HasSubstr(file()));
    EXPECT_THAT(std::string(saved.message()), HasSubstr("free space"));
    EXPECT_EQ(Durable(Load(*store)), before);
    EXPECT_EQ(store->ReadEvents("", 0, 100)->size(), 1u);
  }
  Connections::LimitPages(1'000'000);
  EXPECT_TRUE(Submit(*store, cluster, "big", 1, 1'000'000).ok());
  store.reset();
  EXPECT_EQ(Durable(Load(*Open())), Durable(cluster.state));
}

TEST_F(Store, NodeThatWasOnlyHeardIsNotWritten) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  ASSERT_TRUE(Register(*store, cluster, "a", 1).ok());
  const auto heard = Load(*store).nodes.at("a").last_heard_us;
  cluster.clock.Advance(seconds(1));
  ASSERT_TRUE(Commit(*store, cluster, [](Transaction& tx) {
                EXPECT_TRUE(core::Heartbeat(tx, "a", 1).ok());
                EXPECT_FALSE(tx.changed());
              }).ok());
  EXPECT_EQ(Load(*store).nodes.at("a").last_heard_us, heard);
  EXPECT_GT(cluster.state.nodes.at("a").last_heard_us, heard);
}

TEST_F(Store, SecondOpenerIsRefusedByTheLock) {
  auto first = Open();
  const auto second = SqliteStore::Open(folder_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(getpid())));
  first.reset();
  EXPECT_EQ(Open()->term(), 2) << "a refused opening is not a term";
}

TEST_F(Store, NewerSchemaIsRefusedWithBothNumbers) {
  Open();
  Change("PRAGMA user_version=7");
  const std::string bytes = *ReadFile(file());
  const auto store = SqliteStore::Open(folder_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("has schema 7, this build reads up to 2"));
  EXPECT_EQ(*ReadFile(file()), bytes);
}

TEST_F(Store, DatabaseOfAnotherProgramIsLeftAlone) {
  Change("CREATE TABLE recipes(name TEXT)");
  const std::string bytes = *ReadFile(file());
  const auto store = SqliteStore::Open(folder_);
  EXPECT_EQ(store.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("another program"));
  EXPECT_EQ(*ReadFile(file()), bytes);
}

TEST_F(Store, DamagedFileIsRefusedAndLeftAsItIs) {
  CoreCluster cluster;
  {
    auto store = Open();
    cluster.state = Load(*store);
    LiveALittle(*store, cluster);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(Submit(*store, cluster, "job " + std::to_string(i), 1, 3000).ok());
  }
  const std::string good = *ReadFile(file());
  const struct {
    const char* what;
    std::size_t from, to;
  } rows[] = {{"header", 0, 16},
              {"schema", 100, 4096},
              {"pages in the middle", 8 * 4096, 12 * 4096},
              {"everything", 0, good.size()}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    ASSERT_LT(row.from, good.size());
    std::string bad = good;
    for (std::size_t i = row.from; i < std::min(row.to, bad.size()); ++i) bad[i] = static_cast<char>(i * 7 + 13);
    std::ofstream(file(), std::ios::binary) << bad;
    const auto store = SqliteStore::Open(folder_);
    EXPECT_EQ(store.status().code(), absl::StatusCode::kDataLoss) << store.status();
    EXPECT_THAT(std::string(store.status().message()), HasSubstr("left as it is"));
    EXPECT_EQ(*ReadFile(file()), bad);
  }
  // The backup in its place: everything is back.
  std::ofstream(file(), std::ios::binary) << good;
  EXPECT_EQ(Durable(Load(*Open())), Durable(cluster.state));
}

TEST_F(Store, RecordThatCannotBeReadIsSaidNotGuessed) {
  CoreCluster cluster;
  {
    auto store = Open();
    cluster.state = Load(*store);
    ASSERT_TRUE(Submit(*store, cluster, "job", 1).ok());
  }
  for (const char* record : {"{}", "no json", "[1]", "{\\\"id\\\": 5}"}) {
    Change("UPDATE jobs SET record='" + std::string(record) + "'");
    EXPECT_EQ(Open()->Load().status().code(), absl::StatusCode::kDataLoss) << record;
  }
}

TEST_F(Store, FolderThatCannotBeWrittenIsNamed) {
  const std::string in_the_way = folder_ + "/file";
  std::ofstream(in_the_way) << "x";
  const auto store = SqliteStore::Open(in_the_way);
  ASSERT_FALSE(store.ok());
  EXPECT_THAT(std::string(store.status().message()), HasSubstr(in_the_way));
}

TEST_F(Store, EventsAreReadByPageWithoutGapOrRepetition) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  LiveALittle(*store, cluster);
  const std::int64_t last = cluster.state.next_event_seq - 1;
  ASSERT_GT(last, 10);
  for (const int page : {1, 3, 1000}) {
    std::int64_t after = 0;
    while (true) {
      const auto events = store->ReadEvents("", after, page);
      ASSERT_TRUE(events.ok());
      if (events->empty()) break;
      EXPECT_LE(events->size(), static_cast<std::size_t>(page));
      for (const core::Event& event : *events) EXPECT_EQ(event.seq, ++after);
    }
    EXPECT_EQ(after, last);
  }
  // Of one job: its own numbers have no gap either.
  std::int64_t job_seq = 0;
  const auto of_job = store->ReadEvents("training", 0, 1000);
  for (const core::Event& event : *of_job) {
    EXPECT_EQ(event.job_id, "training");
    EXPECT_EQ(event.job_seq, ++job_seq);
  }
  EXPECT_EQ(job_seq, cluster.job("training").events);
  EXPECT_THAT(*store->ReadEvents("nobody", 0, 10), IsEmpty());
}

TEST_F(Store, EventSaysWhatItSaid) {
  CoreCluster cluster;
  auto store = Open();
  cluster.state = Load(*store);
  ASSERT_TRUE(Submit(*store, cluster, "job", 1).ok());
  const auto events = store->ReadEvents("job", 0, 10);
  ASSERT_EQ(events->size(), 1u);
  const core::Event& e = events->front();
  EXPECT_EQ(e.kind, "SUBMITTED");
  EXPECT_EQ(e.actor, "local:test");
  EXPECT_EQ(e.message, "submitted as test");
  EXPECT_EQ(e.time_us, cluster.clock.WallMicros());
  EXPECT_EQ(e.term, store->term());
  EXPECT_EQ(e.reason, core::Reason::kNone);
  EXPECT_EQ(e.attempt, 0);
}

}  // namespace
}  // namespace vicreg::store
