#pragma once

// KeyValueStore as c10d wants it. Only files that talk to c10d include this.

#include <memory>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "worker/train/distributed/key_value_store.h"

namespace vicreg::train {

// Waiting calls use the store's timeout (setTimeout). Thread-safe as the KeyValueStore is.
class RelayStore : public c10d::Store {
 public:
  RelayStore(std::shared_ptr<KeyValueStore> store, std::chrono::milliseconds timeout)
      : c10d::Store(timeout), store_(std::move(store)) {}

  using c10d::Store::compareSet;
  using c10d::Store::set;

  c10::intrusive_ptr<c10d::Store> clone() override { return c10::make_intrusive<RelayStore>(store_, timeout_); }
  void set(const std::string& key, const std::vector<uint8_t>& value) override { store_->Set(key, Text(value)); }
  std::vector<uint8_t> compareSet(const std::string& key, const std::vector<uint8_t>& expected,
                                  const std::vector<uint8_t>& value) override {
    return Bytes(store_->CompareSet(key, Text(expected), Text(value)));
  }
  std::vector<uint8_t> get(const std::string& key) override { return Bytes(store_->Get(key, timeout_)); }
  int64_t add(const std::string& key, int64_t delta) override { return store_->Add(key, delta); }
  bool deleteKey(const std::string& key) override { return store_->Delete(key); }
  bool check(const std::vector<std::string>& keys) override { return store_->Check(keys); }
  int64_t getNumKeys() override { return store_->CountKeys(); }
  void wait(const std::vector<std::string>& keys) override { store_->Wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
    store_->Wait(keys, timeout);
  }

 private:
  static std::string Text(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }
  static std::vector<uint8_t> Bytes(const std::string& text) { return {text.begin(), text.end()}; }

  const std::shared_ptr<KeyValueStore> store_;
};

}  // namespace vicreg::train
