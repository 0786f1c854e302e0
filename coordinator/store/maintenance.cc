#include "coordinator/store/maintenance.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <filesystem>
#include <set>

#include "common/files.h"
#include "common/ids.h"
#include "coordinator/core/decide.h"
#include "coordinator/core/invariants.h"
#include "coordinator/store/sqlite_store.h"

namespace vicreg::store {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kKeptSnapshots = 24, kMostProblems = 100;

std::string Utc(std::int64_t wall_us) {
  const std::time_t seconds = wall_us / 1'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &parts);
  return text;
}

absl::Status SyncFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  const bool synced = fsync(fd) == 0;
  const int reason = errno;
  close(fd);
  return synced ? absl::OkStatus() : ErrnoStatus(reason, "sync", path);
}

void KeepNewest(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) files.push_back(entry.path());
  std::sort(files.rbegin(), files.rend());  // names begin alike and end in their time
  for (std::size_t i = kKeptSnapshots; i < files.size(); ++i) fs::remove(files[i], error);
}

// A copy as of one moment, in one file.
absl::Status Copy(const std::string& from, const std::string& to) {
  try {
    SQLite::Database source(from, SQLite::OPEN_READONLY, 5000);
    SQLite::Statement copy(source, "VACUUM INTO ?");
    copy.bind(1, to);
    copy.exec();
  } catch (const SQLite::Exception& error) {
    return FromSqlite(error, "copy " + from + " to", to);
  }
  RETURN_IF_ERROR(SyncFile(to));
  return SyncFile(fs::path(to).parent_path());
}

// The state that an event moves its job to; nullptr: it leaves it as it is.
const char* StateOf(const std::string& kind) {
  if (kind == "SUBMITTED") return "QUEUED";
  if (kind == "NOT_PLACED") return "BACKOFF";
  for (const char* state : {"QUEUED", "RESERVED", "STARTING", "RUNNING", "STOPPING", "BACKOFF", "PAUSED", "SUCCEEDED",
                            "FAILED", "CANCELLED"}) {
    if (kind == state) return state;
  }
  return nullptr;
}

class Check {
 public:
  Check(SQLite::Database& database, Findings& findings) : database_(database), findings_(findings) {}

  void Run(const core::State& state) {
    for (const std::string& sentence : core::Broken(state)) Add(sentence);
    for (const auto& [id, job] : state.jobs) Events(job);
    Claims(state);
    Attempts(state);
    SQLite::Statement orphans(database_,
                              "SELECT id, job FROM requests WHERE job <> '' AND job NOT IN (SELECT id FROM jobs)");
    while (orphans.executeStep()) {
      Add("request " + orphans.getColumn(0).getString() + " was answered with job " + orphans.getColumn(1).getString() +
          ", which is not there");
    }
  }

 private:
  void Add(std::string sentence) {
    if (findings_.problems.size() < kMostProblems) findings_.problems.push_back(std::move(sentence));
  }

  void Events(const core::Job& job) {
    SQLite::Statement read(database_, "SELECT job_seq, kind, attempt FROM events WHERE job=? ORDER BY seq");
    read.bind(1, job.id);
    std::int64_t expected = 1;
    int attempt = 0;
    std::string state;
    while (read.executeStep()) {
      ++findings_.events;
      const std::int64_t number = read.getColumn(0).getInt64();
      if (number != expected)
        Add("job " + job.id + ": event " + std::to_string(number) + " where " + std::to_string(expected) + " belongs");
      expected = number + 1;
      if (const int now = read.getColumn(2).getInt(); now < attempt) {
        Add("job " + job.id + ": attempt fell from " + std::to_string(attempt) + " to " + std::to_string(now) +
            " at event " + std::to_string(number));
      } else {
        attempt = now;
      }
      const std::string kind = read.getColumn(1).getString();
      const bool ended = state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED";
      if (const char* moved = StateOf(kind); moved != nullptr) {
        if (ended) Add("job " + job.id + ": " + kind + " after " + state + ", which is for good");
        state = moved;
      }
    }
    if (expected != job.events + 1) {
      Add("job " + job.id + " has " + std::to_string(expected - 1) + " events, its record says " +
          std::to_string(job.events));
    }
    if (state != core::Name(job.state))
      Add("job " + job.id + " is " + core::Name(job.state) + ", its events end in " + (state.empty() ? "none" : state));
  }

  void Claims(const core::State& state) {
    std::set<std::string> claims, ranks;
    SQLite::Statement read(database_, "SELECT node, kind, slot, job, attempt, rank FROM claims");
    const auto text = [](const std::string& node, const std::string& kind, int slot, const std::string& job,
                         int attempt, int rank) {
      return "slot " + kind + " " + std::to_string(slot) + " of " + node + " for job " + job + " attempt " +
             std::to_string(attempt) + " rank " + std::to_string(rank);
    };
    while (read.executeStep()) {
      claims.insert(text(read.getColumn(0).getString(), read.getColumn(1).getString(), read.getColumn(2).getInt(),
                         read.getColumn(3).getString(), read.getColumn(4).getInt(), read.getColumn(5).getInt()));
    }
    for (const auto& [id, job] : state.jobs) {
      if (!core::HoldsSlots(job.state)) continue;
      for (const core::Rank& rank : job.ranks)
        ranks.insert(text(rank.node, job.slot_kind, rank.slot, id, job.attempt, rank.rank));
    }
    for (const std::string& claim : claims) {
      if (ranks.count(claim) == 0) Add("claimed, but by no gang: " + claim);
    }
    for (const std::string& rank : ranks) {
      if (claims.count(rank) == 0) Add("held, but not claimed: " + rank);
    }
  }

  void Attempts(const core::State& state) {
    SQLite::Statement read(database_, "SELECT job, max(number) FROM attempts GROUP BY job");
    while (read.executeStep()) {
      const std::string id = read.getColumn(0).getString();
      const int newest = read.getColumn(1).getInt();
      const auto job = state.jobs.find(id);
      // A restored store may be ahead of what it has seen begin.
      if (job == state.jobs.end() || job->second.attempt < newest) {
        Add("attempt " + std::to_string(newest) + " of job " + id + " began, but its record says " +
            (job == state.jobs.end() ? std::string("nothing") : std::to_string(job->second.attempt)));
      }
    }
  }

  SQLite::Database& database_;
  Findings& findings_;
};

// The highest attempt that left a folder ROOT/<project>/<job>/a<n>.
int NewestFolder(const std::string& artifact_root, const core::Job& job) {
  int newest = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(artifact_root + "/" + job.project + "/" + job.id, error)) {
    const std::string name = entry.path().filename().string();
    int number = 0;
    if (name.size() > 1 && name[0] == 'a') std::from_chars(name.data() + 1, name.data() + name.size(), number);
    newest = std::max(newest, number);
  }
  return newest;
}

}  // namespace

absl::StatusOr<SnapshotFile> TakeSnapshot(const std::string& folder, std::int64_t wall_us) {
  const std::string snapshots = folder + "/snapshots";
  RETURN_IF_ERROR(MakeFolders(snapshots));
  SnapshotFile file;
  file.name = "control-" + Utc(wall_us) + ".db";
  const std::string path = snapshots + "/" + file.name;
  std::error_code error;
  fs::remove(path, error);  // of the same second
  RETURN_IF_ERROR(Copy(folder + "/control.db", path));
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  file.bytes = static_cast<std::int64_t>(bytes.size());
  file.sha256 = Sha256Hex(bytes);
  KeepNewest(snapshots);
  return file;
}

absl::StatusOr<Findings> CheckStore(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return absl::NotFoundError("no store " + path);
  try {
    SQLite::Database database(path, SQLite::OPEN_READONLY, 5000);
    RETURN_IF_ERROR(CheckFile(database, path));
    SQLite::Transaction one_moment(database);
    ASSIGN_OR_RETURN(const core::State state, LoadState(database, path));
    Findings findings;
    findings.jobs = static_cast<std::int64_t>(state.jobs.size());
    findings.live = static_cast<std::int64_t>(state.live.size());
    findings.nodes = static_cast<std::int64_t>(state.nodes.size());
    Check(database, findings).Run(state);
    return findings;
  } catch (const SQLite::Exception& failed) {
    return FromSqlite(failed, "check", path);
  }
}

absl::StatusOr<Restored> RestoreSnapshot(const std::string& folder, const std::string& snapshot,
                                         const std::string& artifact_root, std::int64_t wall_us) {
  ASSIGN_OR_RETURN(const Findings findings, CheckStore(snapshot));
  if (!findings.problems.empty()) {
    std::string all = snapshot + " has problems and was not restored:";
    for (const std::string& problem : findings.problems) all += "\n  " + problem;
    return absl::FailedPreconditionError(all);
  }
  RETURN_IF_ERROR(MakeFolders(folder));
  ASSIGN_OR_RETURN(const FileLock lock, LockFile(folder + "/lock"));
  const std::string made = folder + "/restored", path = folder + "/control.db";
  Restored restored;
  std::error_code error;
  fs::remove_all(made, error);
  RETURN_IF_ERROR(MakeFolders(made));
  RETURN_IF_ERROR(Copy(snapshot, made + "/control.db"));
  {
    ASSIGN_OR_RETURN(const auto store, SqliteStore::Open(made));
    ASSIGN_OR_RETURN(const core::State state, store->Load());
    const core::Options options;
    core::Transaction change(state, options, core::TimePoint{}, wall_us);
    for (const core::Job* job : change.LiveJobs()) {
      const bool gang = core::HoldsSlots(job->state);
      restored.requeued += gang ? 1 : 0;
      core::Restore(change, job->id, NewestFolder(artifact_root, *job));
    }
    if (change.changed()) RETURN_IF_ERROR(store->Commit(change));
    ASSIGN_OR_RETURN(restored.store_id, store->NewStoreId());
    restored.jobs = static_cast<std::int64_t>(state.jobs.size());
  }
  // Closed by its last connection, it is one file without a log.
  if (fs::exists(path, error)) {
    restored.moved_aside = folder + "/before-restore-" + Utc(wall_us);
    RETURN_IF_ERROR(MakeFolders(restored.moved_aside));
    for (const char* name : {"control.db", "control.db-wal", "control.db-shm"}) {
      if (fs::exists(folder + "/" + name, error))
        fs::rename(folder + "/" + name, restored.moved_aside + "/" + name, error);
      if (error) return absl::InternalError("cannot move " + folder + "/" + name + " aside: " + error.message());
    }
  }
  fs::rename(made + "/control.db", path, error);
  if (error) return absl::InternalError("cannot put " + path + " in place: " + error.message());
  fs::remove_all(made, error);
  RETURN_IF_ERROR(SyncFile(folder));
  return restored;
}

}  // namespace vicreg::store
