#include "coordinator/service/fanout.h"

#include <algorithm>
#include <chrono>

namespace vicreg::service {

Fanout::Fanout() : thread_([this] { Run(); }) {}

Fanout::~Fanout() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Fanout::Add(std::shared_ptr<Watcher> watcher) {
  {
    const std::lock_guard lock(mutex_);
    watchers_.push_back(std::move(watcher));
  }
  changed_.notify_all();
}

int Fanout::count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(watchers_.size());
}

void Fanout::Run() {
  while (true) {
    std::vector<std::shared_ptr<Watcher>> watchers;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !watchers_.empty(); });
      changed_.wait_for(lock, std::chrono::milliseconds(50), [&] { return stopping_; });
      if (stopping_) return;
      watchers = watchers_;
    }
    std::vector<std::shared_ptr<Watcher>> ended;
    for (const auto& watcher : watchers) {
      if (!watcher->Pump()) ended.push_back(watcher);
    }
    watchers.clear();
    const std::lock_guard lock(mutex_);
    std::erase_if(watchers_, [&](const auto& w) { return std::find(ended.begin(), ended.end(), w) != ended.end(); });
  }
}

}  // namespace vicreg::service
