#include "coordinator/core/order.h"

#include <algorithm>
#include <utility>

namespace vicreg::core {

Order::Order(std::map<std::string, int> held, const Transaction& state)
    : held_(std::move(held)), classes_(state.QueuedClasses()), current_(classes_.end()) {
  for (auto alike = classes_.begin(); alike != classes_.end(); ++alike) {
    const std::string& project = alike->second.project();
    if (weight_.count(project) == 0) weight_[project] = state.FindProject(project).weight;
    held_.try_emplace(project, 0);
    Enter(alike);
  }
}

void Order::Enter(Classes::iterator alike) {
  const QueuedClass& queued = alike->second;
  const Job* oldest = queued.Front();
  if (oldest == nullptr) return;
  heap_.push_back({{queued.priority(), ShareOf(queued.project()), oldest->queue_seq}, alike});
  std::push_heap(heap_.begin(), heap_.end(), Later);
}

const Job* Order::Next() {
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), Later);
    const Entry entry = heap_.back();
    heap_.pop_back();
    if (entry.turn.share != ShareOf(entry.alike->second.project())) {  // slots were given to its project since
      Enter(entry.alike);
      continue;
    }
    current_ = entry.alike;
    return current_->second.Front();
  }
  return nullptr;
}

void Order::Placed(int slots) {
  held_[current_->second.project()] += slots;
  current_->second.Pop();
  Enter(current_);
}

}  // namespace vicreg::core
