#pragma once

// What a worker leaves on disk so that the one after it finds the ranks it started.

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"

namespace vicreg::agent {

// What a restarted worker needs to find the ranks of the one before it: FOLDER/<job>-a<attempt>-r<rank>.json.
struct RankFile {
  std::string job_id;
  int attempt = 0, rank = 0, pid = 0;
  std::uint64_t start_time = 0;
  std::string boot_id;
};
absl::Status SaveRankFile(const std::string& folder, const RankFile& file);
void RemoveRankFile(const std::string& folder, const std::string& job_id, int attempt, int rank);
// Ends every process that a file in `folder` names and that is still the same (pid, start time, boot id), then removes
// the files, damaged ones too. Sentences of what was done. DeadlineExceeded: a process does not end. Internal: the
// folder cannot be read.
absl::StatusOr<std::vector<std::string>> EndLeftovers(const std::string& folder);

}  // namespace vicreg::agent
