#include "coordinator/core/index.h"

#include <utility>

namespace vicreg::core {
namespace {

void List(State& state, const Job& job) {
  if (IsTerminal(job.state)) return;
  state.live.insert(AgeOf(job));
  if (HoldsSlots(job.state)) state.holding.insert(AgeOf(job));
  if (job.state == JobState::kBackoff) state.delayed.insert(AgeOf(job));
  if (job.deadline_us > 0) state.timed.insert(AgeOf(job));
  if (job.state == JobState::kQueued) {
    const auto [alike, added] = state.queued.try_emplace(ClassOf(job), JobClass{job.project, job.priority, {}});
    alike->second.jobs.insert(AgeOf(job));
  }
}

void Unlist(State& state, const Job& job) {
  if (IsTerminal(job.state)) return;
  state.live.erase(AgeOf(job));
  state.holding.erase(AgeOf(job));
  state.delayed.erase(AgeOf(job));
  state.timed.erase(AgeOf(job));
  if (job.state != JobState::kQueued) return;
  const auto alike = state.queued.find(ClassOf(job));
  if (alike == state.queued.end()) return;
  alike->second.jobs.erase(AgeOf(job));
  if (alike->second.jobs.empty()) state.queued.erase(alike);
}

}  // namespace

void Put(State& state, Job job) {
  const auto [found, added] = state.jobs.try_emplace(job.id);
  if (!added) Unlist(state, found->second);
  found->second = std::move(job);
  List(state, found->second);
}

std::string ClassOf(const Job& job) {
  std::string key = job.project + "|" + job.queue + "|" + std::to_string(job.priority) + "|" +
                    std::to_string(job.min_world) + "|" + std::to_string(job.max_world) + "|" + job.slot_kind + "|" +
                    job.data_root + "|" + Name(job.topology.level) + (job.topology.required ? "!" : "");
  for (const std::string& label : job.labels) key += "|+" + label;
  for (const std::string& node : job.excluded) key += "|-" + node;
  for (const auto& [a, b] : job.bad_pairs) key += "|-" + a + "+" + b;
  return key;
}

std::vector<std::string> BrokenIndexes(const State& state) {
  State again;
  for (const auto& [id, job] : state.jobs) List(again, job);
  std::vector<std::string> broken;
  if (again.live != state.live) broken.push_back("the index of live jobs is wrong");
  if (again.holding != state.holding) broken.push_back("the index of jobs that hold slots is wrong");
  if (again.delayed != state.delayed) broken.push_back("the index of delayed jobs is wrong");
  if (again.timed != state.timed) broken.push_back("the index of jobs with a deadline is wrong");
  if (again.queued != state.queued) broken.push_back("the index of queued jobs is wrong");
  return broken;
}

}  // namespace vicreg::core
