// When a job that would wait could start.

#include <algorithm>

#include "coordinator/core/decide.h"
#include "coordinator/core/index.h"
#include "coordinator/core/scheduler.h"

namespace vicreg::core {
namespace {

// Would it be placed if the first `count` of `ending` were gone?
bool StartsWithout(const Transaction& tx, const Job& job, const std::vector<std::pair<double, std::string>>& ending,
                   std::size_t count) {
  Transaction trial = tx;
  for (std::size_t i = 0; i < count; ++i) {
    Job& gone = trial.EditJob(ending[i].second);
    gone.state = JobState::kSucceeded;
    gone.ranks.clear();
  }
  trial.AddJob(job).state = JobState::kQueued;
  const Plan plan = MakePlan(trial);
  return std::any_of(plan.placements.begin(), plan.placements.end(),
                     [&](const Placement& p) { return p.job_id == job.id; });
}

}  // namespace

std::optional<double> EarliestStart(const Transaction& tx, Job job, const std::map<std::string, double>& ends_in) {
  job.id = "planned";
  std::vector<std::pair<double, std::string>> ending;
  for (const auto& [id, seconds] : ends_in) {
    const Job* running = tx.FindJob(id);
    if (running != nullptr && running->state == JobState::kRunning) ending.emplace_back(seconds, id);
  }
  std::sort(ending.begin(), ending.end());
  if (ending.empty() || !StartsWithout(tx, job, ending, ending.size())) return std::nullopt;
  // What more free slots never spoil: halving finds the first end that is enough.
  std::size_t low = 1, high = ending.size();
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (StartsWithout(tx, job, ending, middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return ending[low - 1].first;
}

}  // namespace vicreg::core
