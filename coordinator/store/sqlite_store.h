#pragma once

// The coordinator's durable state: one SQLite file, one writer. WAL with synchronous=FULL: what Commit returned OK for
// survives a power cut. Used by the core thread; ReadEvents may be called from any thread.

#include <SQLiteCpp/SQLiteCpp.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/files.h"
#include "coordinator/core/leader.h"

namespace vicreg::store {

class SqliteStore : public core::Store {
 public:
  // Opens or makes FOLDER/control.db and takes FOLDER/lock. Raises the term by one.
  // FailedPrecondition: another coordinator holds the lock, or a newer schema. DataLoss: not our file or damaged; it is
  // left as it is. PermissionDenied, ResourceExhausted: the folder.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const std::string& folder);

  // Everything, as of the last commit.
  absl::StatusOr<core::State> Load() override;

  // Jobs, nodes, events and requests of the transaction in one commit, or nothing. ResourceExhausted: disk full.
  absl::Status Commit(const core::Transaction& transaction) override;

  // Writes something small, to learn whether commits work again after one that failed.
  absl::Status Probe() override;

  // Gives the store another id: it is not the one that workers and clients knew.
  absl::StatusOr<std::string> NewStoreId();

  // Events with seq > after, of one job (or all when empty), ascending.
  absl::StatusOr<std::vector<core::Event>> ReadEvents(const std::string& job_id, std::int64_t after, int limit);

  ~SqliteStore();

  const std::string& store_id() const { return store_id_; }
  std::int64_t term() const { return term_; }

 private:
  class Statements;

  SqliteStore(FileLock lock, std::string path);

  FileLock lock_;
  const std::string path_;
  SQLite::Database database_;
  std::unique_ptr<Statements> statements_;  // of database_, of Commit
  std::mutex reader_mutex_;
  std::unique_ptr<SQLite::Database> reader_;
  std::string store_id_;
  std::int64_t term_ = 0;
};

// Is it a store of ours, undamaged and of a schema this build reads? FailedPrecondition, DataLoss.
absl::Status CheckFile(SQLite::Database& database, const std::string& path);
// Everything in it, as of now.
absl::StatusOr<core::State> LoadState(SQLite::Database& database, const std::string& path);

// SQLite's errors as ours, naming what was done to which file.
absl::Status FromSqlite(const SQLite::Exception& error, const std::string& action, const std::string& path);

}  // namespace vicreg::store
