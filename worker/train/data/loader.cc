#include "worker/train/data/loader.h"

#include <algorithm>

#include "worker/train/error.h"

namespace vicreg::train {

Loader::Loader(const ImageSet& images, const LoaderOptions& options)
    : images_(images),
      options_(options),
      steps_per_epoch_(images.count / options.batch_size),
      range_(RowsOfRank(options.batch_size, options.rank, options.world_size)),
      next_step_(options.first_step) {
  if (steps_per_epoch_ == 0) {
    throw RankError(ExitReason::kData, "found " + std::to_string(images.count) + " samples; a batch of " +
                                           std::to_string(options.batch_size) +
                                           " needs at least as many: lower batch_size or give more data");
  }
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
    order = std::make_shared<const std::vector<std::uint32_t>>(EpochOrder(options_.seed, epoch, images_.count));
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
        const std::int64_t own = range_.end - range_.begin,
                           values = options_.views * own * options_.view.size * options_.view.size;
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
                                             Operation::kSubstitute, 0, images_.count))
          : (*order)[static_cast<std::size_t>(position)];
  const std::int64_t pixels = std::int64_t{options_.view.size} * options_.view.size;
  for (int view = 0; view < options_.views; ++view) {
    MakeView(images_.image(sample), images_.height, images_.width, options_.view,
             {options_.seed, epoch, sample, static_cast<std::uint8_t>(view)},
             batch.views.data() + (view * batch.rows + row) * pixels);
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
