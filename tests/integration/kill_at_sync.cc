// Loaded into the coordinator (LD_PRELOAD): ends it with SIGKILL at the n-th time it makes its control store durable,
// before or after the system call. The coordinator itself knows nothing of this. $KILL_AT: n, from 1. $KILL_WHEN:
// before, after.

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdlib>
#include <string>

namespace {

std::atomic<int> seen{0};

// control.db, its WAL and its journal; metrics.db is another store.
bool IsControlStore(int fd) {
  char path[PATH_MAX];
  const ssize_t length = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof path);
  return length > 0 && std::string(path, static_cast<std::size_t>(length)).find("/control.db") != std::string::npos;
}

int SyncAndCount(int fd, long call) {
  const char* at = std::getenv("KILL_AT");
  const char* when = std::getenv("KILL_WHEN");
  const bool here = at != nullptr && IsControlStore(fd) && ++seen == std::atoi(at);
  if (here && (when == nullptr || std::string(when) == "before")) kill(getpid(), SIGKILL);
  const int result = static_cast<int>(syscall(call, fd));
  if (here) kill(getpid(), SIGKILL);
  return result;
}

}  // namespace

extern "C" int fsync(int fd) { return SyncAndCount(fd, SYS_fsync); }
extern "C" int fdatasync(int fd) { return SyncAndCount(fd, SYS_fdatasync); }
