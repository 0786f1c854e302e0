#include "worker/agent/rank_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/files.h"

namespace vicreg::agent {
namespace {

// Blocks are cut whole; larger than those of the file systems in use.
constexpr std::int64_t kBlock = 64 << 10;

class File {
 public:
  File(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

// Stands for [begin, end) and ends at `end`.
LogPart Notice(std::int64_t begin, std::int64_t end) {
  LogPart part;
  part.data = "\n[... " + std::to_string(end - begin) + " bytes of this log were cut: a rank keeps the first " +
              std::to_string(kLogHead) + " and the newest " + std::to_string(kLogTail) + " or more ...]\n";
  part.offset = end - static_cast<std::int64_t>(part.data.size());
  return part;
}

}  // namespace

std::string RankLogPath(const std::string& folder, const std::string& job_id, int attempt, int rank) {
  return folder + "/logs/" + job_id + "/a" + std::to_string(attempt) + "/rank-" + std::to_string(rank) + ".log";
}

absl::StatusOr<bool> CapRankLog(const std::string& path) {
  const File file(path, O_WRONLY);
  if (file.fd() < 0) return ErrnoStatus(errno, "open", path);
  struct stat found {};
  if (fstat(file.fd(), &found) != 0) return ErrnoStatus(errno, "look at", path);
  if (std::int64_t{found.st_blocks} * 512 <= kMostLogBytes) return false;
  const std::int64_t end = (found.st_size - kLogTail) / kBlock * kBlock;
  if (end <= kLogHead) return false;
  if (fallocate(file.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kLogHead, end - kLogHead) == 0) return true;
  if (errno == EOPNOTSUPP || errno == ENOSYS)
    return absl::UnimplementedError("the file system of " + path +
                                    " cannot cut a file's middle: this log can outgrow " +
                                    std::to_string(kMostLogBytes) + " bytes");
  return ErrnoStatus(errno, "cut the middle of", path);
}

absl::StatusOr<LogPart> ReadRankLog(const std::string& path, std::int64_t offset, int max_bytes) {
  const File file(path, O_RDONLY);
  if (file.fd() < 0) return ErrnoStatus(errno, "open", path);
  offset = std::max<std::int64_t>(offset, 0);
  while (true) {
    const std::int64_t data = lseek(file.fd(), offset, SEEK_DATA);
    if (data < 0) return LogPart{offset, ""};  // ENXIO: at or behind the end
    // All of the cut is named, also to a reader that stood in its middle.
    if (data > offset) return Notice(kLogHead, data);
    const std::int64_t hole = lseek(file.fd(), offset, SEEK_HOLE);
    LogPart part{offset, std::string(static_cast<std::size_t>(
                                         std::clamp<std::int64_t>(hole - offset, 1, std::clamp(max_bytes, 1, 1 << 16))),
                                     '\0')};
    const ssize_t got = pread(file.fd(), part.data.data(), part.data.size(), offset);
    if (got < 0) return ErrnoStatus(errno, "read", path);
    part.data.resize(static_cast<std::size_t>(got));
    // Cut while it was read: the bytes may be the hole's zeros.
    if (got > 0 && lseek(file.fd(), offset, SEEK_HOLE) < offset + got) continue;
    return part;
  }
}

}  // namespace vicreg::agent
