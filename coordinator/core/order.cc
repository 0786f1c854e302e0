#include "coordinator/core/order.h"

#include <utility>

namespace vicreg::core {

Order::Order(const std::vector<const Job*>& pending, std::map<std::string, int> held, const Transaction& state)
    : held_(std::move(held)) {
  for (const Job* job : pending) {
    pending_[job->priority][job->project].push_back(job);
    if (weight_.count(job->project) == 0) weight_[job->project] = state.FindProject(job->project).weight;
  }
}

const Job* Order::Next() {
  if (pending_.empty()) return nullptr;
  auto& projects = pending_.begin()->second;
  auto first = projects.begin();
  const auto rank = [&](const auto& entry) {
    return std::pair(held_[entry.first] / weight_[entry.first], entry.second.front()->queue_seq);
  };
  for (auto next = projects.begin(); next != projects.end(); ++next) {
    if (rank(*next) < rank(*first)) first = next;
  }
  const Job* job = first->second.front();
  first->second.pop_front();
  if (first->second.empty()) projects.erase(first);
  if (projects.empty()) pending_.erase(pending_.begin());
  return job;
}

}  // namespace vicreg::core
