#pragma once

// Files the control plane owns. Every error names the path and the system's reason; ResourceExhausted: disk full;
// PermissionDenied: may not; NotFound: no such file; Internal: anything else.

#include <functional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace vicreg {

// `action` and `path` as in "write /a/b"; maps errno to the codes above.
absl::Status ErrnoStatus(int error, std::string_view action, std::string_view path);

absl::StatusOr<std::string> ReadFile(const std::string& path);

// Readers see the old bytes or the new ones, also after a power cut: temporary file, fsync, rename, fsync of the
// folder. With `wrote` large files are written and synced in parts, and it is told the bytes of each.
absl::Status WriteFileAtomically(const std::string& path, std::string_view bytes, unsigned mode = 0600,
                                 const std::function<void(std::size_t)>& wrote = nullptr);

// Makes the folder and its parents (0700). OK when it exists.
absl::Status MakeFolders(const std::string& path);

// Lower-case hex.
std::string Sha256Hex(std::string_view bytes);

// Exclusive OS lock on a file, held until destruction or process end (also by kill -9). Move-only.
class FileLock {
 public:
  FileLock() = default;
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  friend absl::StatusOr<FileLock> LockFile(const std::string& path);
  int fd_ = -1;
};

// Pid of the process that holds the lock of `path`; 0: nobody does, or there is no such file.
int LockHolder(const std::string& path);

// FailedPrecondition: another process holds it; the message names its pid. The file holds the owner's pid as text.
absl::StatusOr<FileLock> LockFile(const std::string& path);

}  // namespace vicreg
