#pragma once

// The rendezvous store as the trainer sees it, without torch: worker/rank relays it to the coordinator, tests keep it
// in memory. `RelayStore` (relay_store.h) presents it to c10d as a c10d::Store. Thread-safe. Calls throw
// std::runtime_error
// ("timeout ..." when a wait ran out).

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace vicreg::train {

class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  virtual void Set(const std::string& key, const std::string& value) = 0;
  // Waits until the key exists.
  virtual std::string Get(const std::string& key, std::chrono::milliseconds timeout) = 0;
  // Adds to a decimal number (absent: 0); returns the sum.
  virtual std::int64_t Add(const std::string& key, std::int64_t delta) = 0;
  // Sets `value` if the key holds `expected`, or is absent and `expected` is empty; returns what it then holds.
  virtual std::string CompareSet(const std::string& key, const std::string& expected, const std::string& value) = 0;
  virtual bool Delete(const std::string& key) = 0;
  virtual bool Check(const std::vector<std::string>& keys) = 0;
  virtual void Wait(const std::vector<std::string>& keys, std::chrono::milliseconds timeout) = 0;
  virtual std::int64_t CountKeys() = 0;
};

}  // namespace vicreg::train
