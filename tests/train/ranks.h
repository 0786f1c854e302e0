#pragma once

// Ranks as threads of one process: real Gloo between them, a store in memory. For tests of what ranks compute together;
// that they also do so as processes is parity_test.cc's.

#include <ATen/Parallel.h>

#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

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
    if (found == values_.end() ? !expected.empty() : found->second != expected)
      return found == values_.end() ? "" : found->second;
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
    for (const std::string& key : keys) {
      if (!values_.contains(key)) return false;
    }
    return true;
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

// Calls `body` once per rank, each on its own thread; throws what the first failing rank threw. A group of one has no
// backend. Connections are made once per size and kept to the end of the process: no rank hangs up while a peer still
// reads.
inline void RunRanks(int world_size, const std::function<void(Group&)>& body) {
  static auto& connected = *new std::map<int, std::vector<Group>>;
  // c10d's flight recorder is one per process, and adds a new group to a map outside its lock (2.11): only safe with
  // one group.
  static const bool recorder_off = setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/1) == 0;
  if (!recorder_off) throw std::runtime_error("cannot set TORCH_FR_BUFFER_SIZE");
  const auto store = std::make_shared<MemoryStore>();
  const bool connect = world_size > 1 && !connected.contains(world_size);
  std::vector<Group>& groups = connected[world_size];
  groups.resize(static_cast<std::size_t>(world_size));
  std::vector<std::exception_ptr> thrown(groups.size());
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < world_size; ++rank) {
      threads.emplace_back([&, rank] {
        const auto own = static_cast<std::size_t>(rank);
        try {
          at::set_num_threads(1);
          ProcessGroupOptions options;
          options.rank = rank;
          options.world_size = world_size;
          options.timeout = std::chrono::seconds(20);
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
