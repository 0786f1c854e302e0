#include "worker/train/data/loader.h"

#include <algorithm>

#include "worker/train/error.h"

namespace vicreg::train {

Loader::Loader(const SampleSet& samples, const LoaderOptions& options)
    : samples_(samples),
      options_(options),
      steps_per_epoch_(samples.count / options.batch_size),
      range_(RowsOfRank(options.batch_size, options.rank, options.world_size)),
      next_step_(options.first_step) {
  if (steps_per_epoch_ == 0) {
    throw RankError(ExitReason::kData, "found " + std::to_string(samples.count) + " samples; a batch of " +
                                           std::to_string(options.batch_size) +
                                           " needs at least as many: lower batch_size or give more data");
  }
  before_.push_back(0);
  for (const auto& view : samples.views) before_.push_back(before_.back() + view->values());
  for (int i = 0; i < std::max(options.threads, 1); ++i) threads_.emplace_back([this] { Work(); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<const std::vector<std::uint32_t>> Loader::Order(std::uint32_t epoch) {
  auto& order = orders_[epoch];
  if (order == nullptr) {
    order = std::make_shared<const std::vector<std::uint32_t>>(EpochOrder(options_.seed, epoch, samples_.count));
    while (orders_.size() > 3) orders_.erase(orders_.begin());
  }
  return order;
}

void Loader::Work() {
  const std::int64_t rows =
      std::max<std::int64_t>(range_.end - range_.begin, 1);  // an empty rank still has a slot per step
  while (true) {
    std::int64_t step, row;
    Slot* slot;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] {
        return stopping_ || error_ || options_.first_step + next_ticket_ / rows < next_step_ + options_.slots;
      });
      if (stopping_ || error_) return;
      step = options_.first_step + next_ticket_ / rows;
      row = next_ticket_ % rows;
      ++next_ticket_;
      auto& entry = slots_[step];
      if (entry == nullptr) {
        const std::int64_t own = range_.end - range_.begin, values = own * before_.back();
        entry = std::make_unique<Slot>(
            Slot{{step, own, std::pmr::vector<float>(static_cast<std::size_t>(values), options_.memory)}, 0});
      }
      slot = entry.get();
    }
    try {
      if (row < slot->batch.rows) Fill(step, row, slot->batch);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      ++slot->done;
    }
    changed_.notify_all();
  }
}

void Loader::Fill(std::int64_t step, std::int64_t row, Batch& batch) {
  const auto epoch = static_cast<std::uint32_t>(step / steps_per_epoch_);
  const std::int64_t position = step % steps_per_epoch_ * options_.batch_size + range_.begin + row;
  std::shared_ptr<const std::vector<std::uint32_t>> order;
  {
    const std::lock_guard lock(mutex_);
    order = Order(epoch);
  }
  const std::uint32_t sample =
      step == options_.substituted_step
          ? static_cast<std::uint32_t>(Below({options_.seed, epoch, static_cast<std::uint64_t>(position), 0},
                                             Operation::kSubstitute, 0, samples_.count))
          : (*order)[static_cast<std::size_t>(position)];
  for (std::size_t view = 0; view < samples_.views.size(); ++view) {
    const View& made = *samples_.views[view];
    made.Draw(sample, {options_.seed, epoch, sample, static_cast<std::uint8_t>(view)},
              batch.views.data() + batch.rows * before_[view] + row * made.values());
  }
}

Batch Loader::Next() {
  const std::int64_t rows = std::max<std::int64_t>(range_.end - range_.begin, 1);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    const auto slot = slots_.find(next_step_);
    return error_ || (slot != slots_.end() && slot->second->done == rows);
  });
  if (error_) std::rethrow_exception(error_);
  Batch batch = std::move(slots_[next_step_]->batch);
  slots_.erase(next_step_++);
  lock.unlock();
  changed_.notify_all();
  return batch;
}

}  // namespace vicreg::train
