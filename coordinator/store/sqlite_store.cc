#include "coordinator/store/sqlite_store.h"

#include <sqlite3.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "common/ids.h"
#include "coordinator/store/record.h"

namespace vicreg::store {
namespace {

constexpr int kSchema = 2;
constexpr int kApplicationId = 0x56435247;  // "VCRG"

constexpr char kTables[] = R"(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs(id TEXT PRIMARY KEY, queue_seq INTEGER NOT NULL UNIQUE, state INTEGER NOT NULL, attempt INTEGER NOT NULL, spec BLOB NOT NULL, record TEXT NOT NULL);
CREATE TABLE attempts(job TEXT NOT NULL, number INTEGER NOT NULL, resume_step INTEGER NOT NULL, world INTEGER NOT NULL, term INTEGER NOT NULL, PRIMARY KEY(job, number));
CREATE TABLE claims(node TEXT NOT NULL, kind TEXT NOT NULL, slot INTEGER NOT NULL, job TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL, PRIMARY KEY(node, kind, slot));
CREATE INDEX claims_by_job ON claims(job);
CREATE TABLE nodes(name TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE events(seq INTEGER PRIMARY KEY, job TEXT NOT NULL, job_seq INTEGER NOT NULL, time_us INTEGER NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL,
                    reason INTEGER NOT NULL, message TEXT NOT NULL, attempt INTEGER NOT NULL, term INTEGER NOT NULL, UNIQUE(job, job_seq));
CREATE TABLE requests(id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, job TEXT NOT NULL);
)";

// Since schema 2.
constexpr char kPolicies[] =
    "CREATE TABLE policies(kind TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY(kind, name))";

void Configure(SQLite::Database& database) {
  database.exec("PRAGMA journal_mode=WAL");
  database.exec("PRAGMA synchronous=FULL");
  database.exec("PRAGMA foreign_keys=ON");
}

}  // namespace

absl::Status CheckFile(SQLite::Database& database, const std::string& path) {
  const std::string advice = ": the file was left as it is; restore a backup, or choose another folder";
  if (const std::string verdict = database.execAndGet("PRAGMA quick_check").getString(); verdict != "ok") {
    return absl::DataLossError("store " + path + " is damaged (" + verdict + ")" + advice);
  }
  const int application = database.execAndGet("PRAGMA application_id").getInt();
  const int tables = database.execAndGet("SELECT count(*) FROM sqlite_master").getInt();
  if (tables > 0 && application != kApplicationId)
    return absl::DataLossError("store " + path + " is a database of another program" + advice);
  const int schema = database.execAndGet("PRAGMA user_version").getInt();
  if (schema > kSchema) {
    return absl::FailedPreconditionError("store " + path + " has schema " + std::to_string(schema) +
                                         ", this build reads up to " + std::to_string(kSchema) +
                                         ": start the newer build or restore a backup");
  }
  return absl::OkStatus();
}

absl::Status FromSqlite(const SQLite::Exception& error, const std::string& action, const std::string& path) {
  const std::string text = "cannot " + action + " " + path + ": " + error.what();
  switch (error.getErrorCode() & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(text + ": free space on that disk; nothing was stored");
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      return absl::PermissionDeniedError(text + ": make the folder writable for this user, or choose another");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text + ": the file was left as it is; restore a backup, or choose another folder");
    default:
      return absl::UnavailableError(text);
  }
}

// What Commit runs, each prepared once: a commit of many small rows would spend most of its time preparing.
class SqliteStore::Statements {
 public:
  Statements(SQLite::Database& database, std::int64_t term) : database_(database), term_(term) {}

  // Aborted: another coordinator has begun a term on this store. The lock of its folder should have kept them apart;
  // what the older one believes is over in any case. Reads within the caller's transaction, so that none begins in
  // between.
  absl::Status CheckTerm() {
    Use read(Prepared("SELECT value FROM meta WHERE key='term'"));
    const std::int64_t newest = read->executeStep() ? std::stoll(read->getColumn(0).getString()) : 0;
    if (newest == term_) return absl::OkStatus();
    return absl::AbortedError("term " + std::to_string(term_) + " is over: another coordinator began term " +
                              std::to_string(newest) + " on the same store; nothing was stored, and this one ends");
  }

  void SaveJob(const core::Job& job) {
    const int before = StoredAttempt(job.id);
    if (job.attempt < before) {
      throw SQLite::Exception(
          "attempt of job " + job.id + " fell from " + std::to_string(before) + " to " + std::to_string(job.attempt),
          SQLITE_CONSTRAINT);
    }
    Use save(
        Prepared("INSERT INTO jobs VALUES(?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET state=excluded.state, "
                 "attempt=excluded.attempt, record=excluded.record"));
    save->bind(1, job.id);
    save->bind(2, static_cast<int64_t>(job.queue_seq));
    save->bind(3, static_cast<int>(job.state));
    save->bind(4, job.attempt);
    save->bind(5, job.spec.data(), static_cast<int>(job.spec.size()));
    save->bind(6, JobRecord(job));
    save->exec();
    if (job.attempt == before) return;
    // A job is saved many times within one attempt; the attempt is recorded when its number grows, and the number never
    // falls. The primary key refuses one that was used before.
    Use attempt(Prepared("INSERT INTO attempts VALUES(?,?,?,?,?)"));
    attempt->bind(1, job.id);
    attempt->bind(2, job.attempt);
    attempt->bind(3, static_cast<int64_t>(job.resumed_step));
    attempt->bind(4, job.world_size);
    attempt->bind(5, static_cast<int64_t>(term_));
    attempt->exec();
  }

  void DropClaims(const core::Job& job) {
    Use drop(Prepared("DELETE FROM claims WHERE job=?"));
    drop->bind(1, job.id);
    drop->exec();
  }

  // The primary key refuses a slot that another job still claims.
  void AddClaims(const core::Job& job) {
    if (!core::HoldsSlots(job.state)) return;
    for (const core::Rank& rank : job.ranks) {
      Use claim(Prepared("INSERT INTO claims VALUES(?,?,?,?,?,?)"));
      claim->bind(1, rank.node);
      claim->bind(2, job.slot_kind);
      claim->bind(3, rank.slot);
      claim->bind(4, job.id);
      claim->bind(5, job.attempt);
      claim->bind(6, rank.rank);
      claim->exec();
    }
  }

  void SaveNode(const core::Node& node) {
    Use save(Prepared("INSERT OR REPLACE INTO nodes VALUES(?,?)"));
    save->bind(1, node.name);
    save->bind(2, NodeRecord(node));
    save->exec();
  }

  void SavePolicy(const std::string& kind, const std::string& name, const std::string& record) {
    Use save(Prepared("INSERT OR REPLACE INTO policies VALUES(?,?,?)"));
    save->bind(1, kind);
    save->bind(2, name);
    save->bind(3, record);
    save->exec();
  }

  void SaveEvent(const core::Event& e) {
    Use save(Prepared("INSERT INTO events VALUES(?,?,?,?,?,?,?,?,?,?)"));
    save->bind(1, static_cast<int64_t>(e.seq));
    save->bind(2, e.job_id);
    save->bind(3, static_cast<int64_t>(e.job_seq));
    save->bind(4, static_cast<int64_t>(e.time_us));
    save->bind(5, e.kind);
    save->bind(6, e.actor);
    save->bind(7, static_cast<int>(e.reason));
    save->bind(8, e.message);
    save->bind(9, e.attempt);
    save->bind(10, static_cast<int64_t>(e.term));
    save->exec();
  }

  void SaveRequest(const core::Request& request) {
    Use save(Prepared("INSERT INTO requests VALUES(?,?,?)"));
    save->bind(1, request.id);
    save->bind(2, request.sha256);
    save->bind(3, request.job_id);
    save->exec();
  }

 private:
  // For one execution: a statement that was left in the middle would hold the read transaction open.
  class Use {
   public:
    explicit Use(SQLite::Statement& statement) : statement_(statement) { statement_.clearBindings(); }
    ~Use() { statement_.tryReset(); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    SQLite::Statement* operator->() { return &statement_; }

   private:
    SQLite::Statement& statement_;
  };

  // `sql` is a literal.
  SQLite::Statement& Prepared(const char* sql) {
    std::unique_ptr<SQLite::Statement>& statement = statements_[sql];
    if (!statement) statement = std::make_unique<SQLite::Statement>(database_, sql);
    return *statement;
  }

  int StoredAttempt(const std::string& job_id) {
    Use read(Prepared("SELECT attempt FROM jobs WHERE id=?"));
    read->bind(1, job_id);
    return read->executeStep() ? read->getColumn(0).getInt() : 0;
  }

  SQLite::Database& database_;
  const std::int64_t term_;
  std::unordered_map<const char*, std::unique_ptr<SQLite::Statement>> statements_;
};

SqliteStore::SqliteStore(FileLock lock, std::string path)
    : lock_(std::move(lock)),
      path_(std::move(path)),
      database_(path_, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000) {}

SqliteStore::~SqliteStore() = default;

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::string& folder) {
  RETURN_IF_ERROR(MakeFolders(folder));
  ASSIGN_OR_RETURN(FileLock lock, LockFile(folder + "/lock"));
  const std::string path = folder + "/control.db";
  try {
    auto store = std::unique_ptr<SqliteStore>(new SqliteStore(std::move(lock), path));
    SQLite::Database& db = store->database_;
    RETURN_IF_ERROR(CheckFile(db, path));
    Configure(db);
    SQLite::Transaction change(db);
    const int schema = db.execAndGet("PRAGMA user_version").getInt();
    if (schema == 0) {
      db.exec(kTables);
      db.exec("PRAGMA application_id=" + std::to_string(kApplicationId));
      db.exec("INSERT INTO meta VALUES('store_id','" + NewUuid() + "'),('term','0')");
    }
    if (schema < 2) db.exec(kPolicies);
    if (schema < kSchema) db.exec("PRAGMA user_version=" + std::to_string(kSchema));
    db.exec("UPDATE meta SET value=CAST(value AS INTEGER)+1 WHERE key='term'");
    store->store_id_ = db.execAndGet("SELECT value FROM meta WHERE key='store_id'").getString();
    store->term_ = std::stoll(db.execAndGet("SELECT value FROM meta WHERE key='term'").getString());
    change.commit();
    store->statements_ = std::make_unique<Statements>(db, store->term_);
    store->reader_ = std::make_unique<SQLite::Database>(path, SQLite::OPEN_READONLY, 5000);
    return store;
  } catch (const SQLite::Exception& error) {
    return FromSqlite(error, "open", path);
  }
}

absl::StatusOr<core::State> SqliteStore::Load() {
  ASSIGN_OR_RETURN(core::State state, LoadState(database_, path_));
  state.term = term_;
  return state;
}

absl::StatusOr<core::State> LoadState(SQLite::Database& database, const std::string& path) {
  try {
    core::State state;
    SQLite::Statement jobs(database, "SELECT record, spec FROM jobs ORDER BY queue_seq");
    while (jobs.executeStep()) {
      Restore(state, JobFromRecord(jobs.getColumn(0).getString(), jobs.getColumn(1).getString()));
    }
    SQLite::Statement nodes(database, "SELECT record FROM nodes");
    while (nodes.executeStep()) {
      Restore(state, NodeFromRecord(nodes.getColumn(0).getString()));
    }
    SQLite::Statement policies(database, "SELECT kind, record FROM policies");
    while (policies.executeStep()) {
      const std::string record = policies.getColumn(1).getString();
      if (policies.getColumn(0).getString() == "project") {
        core::Project project = ProjectFromRecord(record);
        state.projects[project.name] = std::move(project);
      } else {
        core::Queue queue = QueueFromRecord(record);
        state.queues[{queue.project, queue.name}] = std::move(queue);
      }
    }
    SQLite::Statement requests(database, "SELECT id, sha256, job FROM requests");
    while (requests.executeStep()) {
      core::Request request{requests.getColumn(0).getString(), requests.getColumn(1).getString(),
                            requests.getColumn(2).getString()};
      state.requests[request.id] = std::move(request);
    }
    state.next_event_seq = database.execAndGet("SELECT coalesce(max(seq),0)+1 FROM events").getInt64();
    return state;
  } catch (const SQLite::Exception& error) {
    return FromSqlite(error, "read", path);
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError("store " + path + " holds a record this build cannot read (" + error.what() +
                               "): the file was left as it is; restore a backup");
  }
}

absl::StatusOr<std::string> SqliteStore::NewStoreId() {
  try {
    SQLite::Statement save(database_, "UPDATE meta SET value=? WHERE key='store_id'");
    store_id_ = NewUuid();
    save.bind(1, store_id_);
    save.exec();
    return store_id_;
  } catch (const SQLite::Exception& error) {
    return FromSqlite(error, "write", path_);
  }
}

absl::Status SqliteStore::Probe() {
  try {
    SQLite::Transaction change(database_);
    RETURN_IF_ERROR(statements_->CheckTerm());
    database_.exec(
        "INSERT INTO meta VALUES('probe','1') ON CONFLICT(key) DO UPDATE SET value=CAST(value AS INTEGER)+1");
    change.commit();
    return absl::OkStatus();
  } catch (const SQLite::Exception& error) {
    return FromSqlite(error, "write", path_);
  }
}

absl::Status SqliteStore::Commit(const core::Transaction& transaction) {
  try {
    SQLite::Transaction change(database_);
    RETURN_IF_ERROR(statements_->CheckTerm());
    for (const auto& [id, job] : transaction.jobs()) {
      statements_->SaveJob(job);
      statements_->DropClaims(job);
    }
    // After all were dropped: a slot may pass from one job to another in one batch.
    for (const auto& [id, job] : transaction.jobs()) statements_->AddClaims(job);
    for (const auto& [name, node] : transaction.nodes()) {
      if (!transaction.IsTouchOnly(name)) statements_->SaveNode(node);
    }
    for (const auto& [name, project] : transaction.projects())
      statements_->SavePolicy("project", name, ProjectRecord(project));
    for (const auto& [key, queue] : transaction.queues())
      statements_->SavePolicy("queue", key.first + "/" + key.second, QueueRecord(queue));
    for (const core::Event& event : transaction.events()) statements_->SaveEvent(event);
    for (const auto& [id, request] : transaction.requests()) statements_->SaveRequest(request);
    change.commit();
    return absl::OkStatus();
  } catch (const SQLite::Exception& error) {
    return FromSqlite(error, "write", path_);
  }
}

absl::StatusOr<std::vector<core::Event>> SqliteStore::ReadEvents(const std::string& job_id, std::int64_t after,
                                                                 int limit) {
  const std::lock_guard lock(reader_mutex_);
  try {
    SQLite::Statement read(*reader_, std::string("SELECT seq, job, job_seq, time_us, kind, actor, reason, message, "
                                                 "attempt, term FROM events WHERE seq > ?") +
                                         (job_id.empty() ? "" : " AND job = ?") + " ORDER BY seq LIMIT " +
                                         std::to_string(limit));
    read.bind(1, static_cast<int64_t>(after));
    if (!job_id.empty()) read.bind(2, job_id);
    std::vector<core::Event> events;
    while (read.executeStep()) {
      core::Event e;
      e.seq = read.getColumn(0).getInt64();
      e.job_id = read.getColumn(1).getString();
      e.job_seq = read.getColumn(2).getInt64();
      e.time_us = read.getColumn(3).getInt64();
      e.kind = read.getColumn(4).getString();
      e.actor = read.getColumn(5).getString();
      e.reason = static_cast<core::Reason>(read.getColumn(6).getInt());
      e.message = read.getColumn(7).getString();
      e.attempt = read.getColumn(8).getInt();
      e.term = read.getColumn(9).getInt64();
      events.push_back(std::move(e));
    }
    return events;
  } catch (const SQLite::Exception& error) {
    return FromSqlite(error, "read", path_);
  }
}

}  // namespace vicreg::store
