#pragma once

// The metric history: every step's row, in a SQLite file of its own with a writer thread of its own, so that metrics
// never delay a submit. Exactly once: rows are keyed by (job, attempt, step); a row at or below the attempt's head is a
// duplicate and ignored, one beyond head + 1 is refused, and an attempt older than the newest begun is fenced. An
// attempt that resumes at step r hides older attempts' rows above r and deletes nothing.

#include <SQLiteCpp/SQLiteCpp.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "common/status.h"
#include "coordinator/telemetry/head.h"
#include "vicreg/v1/metrics.pb.h"

namespace vicreg::telemetry {

struct Rollback {
  int attempt = 0;
  std::int64_t step = 0;  // rows of older attempts above it are superseded
};

struct Entry {
  std::int64_t sequence = 0;  // in the job's history: the resume token
  std::variant<v1::MetricRow, Rollback> what;
};

class History {
 public:
  using Done = std::function<void(absl::Status)>;

  // FOLDER/metrics.db. Errors as SqliteStore::Open.
  static absl::StatusOr<std::unique_ptr<History>> Open(const std::string& folder);
  ~History();

  // Queued in call order; `done` runs on the writer thread after the commit that includes it and all before it.
  // FailedPrecondition: the attempt is fenced. OutOfRange: a gap. Unavailable: the attempt has not begun here yet. Rows
  // are checked one by one: what came before the bad one is committed. A commit that fails as a whole
  // (ResourceExhausted: disk full) stores nothing of what it held: send it again.
  void Append(const std::string& job_id, int attempt, std::vector<v1::MetricRow> rows, Done done);
  // FailedPrecondition: a newer attempt has begun. Saying it twice is harmless. If the commit fails, the history tries
  // again by itself.
  void BeginAttempt(const std::string& job_id, int attempt, std::int64_t resume_step, Done done);
  void Barrier(Done done);

  // Any thread. Entries with sequence > after, in order. Rows that a later attempt superseded are left
  // out unless `all`. A follower that already has some of them gets the rollback that takes them back, then the new
  // attempt's rows.
  absl::StatusOr<std::vector<Entry>> Query(const std::string& job_id, std::int64_t after, int limit, bool all);
  // Newest row of the effective curve.
  std::optional<v1::MetricRow> LastRow(const std::string& job_id) const;
  std::optional<double> LastKnn(const std::string& job_id) const;
  // Newest first, at most `count`, of the effective curve: for rates and verdicts.
  std::vector<v1::MetricRow> Recent(const std::string& job_id, std::size_t count) const;
  // Grows with every commit.
  std::uint64_t version() const;
  struct Counts {
    std::int64_t committed = 0, duplicate = 0, fenced = 0, gap = 0;
  };
  Counts counts() const;

 private:
  struct Item {
    std::string job_id;
    int attempt = 0;
    std::vector<v1::MetricRow> rows;
    std::optional<std::int64_t> begin_at;
    bool barrier = false;
    Done done;
  };
  // What the writer needs to know of a job without reading.
  struct Tail {
    Head head;
    std::int64_t sequence = 0;
    std::deque<v1::MetricRow> recent;  // effective, oldest first
    std::optional<double> knn;
  };

  explicit History(const std::string& path);
  void LoadTails();
  Tail LoadTail(const std::string& job_id);
  void Run();
  absl::Status Apply(Item& item, std::map<std::string, Tail>& tails, Counts& counts);
  Tail& TailOf(const std::string& job_id, std::map<std::string, Tail>& changed);

  const std::string path_;
  SQLite::Database database_;
  std::mutex reader_mutex_;
  std::unique_ptr<SQLite::Database> reader_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  std::deque<Item> owed_;  // writer only: begun attempts of a commit that failed
  std::map<std::string, Tail> tails_;
  std::uint64_t version_ = 0;
  Counts counts_;
  bool stopping_ = false;
  std::thread writer_;
};

}  // namespace vicreg::telemetry
