#pragma once

// The log of one rank: what its process writes to stdout and stderr, appended by its own descriptor.
//
// Bounded without the writer's help: when a log takes more than kMostLogBytes on disk its middle is given back to the
// file system (a hole is punched), so that the first kLogHead bytes, which say how the rank began, and at least the
// last kLogTail stay. The writer loses no line, and a byte keeps its offset for ever, so a reader goes on where it was.
// The agent looks once a second; a file system that cannot punch holes (ext4, xfs, btrfs, tmpfs can) gets a warning and
// the whole log.

#include <cstdint>
#include <string>

#include "common/status.h"

namespace vicreg::agent {

inline constexpr std::int64_t kMostLogBytes = std::int64_t{16} << 20;
inline constexpr std::int64_t kLogHead = std::int64_t{1} << 20;
inline constexpr std::int64_t kLogTail = std::int64_t{8} << 20;

// FOLDER/logs/<job>/a<attempt>/rank-<n>.log
std::string RankLogPath(const std::string& folder, const std::string& job_id, int attempt, int rank);

// True when the middle was cut. NotFound: no such log. Unimplemented: the file system cannot punch holes.
absl::StatusOr<bool> CapRankLog(const std::string& path);

struct LogPart {
  std::int64_t offset = 0;  // of the first byte of `data`: the one asked for, or later where that one was cut
  std::string data;         // empty: nothing is there yet
};

// 1 to `max_bytes` (clamped to 1..65536) bytes from `offset` on. In place of a cut: one line that says how much is
// gone, placed so that the next read begins behind the cut. NotFound: no such log.
absl::StatusOr<LogPart> ReadRankLog(const std::string& path, std::int64_t offset, int max_bytes);

}  // namespace vicreg::agent
