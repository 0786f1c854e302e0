// Goal: every step of a job is in its history exactly once, whatever is sent twice, too early, too late, or lost with
// the process; and who follows it sees one curve, over rollbacks and restarts. Method: a real file in a temporary
// folder; kill -9 of a forked writer; a file size limit stands in for a full disk.

#include "coordinator/telemetry/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <random>

namespace vicreg::telemetry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::MetricRow Row(std::int64_t step, double loss = 1) {
  v1::MetricRow row;
  row.set_step(step);
  row.set_loss(loss);
  return row;
}

std::vector<v1::MetricRow> Rows(std::int64_t from, std::int64_t to) {
  std::vector<v1::MetricRow> rows;
  for (std::int64_t step = from; step <= to; ++step) rows.push_back(Row(step));
  return rows;
}

// Calls `start` with a callback and waits for it. Answers with a status of its own: the library that counts references
// to a shared one is not built for ThreadSanitizer.
absl::Status Await(const std::function<void(History::Done)>& start) {
  auto answer = std::make_shared<std::promise<absl::Status>>();
  start([answer](const absl::Status& status) {
    answer->set_value(absl::Status(status.code(), std::string(status.message())));
  });
  return answer->get_future().get();
}

absl::Status Append(History& history, int attempt, std::vector<v1::MetricRow> rows) {
  return Await([&](History::Done done) { history.Append("job", attempt, std::move(rows), std::move(done)); });
}

absl::Status Begin(History& history, int attempt, std::int64_t resume) {
  return Await([&](History::Done done) { history.BeginAttempt("job", attempt, resume, std::move(done)); });
}

std::string Show(const std::vector<Entry>& entries) {
  std::string text;
  for (const Entry& entry : entries) {
    if (const auto* row = std::get_if<v1::MetricRow>(&entry.what)) {
      text += std::to_string(row->attempt()) + ":" + std::to_string(row->step()) + " ";
    } else {
      text += "back to " + std::to_string(std::get<Rollback>(entry.what).step) + " ";
    }
  }
  return text;
}

class HistoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "vicreg-history-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<History> Open() {
    auto history = History::Open(folder_);
    EXPECT_TRUE(history.ok()) << history.status();
    return history.ok() ? *std::move(history) : nullptr;
  }
  std::string Read(History& history, std::int64_t after = 0, bool all = false, int limit = 10'000) {
    const auto entries = history.Query("job", after, limit, all);
    EXPECT_TRUE(entries.ok()) << entries.status();
    return entries.ok() ? Show(*entries) : "";
  }
  std::string file() const { return folder_ + "/metrics.db"; }

  std::string folder_;
};

TEST_F(HistoryTest, RowsSentTwiceAreStoredOnce) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  EXPECT_TRUE(Append(*history, 1, Rows(1, 3)).ok());
  EXPECT_TRUE(Append(*history, 1, Rows(2, 4)).ok());
  EXPECT_EQ(Read(*history), "1:1 1:2 1:3 1:4 ");
  EXPECT_EQ(history->counts().committed, 4);
  EXPECT_EQ(history->counts().duplicate, 2);
}

TEST_F(HistoryTest, RowBeyondTheNextIsRefusedAndNamesTheOneWanted) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  ASSERT_TRUE(Append(*history, 1, Rows(1, 3)).ok());
  const absl::Status gap = Append(*history, 1, {Row(4), Row(6)});
  EXPECT_TRUE(absl::IsOutOfRange(gap)) << gap;
  EXPECT_THAT(std::string(gap.message()), HasSubstr("send 5 first"));
  EXPECT_EQ(Read(*history), "1:1 1:2 1:3 1:4 ") << "what came before the gap counts";
  EXPECT_EQ(history->counts().gap, 1);
}

TEST_F(HistoryTest, OlderAttemptIsFencedAndStoresNothing) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  ASSERT_TRUE(Append(*history, 1, Rows(1, 3)).ok());
  ASSERT_TRUE(Begin(*history, 2, 2).ok());
  const absl::Status late = Append(*history, 1, {Row(4)});
  EXPECT_TRUE(absl::IsFailedPrecondition(late)) << late;
  EXPECT_TRUE(absl::IsFailedPrecondition(Begin(*history, 1, 0)));
  EXPECT_EQ(history->counts().fenced, 1);
  EXPECT_EQ(Read(*history), "1:1 1:2 back to 2 ");
}

TEST_F(HistoryTest, AttemptNotYetBegunIsAskedToSendAgainNotFenced) {
  const auto history = Open();
  EXPECT_TRUE(absl::IsUnavailable(Append(*history, 1, {Row(1)})));
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  EXPECT_TRUE(Append(*history, 1, {Row(1)}).ok());
}

TEST_F(HistoryTest, BeginningTwiceIsHarmless) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  ASSERT_TRUE(Append(*history, 1, Rows(1, 2)).ok());
  EXPECT_TRUE(Begin(*history, 1, 0).ok());
  EXPECT_TRUE(Append(*history, 1, {Row(3)}).ok());
  EXPECT_EQ(Read(*history), "1:1 1:2 1:3 ");
}

TEST_F(HistoryTest, ResumeHidesSupersededRowsAndDeletesNothing) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  ASSERT_TRUE(Append(*history, 1, Rows(1, 5)).ok());
  ASSERT_TRUE(Begin(*history, 2, 2).ok());
  ASSERT_TRUE(Append(*history, 2, Rows(3, 4)).ok());
  EXPECT_EQ(Read(*history), "1:1 1:2 back to 2 2:3 2:4 ");
  EXPECT_EQ(Read(*history, 0, true), "1:1 1:2 1:3 1:4 1:5 back to 2 2:3 2:4 ");
}

TEST_F(HistoryTest, FollowerOfSupersededRowsGetsTheRollbackThenTheNewRows) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  ASSERT_TRUE(Append(*history, 1, Rows(1, 5)).ok());
  const auto seen = history->Query("job", 0, 4, false);
  ASSERT_TRUE(seen.ok());
  ASSERT_EQ(Show(*seen), "1:1 1:2 1:3 1:4 ");
  ASSERT_TRUE(Begin(*history, 2, 2).ok());
  ASSERT_TRUE(Append(*history, 2, Rows(3, 4)).ok());
  EXPECT_EQ(Read(*history, seen->back().sequence), "back to 2 2:3 2:4 ");
}

TEST_F(HistoryTest, NewestRowAfterADeepRollbackIsTheOneResumedFrom) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  std::vector<v1::MetricRow> rows = Rows(1, 400);
  rows[9].set_knn_accuracy(0.5);
  rows[299].set_knn_accuracy(0.9);
  ASSERT_TRUE(Append(*history, 1, std::move(rows)).ok());
  EXPECT_EQ(history->LastKnn("job"), 0.9);
  ASSERT_TRUE(Begin(*history, 2, 20).ok());  // further back than what is held in memory
  ASSERT_TRUE(history->LastRow("job").has_value());
  EXPECT_EQ(history->LastRow("job")->step(), 20);
  EXPECT_EQ(history->LastKnn("job"), 0.5) << "a superseded accuracy must not be shown";
  EXPECT_EQ(history->Recent("job", 3).at(2).step(), 18);
}

TEST_F(HistoryTest, ReopenedHistoryGoesOnWhereItWas) {
  {
    const auto history = Open();
    ASSERT_TRUE(Begin(*history, 1, 0).ok());
    ASSERT_TRUE(Append(*history, 1, Rows(1, 5)).ok());
    ASSERT_TRUE(Begin(*history, 2, 3).ok());
    ASSERT_TRUE(Append(*history, 2, {Row(4)}).ok());
  }
  const auto history = Open();
  EXPECT_EQ(history->LastRow("job")->step(), 4);
  EXPECT_EQ(history->LastRow("job")->attempt(), 2);
  EXPECT_EQ(history->Recent("job", 10).size(), 4u);
  EXPECT_TRUE(absl::IsFailedPrecondition(Append(*history, 1, {Row(6)})));
  EXPECT_TRUE(Append(*history, 2, Rows(4, 6)).ok());
  EXPECT_EQ(Read(*history), "1:1 1:2 1:3 back to 3 2:4 2:5 2:6 ");
}

TEST_F(HistoryTest, AttemptJustBegunIsRememberedWithoutARow) {
  {
    const auto history = Open();
    ASSERT_TRUE(Begin(*history, 1, 0).ok());
    ASSERT_TRUE(Append(*history, 1, Rows(1, 5)).ok());
    ASSERT_TRUE(Begin(*history, 2, 3).ok());
  }
  const auto history = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(Append(*history, 1, {Row(6)})));
  EXPECT_TRUE(Append(*history, 2, {Row(4)}).ok());
}

TEST_F(HistoryTest, CallbacksComeInOrderAndTheBarrierAfterAllBeforeIt) {
  const auto history = Open();
  std::vector<int> order;  // written by the writer thread alone, read after the barrier
  history->BeginAttempt("job", 1, 0, [&](const absl::Status&) { order.push_back(0); });
  for (int i = 1; i <= 600; ++i) {  // more than one commit
    history->Append("job", 1, {Row(i)},
                    [&order, i](const absl::Status& status) { order.push_back(status.ok() ? i : -1); });
  }
  EXPECT_TRUE(Await([&](History::Done done) { history->Barrier(std::move(done)); }).ok());
  ASSERT_EQ(order.size(), 601u);
  for (int i = 0; i <= 600; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST_F(HistoryTest, DestructorWritesWhatWasQueued) {
  {
    const auto history = Open();
    history->BeginAttempt("job", 1, 0, [](const absl::Status&) {});
    for (int i = 1; i <= 300; ++i) history->Append("job", 1, {Row(i)}, [](const absl::Status&) {});
  }
  EXPECT_EQ(Open()->LastRow("job")->step(), 300);
}

TEST_F(HistoryTest, AReaderInTheMiddleOfItsPageBlocksNoWriter) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  ASSERT_TRUE(Append(*history, 1, Rows(1, 100)).ok());
  SQLite::Database slow(file(), SQLite::OPEN_READONLY);
  SQLite::Statement half(slow, "SELECT row FROM entries");
  ASSERT_TRUE(half.executeStep());  // a read transaction is open from here on
  EXPECT_TRUE(Append(*history, 1, Rows(101, 200)).ok());
  EXPECT_EQ(history->LastRow("job")->step(), 200);
}

// Sends everything again from time to time, starts attempts at random, and compares with a plain model.
TEST_F(HistoryTest, RandomWalkKeepsEveryFollowerOnTheOneCurve) {
  const auto seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto draw = [&](std::int64_t from, std::int64_t to) {
    return std::uniform_int_distribution<std::int64_t>(from, to)(random);
  };
  auto history = Open();
  std::vector<int> curve;  // curve[step - 1]: the attempt whose row counts
  std::vector<int> followed;
  std::int64_t cursor = 0;
  int attempt = 0;
  const auto follow = [&](int limit) {
    const auto entries = history->Query("job", cursor, limit, false);
    ASSERT_TRUE(entries.ok()) << entries.status();
    for (const Entry& entry : *entries) {
      cursor = entry.sequence;
      if (const auto* row = std::get_if<v1::MetricRow>(&entry.what)) {
        ASSERT_EQ(row->step(), static_cast<std::int64_t>(followed.size()) + 1) << "gap or duplicate";
        followed.push_back(row->attempt());
      } else {
        const auto step = static_cast<std::size_t>(std::get<Rollback>(entry.what).step);
        if (followed.size() > step) followed.resize(step);
      }
    }
  };
  for (int turn = 0; turn < 300; ++turn) {
    const auto head = static_cast<std::int64_t>(curve.size());
    if (attempt == 0 || draw(0, 9) == 0) {
      const std::int64_t resume = draw(0, head);
      ASSERT_TRUE(Begin(*history, ++attempt, resume).ok());
      curve.resize(static_cast<std::size_t>(resume));
    } else {
      const std::int64_t from = draw(std::max<std::int64_t>(1, head - 3), head + 1), to = head + draw(0, 20);
      if (from > to) continue;
      ASSERT_TRUE(Append(*history, attempt, Rows(from, to)).ok());
      curve.resize(static_cast<std::size_t>(std::max(head, to)), attempt);
    }
    if (draw(0, 3) == 0) follow(static_cast<int>(draw(1, 30)));
    if (draw(0, 30) == 0) {
      history.reset();
      history = Open();
      ASSERT_NE(history, nullptr);
    }
    const auto last = history->LastRow("job");
    ASSERT_EQ(last ? last->step() : 0, static_cast<std::int64_t>(curve.size()));
  }
  follow(1'000'000);
  EXPECT_EQ(followed, curve);
}

TEST_F(HistoryTest, EveryAcknowledgedRowSurvivesKillNine) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    close(ends[0]);
    auto history = History::Open(folder_);
    if (!history.ok()) _exit(1);
    (*history)->BeginAttempt("job", 1, 0, [](const absl::Status&) {});
    for (std::int64_t step = 1; step <= 1'000'000; ++step) {
      const absl::Status status = Append(**history, 1, {Row(step)});
      if (!status.ok() || write(ends[1], &step, sizeof step) != sizeof step) _exit(1);
    }
    _exit(0);
  }
  close(ends[1]);
  std::int64_t acknowledged = 0, step = 0;
  while (acknowledged < 50 && read(ends[0], &step, sizeof step) == sizeof step) acknowledged = step;
  kill(child, SIGKILL);
  while (read(ends[0], &step, sizeof step) == sizeof step) acknowledged = step;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));

  const auto history = Open();
  ASSERT_GE(acknowledged, 50);
  const std::int64_t last = history->LastRow("job")->step();
  EXPECT_GE(last, acknowledged);
  EXPECT_LE(last, acknowledged + 1) << "at most the one under way";
  const auto entries = history->Query("job", 0, 1'000'000, false);
  ASSERT_TRUE(entries.ok());
  for (std::size_t i = 0; i < entries->size(); ++i)
    EXPECT_EQ(std::get<v1::MetricRow>((*entries)[i].what).step(), static_cast<std::int64_t>(i) + 1);
  EXPECT_TRUE(Append(*history, 1, Rows(1, last + 1)).ok()) << "the worker sends all it has no answer for";
  EXPECT_EQ(history->LastRow("job")->step(), last + 1);
}

// Lets no file of this process grow beyond `bytes`.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  sighandler_t handler_;
  rlimit before_{};
};

TEST_F(HistoryTest, CommitThatCannotBeWrittenStoresNothingAndHealsWhenThereIsRoom) {
  const auto history = Open();
  ASSERT_TRUE(Begin(*history, 1, 0).ok());
  ASSERT_TRUE(Append(*history, 1, Rows(1, 3)).ok());
  {
    const FileSizeLimit limit(std::filesystem::file_size(file() + "-wal"));
    const absl::Status refused = Append(*history, 1, Rows(4, 5));
    EXPECT_FALSE(refused.ok());
    EXPECT_THAT(std::string(refused.message()), HasSubstr(file()));
    EXPECT_FALSE(Begin(*history, 2, 1).ok());
    EXPECT_EQ(history->LastRow("job")->step(), 3) << "nobody sees what is not durable";
  }
  EXPECT_TRUE(Append(*history, 2, {Row(2)}).ok()) << "the begun attempt was not forgotten";
  EXPECT_EQ(Read(*history), "1:1 back to 1 2:2 ");
}

TEST_F(HistoryTest, DamagedFileIsNamedAndLeftAsItIs) {
  {
    const auto history = Open();
    ASSERT_TRUE(Begin(*history, 1, 0).ok());
    ASSERT_TRUE(Append(*history, 1, Rows(1, 500)).ok());
  }
  {
    std::fstream bytes(file(), std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(4096);
    bytes << std::string(8192, 'x');
  }
  const auto history = History::Open(folder_);
  EXPECT_TRUE(absl::IsDataLoss(history.status())) << history.status();
  EXPECT_THAT(std::string(history.status().message()), HasSubstr(file()));
  EXPECT_TRUE(std::filesystem::exists(file()));
}

TEST_F(HistoryTest, FileOfSomethingElseIsRefused) {
  std::ofstream(file())
      << "name,value\nthis is no database, but it is long enough to be read as one by careless programs\n"
      << std::string(4096, '.');
  const absl::Status text = History::Open(folder_).status();
  EXPECT_TRUE(absl::IsDataLoss(text)) << text;
  std::filesystem::remove(file());
  SQLite::Database(file(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE).exec("CREATE TABLE photos(name TEXT)");
  const absl::Status other = History::Open(folder_).status();
  EXPECT_TRUE(absl::IsDataLoss(other)) << other;
  EXPECT_THAT(std::string(other.message()), HasSubstr("another program"));
  SQLite::Database untouched(file(), SQLite::OPEN_READONLY);
  EXPECT_FALSE(untouched.tableExists("entries"));
}

TEST_F(HistoryTest, NewerSchemaAsksForTheNewerBuild) {
  Open();
  SQLite::Database(file(), SQLite::OPEN_READWRITE).exec("PRAGMA user_version=99");
  const absl::Status status = History::Open(folder_).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("schema 99"));
}

TEST_F(HistoryTest, FolderThatCannotBeUsedIsNamed) {
  std::ofstream(folder_ + "/file") << "";
  const absl::Status not_a_folder = History::Open(folder_ + "/file").status();
  EXPECT_FALSE(not_a_folder.ok());
  EXPECT_THAT(std::string(not_a_folder.message()), HasSubstr(folder_ + "/file"));
  std::filesystem::create_directory(file());
  const absl::Status folder_in_the_way = History::Open(folder_).status();
  EXPECT_TRUE(absl::IsPermissionDenied(folder_in_the_way)) << folder_in_the_way;
}

}  // namespace
}  // namespace vicreg::telemetry
