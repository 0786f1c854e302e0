#pragma once

// Batches of two or more views, prefetched by a few threads. One thread carries one sample from ticket to slot; the
// consumer gets steps in order. What a batch holds depends on (seed, step, rank, world size) alone, never on the
// threads.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <thread>
#include <vector>

#include "worker/train/data/order.h"
#include "worker/train/data/samples.h"

namespace vicreg::train {

struct Batch {
  std::int64_t step = 0;  // 0-based
  std::int64_t rows = 0;
  std::pmr::vector<float> views;  // rows x the values of a view: all first views, then all second ones, ...
};

struct LoaderOptions {
  std::uint64_t seed = 1;
  std::int64_t batch_size = 256;
  int rank = 0, world_size = 1;
  int threads = 1;
  int slots = 3;  // batches in memory
  std::int64_t first_step = 0;
  std::int64_t substituted_step = -1;  // 0-based: each of its samples is replaced by one drawn for its position
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();  // of the batches; outlives them
};

// Owned and called by one thread; its own threads live from construction to destruction.
class Loader {
 public:
  // `samples` outlives the loader. Needs samples.count >= batch_size (RankError kData). The place of a view is a number
  // in its draws.
  Loader(const SampleSet& samples, const LoaderOptions& options);
  ~Loader();

  // The batch of the next step. Rethrows what a thread threw.
  Batch Next();

  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }

 private:
  struct Slot {
    Batch batch;
    std::int64_t done = 0;
  };

  void Work();
  void Fill(std::int64_t step, std::int64_t row, Batch& batch);
  std::shared_ptr<const std::vector<std::uint32_t>> Order(std::uint32_t epoch);

  const SampleSet& samples_;
  const LoaderOptions options_;
  const std::int64_t steps_per_epoch_;
  const RowRange range_;
  std::vector<std::int64_t> before_;  // values of a sample's views before each, and of all of them

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, std::unique_ptr<Slot>> slots_;  // by step
  std::map<std::uint32_t, std::shared_ptr<const std::vector<std::uint32_t>>> orders_;
  std::int64_t next_ticket_ = 0;  // (step - first_step) * rows + row
  std::int64_t next_step_;
  std::exception_ptr error_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace vicreg::train
