#pragma once

// The coordinator's disk, and its store on it: the real records, in frames that are written and then synced, as SQLite
// does it in WAL mode with synchronous=FULL. A process that is killed loses nothing that was written; a power cut may
// lose what was not synced. The frame of a commit that failed is not seen again, unless a coordinator that starts next
// finds it complete.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/leader.h"
#include "coordinator/telemetry/head.h"
#include "tests/simulation/random.h"

namespace vicreg::simulation {

// kill -9 of the coordinator in the middle of a call.
struct Killed {};

struct Frame {
  std::map<std::string, std::pair<std::string, std::string>> jobs;  // record, spec
  std::map<std::string, int> attempts;
  std::map<std::string, std::string> nodes, projects, queues;
  std::map<std::string, core::Request> requests;
  std::vector<core::Event> events;
  std::int64_t term = 0;
  void Add(const Frame& newer);
};

struct Disk {
  Frame synced;
  std::vector<Frame> unsynced;  // of commits that said OK
  std::optional<Frame> failed;  // of the newest commit, which did not
  // Faults.
  int fail_next = 0;
  bool failing = false;
  int kill_before = 0, kill_after = 0;  // in this many commits; 0: not
  bool kill_recovery = false;

  // Of a process that ends: what the next one reads.
  void OnKill(Random& random);
  void OnPowerCut(Random& random);
};

class DiskStore : public core::Store {
 public:
  explicit DiskStore(Disk& disk) : disk_(disk) {}
  absl::StatusOr<core::State> Load() override;
  absl::Status Commit(const core::Transaction& transaction) override;
  absl::Status Probe() override;

 private:
  absl::Status Fail();
  absl::Status CheckTerm() const;
  absl::Status CheckClaims(const core::Transaction& transaction) const;

  Disk& disk_;
  std::int64_t term_ = 0;
  // What SQLite's primary keys know.
  std::map<std::string, int> attempts_;
  std::map<std::pair<std::string, int>, std::string> claims_;
  std::set<std::int64_t> events_;
  std::int64_t newest_event_ = 0;
};

}  // namespace vicreg::simulation
