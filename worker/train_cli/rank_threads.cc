#include "worker/train_cli/rank_threads.h"

#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace vicreg::train {
namespace {

class MemoryStore : public KeyValueStore {
 public:
  void Set(const std::string& key, const std::string& value) override {
    const std::scoped_lock lock(mutex_);
    values_[key] = value;
    changed_.notify_all();
  }
  std::string Get(const std::string& key, std::chrono::milliseconds timeout) override {
    std::unique_lock lock(mutex_);
    Await(lock, {key}, timeout);
    return values_[key];
  }
  std::int64_t Add(const std::string& key, std::int64_t delta) override {
    const std::scoped_lock lock(mutex_);
    std::string& value = values_[key];
    const std::int64_t sum = (value.empty() ? 0 : std::stoll(value)) + delta;
    value = std::to_string(sum);
    changed_.notify_all();
    return sum;
  }
  std::string CompareSet(const std::string& key, const std::string& expected, const std::string& value) override {
    const std::scoped_lock lock(mutex_);
    const auto found = values_.find(key);
    if (found == values_.end() ? !expected.empty() : found->second != expected) {
      return found == values_.end() ? "" : found->second;
    }
    changed_.notify_all();
    return values_[key] = value;
  }
  bool Delete(const std::string& key) override {
    const std::scoped_lock lock(mutex_);
    return values_.erase(key) > 0;
  }
  bool Check(const std::vector<std::string>& keys) override {
    const std::scoped_lock lock(mutex_);
    return Holds(keys);
  }
  void Wait(const std::vector<std::string>& keys, std::chrono::milliseconds timeout) override {
    std::unique_lock lock(mutex_);
    Await(lock, keys, timeout);
  }
  std::int64_t CountKeys() override {
    const std::scoped_lock lock(mutex_);
    return static_cast<std::int64_t>(values_.size());
  }

 private:
  bool Holds(const std::vector<std::string>& keys) const {
    return std::all_of(keys.begin(), keys.end(), [&](const std::string& key) { return values_.contains(key); });
  }
  void Await(std::unique_lock<std::mutex>& lock, const std::vector<std::string>& keys,
             std::chrono::milliseconds timeout) {
    if (!changed_.wait_for(lock, timeout, [&] { return Holds(keys); }))
      throw std::runtime_error("timeout waiting for " + keys.front());
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
};

// Of the process; a machine's services, and containers, are often given no more than 1024.
std::int64_t DescriptorLimit() {
  rlimit files{};
  return getrlimit(RLIMIT_NOFILE, &files) == 0 ? static_cast<std::int64_t>(files.rlim_cur) : 0;
}

// A pair of ranks holds a connection by both ends; each rank listens and polls; the rest is the program's own.
std::int64_t DescriptorsFor(std::int64_t ranks) { return ranks * (ranks - 1) + 8 * ranks + 64; }

// Before the first thread.
void PrepareProcess() {
  static bool prepared = false;
  if (prepared) return;
  prepared = true;
  // c10d's flight recorder is one per process, and adds a new group to a map outside its lock (2.11): only safe with
  // one group.
  if (setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/1) != 0)
    throw std::runtime_error("cannot set TORCH_FR_BUFFER_SIZE");
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);  // if refused, as many ranks as there are descriptors for
  }
}

}  // namespace

std::string WhyNotSoManyRanks(int world_size) {
  PrepareProcess();
  const std::int64_t limit = DescriptorLimit();
  if (DescriptorsFor(world_size) <= limit) return "";
  int most = world_size;
  while (most > 1 && DescriptorsFor(most) > limit) --most;
  return "needs about " + std::to_string(DescriptorsFor(world_size)) + " open files, and this process may have " +
         std::to_string(limit) + "; expected at most " + std::to_string(most) +
         " here, or raise the limit (ulimit -Hn)";
}

void RunRanks(int world_size, const std::function<void(Group&)>& body, std::chrono::seconds timeout) {
  static auto& connected = *new std::map<int, std::vector<Group>>;
  PrepareProcess();
  const auto store = std::make_shared<MemoryStore>();
  const bool connect = world_size > 1 && !connected.contains(world_size);
  const int threads = std::max(static_cast<int>(std::thread::hardware_concurrency()) / world_size, 1);
  std::vector<Group>& groups = connected[world_size];
  groups.resize(static_cast<std::size_t>(world_size));
  std::vector<std::exception_ptr> thrown(groups.size());
  {
    std::vector<std::jthread> ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto own = static_cast<std::size_t>(rank);
        try {
          at::set_num_threads(threads);
          ProcessGroupOptions options;
          options.rank = rank;
          options.world_size = world_size;
          options.timeout = timeout;
          if (connect) groups[own] = Group(MakeProcessGroup(store, options), rank, world_size);
          Group group = groups[own];  // its counters start at 0
          body(group);
        } catch (...) {
          thrown[own] = std::current_exception();
        }
      });
    }
  }
  for (const std::exception_ptr& error : thrown) {
    if (!error) continue;
    connected.erase(world_size);
    std::rethrow_exception(error);
  }
}

}  // namespace vicreg::train
