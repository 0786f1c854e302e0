#pragma once

// The rendezvous of ranks on one machine: one file per key in a folder, guarded by an OS lock. Slow (waits poll) and
// enough: some dozens of keys at start. Thread-safe, and safe between processes.

#include <string>

#include "worker/train/distributed/key_value_store.h"

namespace vicreg::train {

class FileStore : public KeyValueStore {
 public:
  // `folder` exists and is this run's alone.
  explicit FileStore(std::string folder) : folder_(std::move(folder)) {}

  void Set(const std::string& key, const std::string& value) override;
  std::string Get(const std::string& key, std::chrono::milliseconds timeout) override;
  std::int64_t Add(const std::string& key, std::int64_t delta) override;
  std::string CompareSet(const std::string& key, const std::string& expected, const std::string& value) override;
  bool Delete(const std::string& key) override;
  bool Check(const std::vector<std::string>& keys) override;
  void Wait(const std::vector<std::string>& keys, std::chrono::milliseconds timeout) override;
  std::int64_t CountKeys() override;

 private:
  std::string PathOf(const std::string& key) const;

  const std::string folder_;
};

}  // namespace vicreg::train
