#include "worker/train/data/files.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "worker/train/error.h"

namespace vicreg::train {

void RefuseFile(const std::string& file, const std::string& text) {
  throw RankError(ExitReason::kData, "data file " + file + ": " + text);
}

int OpenBeneath(const std::string& root, const std::string& relative) {
  const int folder = open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) RefuseFile(root, "cannot open the data root: " + std::string(std::strerror(errno)));
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  const int fd = static_cast<int>(syscall(SYS_openat2, folder, relative.c_str(), &how, sizeof how));
  const int error = errno;
  close(folder);
  if (fd >= 0) {
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      close(fd);
      RefuseFile(relative, "not a regular file beneath the data root");
    }
    return fd;
  }
  if (error == ENOENT) return -1;
  RefuseFile(relative, "cannot open it beneath the data root: " + std::string(std::strerror(error)));
}

}  // namespace vicreg::train
