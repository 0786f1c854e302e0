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
  int slot = 0;
  std::string secret;  // that the rank proves itself with
  std::string launch;  // serialized v1::Launch, without its other ranks
};
// The file is 0600: it holds the secret.
absl::Status SaveRankFile(const std::string& folder, const RankFile& file);
// And the exit record beside it.
void RemoveRankFile(const std::string& folder, const std::string& job_id, int attempt, int rank);
// Those in `folder` whose process was started in this boot of the kernel and either still lives or has left an exit
// record. What names no such process is removed, damaged files too. Internal: the folder cannot be read.
struct Found {
  RankFile file;
  bool lives = false;
};
absl::StatusOr<std::vector<Found>> FindRanks(const std::string& folder);

// Ends every process that a file in `folder` names and that is still the same (pid, start time, boot id), then removes
// the files, damaged ones too. Sentences of what was done. DeadlineExceeded: a process does not end. Internal: the
// folder cannot be read.
absl::StatusOr<std::vector<std::string>> EndLeftovers(const std::string& folder);

}  // namespace vicreg::agent
