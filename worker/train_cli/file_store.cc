#include "worker/train_cli/file_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace vicreg::train {
namespace {

constexpr std::chrono::milliseconds kPoll{5};
constexpr const char* kSuffix = ".key";

// Held for one operation. Every operation opens the file anew, so threads exclude each other as well.
class Guard {
 public:
  explicit Guard(const std::string& folder)
      : fd_(open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    if (fd_ < 0 || flock(fd_, LOCK_EX) != 0)
      throw std::runtime_error("rendezvous folder " + folder + ": " + std::strerror(errno));
  }
  ~Guard() { close(fd_); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  const int fd_;
};

std::optional<std::string> Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void Write(const std::string& path, const std::string& value) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << value;
  out.flush();
  if (!out) throw std::runtime_error("rendezvous file " + path + " cannot be written");
}

}  // namespace

// Keys hold slashes; hex does not.
std::string FileStore::PathOf(const std::string& key) const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string name;
  for (const char c : key) {
    name += kDigits[static_cast<unsigned char>(c) >> 4];
    name += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return folder_ + "/" + name + kSuffix;
}

void FileStore::Set(const std::string& key, const std::string& value) {
  const Guard guard(folder_);
  Write(PathOf(key), value);
}

std::string FileStore::Get(const std::string& key, std::chrono::milliseconds timeout) {
  Wait({key}, timeout);
  const Guard guard(folder_);
  return Read(PathOf(key)).value_or("");
}

std::int64_t FileStore::Add(const std::string& key, std::int64_t delta) {
  const Guard guard(folder_);
  const std::int64_t sum = std::stoll(Read(PathOf(key)).value_or("0")) + delta;
  Write(PathOf(key), std::to_string(sum));
  return sum;
}

std::string FileStore::CompareSet(const std::string& key, const std::string& expected, const std::string& value) {
  const Guard guard(folder_);
  const auto found = Read(PathOf(key));
  if (found ? *found != expected : !expected.empty()) return found.value_or("");
  Write(PathOf(key), value);
  return value;
}

bool FileStore::Delete(const std::string& key) {
  const Guard guard(folder_);
  return std::filesystem::remove(PathOf(key));
}

bool FileStore::Check(const std::vector<std::string>& keys) {
  const Guard guard(folder_);
  return std::all_of(keys.begin(), keys.end(),
                     [&](const std::string& key) { return std::filesystem::exists(PathOf(key)); });
}

void FileStore::Wait(const std::vector<std::string>& keys, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!Check(keys)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      throw std::runtime_error("timeout of " + std::to_string(timeout.count()) + " ms: another rank did not publish " +
                               keys.front());
    }
    std::this_thread::sleep_for(kPoll);
  }
}

std::int64_t FileStore::CountKeys() {
  const Guard guard(folder_);
  std::int64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) count += entry.path().extension() == kSuffix;
  return count;
}

}  // namespace vicreg::train
