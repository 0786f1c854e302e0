#include "common/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

namespace vicreg {
namespace {

// Seconds on the slowest storage anybody trains on.
constexpr std::size_t kPart = std::size_t{32} << 20;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t wrote = write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return ErrnoStatus(errno, "write", path);
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::string& folder) {
  const Fd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return ErrnoStatus(errno, "open folder", folder);
  if (fsync(fd.get()) != 0) return ErrnoStatus(errno, "sync folder", folder);
  return absl::OkStatus();
}

}  // namespace

absl::Status ErrnoStatus(int error, std::string_view action, std::string_view path) {
  const std::string text = "cannot " + std::string(action) + " " + std::string(path) + ": " + ErrnoText(error);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(text + ": free space there, or choose another folder");
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text + ": make it writable for this user, or choose another folder");
    case ENOENT:
      return absl::NotFoundError(text);
    default:
      return absl::InternalError(text);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return ErrnoStatus(errno, "open", path);
  std::string bytes;
  char buffer[65536];
  while (true) {
    const ssize_t got = read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read", path);
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(got));
  }
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes, unsigned mode,
                                 const std::function<void(std::size_t)>& wrote) {
  const std::string temporary = path + ".tmp";
  Fd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
  if (fd.get() < 0) return ErrnoStatus(errno, "create", temporary);
  absl::Status status;
  do {
    const std::string_view part = bytes.substr(0, wrote ? kPart : bytes.size());
    status = WriteAll(fd.get(), part, temporary);
    if (status.ok() && fsync(fd.get()) != 0) status = ErrnoStatus(errno, "sync", temporary);
    if (status.ok() && wrote) wrote(part.size());
    bytes.remove_prefix(part.size());
  } while (status.ok() && !bytes.empty());
  if (close(fd.release()) != 0 && status.ok()) status = ErrnoStatus(errno, "close", temporary);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) status = ErrnoStatus(errno, "rename to", path);
  if (!status.ok()) {
    unlink(temporary.c_str());  // half a file helps nobody, least of all a full disk
    return status;
  }
  const std::string folder = std::filesystem::path(path).parent_path();
  return SyncFolder(folder.empty() ? "." : folder);
}

absl::Status MakeFolders(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  struct stat info;
  if (stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return absl::OkStatus();
    return absl::InternalError("cannot make folder " + path + ": a file of that name is in the way");
  }
  if (!parent.empty() && parent.string() != path) RETURN_IF_ERROR(MakeFolders(parent));
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "make folder", path);
  return absl::OkStatus();
}

std::string Sha256Hex(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr);
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    text += kHex[digest[i] >> 4];
    text += kHex[digest[i] & 15];
  }
  return text;
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileLock::~FileLock() {
  if (fd_ >= 0) close(fd_);
}

int LockHolder(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  // A shared lock, so that two who ask at once do not take each other for the holder.
  if (fd.get() < 0 || flock(fd.get(), LOCK_SH | LOCK_NB) == 0) return 0;
  char pid[32] = {};
  return pread(fd.get(), pid, sizeof pid - 1, 0) > 0 ? std::atoi(pid) : 0;
}

absl::StatusOr<FileLock> LockFile(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return ErrnoStatus(errno, "open lock", path);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", path);
    char pid[32] = {};
    const ssize_t got = pread(fd.get(), pid, sizeof pid - 1, 0);
    return absl::FailedPreconditionError(path + " is held by process " + (got > 0 ? std::string(pid) : "?") +
                                         ": stop that process, or choose another folder");
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(fd.get(), 0) != 0) return ErrnoStatus(errno, "truncate", path);
  RETURN_IF_ERROR(WriteAll(fd.get(), pid, path));
  FileLock lock;
  lock.fd_ = fd.release();
  return lock;
}

}  // namespace vicreg
