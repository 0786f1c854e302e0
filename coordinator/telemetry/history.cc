#include "coordinator/telemetry/history.h"

#include <algorithm>
#include <limits>

#include "common/files.h"
#include "coordinator/store/sqlite_store.h"

namespace vicreg::telemetry {
namespace {

constexpr int kSchema = 1;
constexpr int kApplicationId = 0x56434d48;  // "VCMH"
constexpr std::size_t kBatch = 256;         // items per commit
constexpr std::size_t kRecent = 128;

// `row` is a serialized MetricRow, or empty for a rollback to `step` made by `attempt`.
constexpr char kTables[] = R"(
CREATE TABLE entries(job TEXT NOT NULL, sequence INTEGER NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY(job, sequence)) WITHOUT ROWID;
CREATE UNIQUE INDEX rows_once ON entries(job, attempt, step) WHERE length(row) > 0;
)";

}  // namespace

History::History(const std::string& path)
    : path_(path), database_(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000) {}

absl::StatusOr<std::unique_ptr<History>> History::Open(const std::string& folder) {
  RETURN_IF_ERROR(MakeFolders(folder));
  const std::string path = folder + "/metrics.db";
  try {
    std::unique_ptr<History> history(new History(path));
    SQLite::Database& db = history->database_;
    if (const std::string verdict = db.execAndGet("PRAGMA quick_check").getString(); verdict != "ok") {
      return absl::DataLossError("metric history " + path + " is damaged (" + verdict +
                                 "): move it away to start an empty one, or restore a backup");
    }
    const int application = db.execAndGet("PRAGMA application_id").getInt();
    const bool used = db.execAndGet("SELECT count(*) FROM sqlite_master").getInt() > 0;
    if (used && application != kApplicationId)
      return absl::DataLossError(
          "metric history " + path +
          " is a database of another program: the file was left as it is; choose another folder");
    const int schema = db.execAndGet("PRAGMA user_version").getInt();
    if (schema > kSchema)
      return absl::FailedPreconditionError("metric history " + path + " has schema " + std::to_string(schema) +
                                           ", this build reads up to 1: start the newer build");
    db.exec("PRAGMA journal_mode=WAL");
    db.exec("PRAGMA synchronous=FULL");
    if (schema == 0) {
      SQLite::Transaction change(db);
      db.exec(kTables);
      db.exec("PRAGMA application_id=" + std::to_string(kApplicationId));
      db.exec("PRAGMA user_version=" + std::to_string(kSchema));
      change.commit();
    }
    history->reader_ = std::make_unique<SQLite::Database>(path, SQLite::OPEN_READONLY, 5000);
    history->LoadTails();
    history->writer_ = std::thread([raw = history.get()] { raw->Run(); });
    return history;
  } catch (const SQLite::Exception& error) {
    return store::FromSqlite(error, "open", path);
  }
}

History::~History() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (writer_.joinable()) writer_.join();
}

void History::LoadTails() {
  SQLite::Statement jobs(database_, "SELECT DISTINCT job FROM entries");
  while (jobs.executeStep()) {
    const std::string job = jobs.getColumn(0).getString();
    tails_[job] = LoadTail(job);
  }
}

// Walks back from the newest entry, over what later rollbacks hide, until there is enough to know.
History::Tail History::LoadTail(const std::string& job_id) {
  Tail tail;
  std::int64_t visible = std::numeric_limits<std::int64_t>::max();  // rows above it are superseded
  SQLite::Statement entries(database_,
                            "SELECT sequence, attempt, step, row FROM entries WHERE job=? ORDER BY sequence DESC");
  entries.bind(1, job_id);
  while ((tail.recent.size() < kRecent || !tail.knn) && entries.executeStep()) {
    const std::int64_t step = entries.getColumn(2).getInt64();
    if (tail.sequence == 0) {
      tail.sequence = entries.getColumn(0).getInt64();
      tail.head = {entries.getColumn(1).getInt(), step};
    }
    const std::string bytes = entries.getColumn(3).getString();
    v1::MetricRow row;
    if (bytes.empty()) {
      visible = std::min(visible, step);
    } else if (step <= visible && row.ParseFromString(bytes)) {
      if (!tail.knn && row.has_knn_accuracy()) tail.knn = row.knn_accuracy();
      if (tail.recent.size() < kRecent) tail.recent.push_front(std::move(row));
    }
  }
  return tail;
}

void History::Append(const std::string& job_id, int attempt, std::vector<v1::MetricRow> rows, Done done) {
  const std::lock_guard lock(mutex_);
  queue_.push_back({job_id, attempt, std::move(rows), std::nullopt, false, std::move(done)});
  changed_.notify_one();
}

void History::BeginAttempt(const std::string& job_id, int attempt, std::int64_t resume_step, Done done) {
  const std::lock_guard lock(mutex_);
  queue_.push_back({job_id, attempt, {}, resume_step, false, std::move(done)});
  changed_.notify_one();
}

void History::Barrier(Done done) {
  const std::lock_guard lock(mutex_);
  queue_.push_back({"", 0, {}, std::nullopt, true, std::move(done)});
  changed_.notify_one();
}

History::Tail& History::TailOf(const std::string& job_id, std::map<std::string, Tail>& changed) {
  if (const auto found = changed.find(job_id); found != changed.end()) return found->second;
  const std::lock_guard lock(mutex_);
  return changed.emplace(job_id, tails_[job_id]).first->second;
}

absl::Status History::Apply(Item& item, std::map<std::string, Tail>& changed, Counts& counts) {
  if (item.barrier) return absl::OkStatus();
  Tail& tail = TailOf(item.job_id, changed);
  const auto write = [&](int attempt, std::int64_t step, const std::string& bytes) {
    SQLite::Statement insert(database_, "INSERT INTO entries VALUES(?,?,?,?,?)");
    insert.bind(1, item.job_id);
    insert.bind(2, static_cast<int64_t>(++tail.sequence));
    insert.bind(3, attempt);
    insert.bind(4, static_cast<int64_t>(step));
    insert.bind(5, bytes.data(), static_cast<int>(bytes.size()));
    insert.exec();
  };
  if (item.begin_at) {
    if (item.attempt == tail.head.attempt) return absl::OkStatus();  // said before
    if (item.attempt < tail.head.attempt) return Fenced(tail.head, item.job_id, item.attempt);
    write(item.attempt, *item.begin_at, "");
    // Read again: a resume may go back further than the rows held in memory.
    tail = LoadTail(item.job_id);
    return absl::OkStatus();
  }
  if (absl::Status current = CheckAttempt(tail.head, item.job_id, item.attempt); !current.ok()) {
    if (absl::IsFailedPrecondition(current)) counts.fenced += static_cast<std::int64_t>(item.rows.size());
    return current;
  }
  for (v1::MetricRow& row : item.rows) {
    const RowFate fate = FateOf(tail.head, row.step());
    if (fate == RowFate::kDuplicate) {
      ++counts.duplicate;
      continue;
    }
    if (fate == RowFate::kGap) {
      ++counts.gap;
      return absl::OutOfRangeError("row of step " + std::to_string(row.step()) + " of job " + item.job_id +
                                   " after step " + std::to_string(tail.head.step) + ": send " +
                                   std::to_string(tail.head.step + 1) + " first");
    }
    row.set_attempt(item.attempt);
    write(item.attempt, row.step(), row.SerializeAsString());
    tail.head.step = row.step();
    ++counts.committed;
    if (row.has_knn_accuracy()) tail.knn = row.knn_accuracy();
    tail.recent.push_back(std::move(row));
    if (tail.recent.size() > kRecent) tail.recent.pop_front();
  }
  return absl::OkStatus();
}

void History::Run() {
  while (true) {
    std::deque<Item> batch;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;  // stopping, and all was written
      batch.swap(owed_);
      while (!queue_.empty() && batch.size() < kBatch) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    std::map<std::string, Tail> changed;
    std::vector<absl::Status> results;
    Counts counts;
    absl::Status committed;
    try {
      SQLite::Transaction change(database_);
      for (Item& item : batch) results.push_back(Apply(item, changed, counts));
      change.commit();
      const std::lock_guard lock(mutex_);
      for (auto& [job, tail] : changed) tails_[job] = std::move(tail);
      counts_.committed += counts.committed;
      counts_.duplicate += counts.duplicate;
      counts_.fenced += counts.fenced;
      counts_.gap += counts.gap;
      ++version_;
    } catch (const SQLite::Exception& error) {
      committed = store::FromSqlite(error, "write", path_);
    }
    for (std::size_t i = 0; i < batch.size(); ++i) batch[i].done(committed.ok() ? results[i] : committed);
    if (committed.ok()) continue;
    // Rows are sent again by those who have them; nobody says again that an attempt began, so that goes with the next
    // commit.
    for (Item& item : batch) {
      if (!item.begin_at) continue;
      item.done = [](const absl::Status&) {};
      owed_.push_back(std::move(item));
    }
  }
}

absl::StatusOr<std::vector<Entry>> History::Query(const std::string& job_id, std::int64_t after, int limit, bool all) {
  const std::lock_guard lock(reader_mutex_);
  try {
    std::vector<Entry> entries;
    // Superseded rows above the position are skipped by the lowest later rollback; those a follower already has are
    // revoked by the rollback entry itself.
    std::map<std::int64_t, std::int64_t> rollbacks;  // sequence -> step
    SQLite::Statement begun(
        *reader_, "SELECT sequence, step FROM entries WHERE job=? AND sequence>? AND length(row)=0 ORDER BY sequence");
    begun.bind(1, job_id);
    begun.bind(2, static_cast<int64_t>(after));
    while (begun.executeStep()) rollbacks[begun.getColumn(0).getInt64()] = begun.getColumn(1).getInt64();
    SQLite::Statement read(
        *reader_, "SELECT sequence, attempt, step, row FROM entries WHERE job=? AND sequence>? ORDER BY sequence");
    read.bind(1, job_id);
    read.bind(2, static_cast<int64_t>(after));
    while (static_cast<int>(entries.size()) < limit && read.executeStep()) {
      const std::int64_t sequence = read.getColumn(0).getInt64(), step = read.getColumn(2).getInt64();
      const std::string bytes = read.getColumn(3).getString();
      const bool superseded =
          std::any_of(rollbacks.upper_bound(sequence), rollbacks.end(), [&](const auto& r) { return step > r.second; });
      if (bytes.empty()) {
        if (sequence > 1) entries.push_back({sequence, Rollback{read.getColumn(1).getInt(), step}});
        continue;
      }
      if (superseded && !all) continue;
      v1::MetricRow row;
      if (!row.ParseFromString(bytes))
        return absl::DataLossError("metric history " + path_ + ": entry " + std::to_string(sequence) + " of job " +
                                   job_id + " cannot be read");
      entries.push_back({sequence, std::move(row)});
    }
    return entries;
  } catch (const SQLite::Exception& error) {
    return store::FromSqlite(error, "read", path_);
  }
}

std::optional<v1::MetricRow> History::LastRow(const std::string& job_id) const {
  const std::lock_guard lock(mutex_);
  const auto found = tails_.find(job_id);
  if (found == tails_.end() || found->second.recent.empty()) return std::nullopt;
  return found->second.recent.back();
}

std::optional<double> History::LastKnn(const std::string& job_id) const {
  const std::lock_guard lock(mutex_);
  const auto found = tails_.find(job_id);
  return found == tails_.end() ? std::nullopt : found->second.knn;
}

std::vector<v1::MetricRow> History::Recent(const std::string& job_id, std::size_t count) const {
  const std::lock_guard lock(mutex_);
  const auto found = tails_.find(job_id);
  if (found == tails_.end()) return {};
  std::vector<v1::MetricRow> rows(
      found->second.recent.rbegin(),
      found->second.recent.rbegin() + static_cast<std::ptrdiff_t>(std::min(count, found->second.recent.size())));
  return rows;
}

std::uint64_t History::version() const {
  const std::lock_guard lock(mutex_);
  return version_;
}

History::Counts History::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace vicreg::telemetry
