#pragma once

// Copies of the control store, checks of one, and the way back from a copy.

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"

namespace vicreg::store {

struct SnapshotFile {
  std::string name;  // control-<UTC>.db
  std::int64_t bytes = 0;
  std::string sha256;
};

// A consistent copy of FOLDER/control.db as FOLDER/snapshots/control-<UTC of wall_us>.db, durable when this returns;
// the coordinator may be writing meanwhile. Of the copies only the newest 24 are kept. ResourceExhausted: disk full.
absl::StatusOr<SnapshotFile> TakeSnapshot(const std::string& folder, std::int64_t wall_us);

struct Findings {
  std::int64_t jobs = 0, live = 0, events = 0, nodes = 0;
  std::vector<std::string> problems;  // a sentence each; at most 100
};

// Reads a store and says what is wrong with it: the file itself, events without gap that fold to each job's state,
// claims that equal the ranks of gangs, attempt numbers, and what must hold after every commit (core/invariants.h).
// Changes nothing; the coordinator may run. NotFound: no such file. DataLoss: it cannot be read at all.
absl::StatusOr<Findings> CheckStore(const std::string& path);

struct Restored {
  std::int64_t jobs = 0, requeued = 0;
  std::string store_id, moved_aside;  // the new id; the path of what was there, empty for nothing
};

// Makes FOLDER/control.db what `snapshot` holds, under a new store id. What the copy may not know has happened since:
// attempt numbers are lifted past every folder that a rank has made beneath `artifact_root`, so whatever still runs is
// fenced; gangs go back to the queue. The store that was there is moved aside, not removed. FailedPrecondition: a
// coordinator holds the folder, or the snapshot has problems (all of them).
absl::StatusOr<Restored> RestoreSnapshot(const std::string& folder, const std::string& snapshot,
                                         const std::string& artifact_root, std::int64_t wall_us);

}  // namespace vicreg::store
