#include "coordinator/core/preempt.h"

#include <algorithm>

namespace vicreg::core {
namespace {

void FreeAll(Slots& slots, const Job& job) {
  for (const Rank& rank : job.ranks) slots.Free({rank.node, rank.slot});
}

bool Touches(const Job& job, const std::set<std::string>& nodes) {
  return std::any_of(job.ranks.begin(), job.ranks.end(), [&](const Rank& r) { return nodes.count(r.node) != 0; });
}

}  // namespace

double StopCost(const Job& job, TimePoint now, const Options& options) {
  // What it saved helps nobody where there is no next attempt.
  const std::chrono::duration<double> unsaved =
      now - (job.one_attempt ? job.running_since : std::max(job.running_since, job.checkpoint_time));
  return job.world_size * (std::max(unsaved.count(), 0.0) + options.restart_cost_seconds);
}

Victims ChooseVictims(const Job& job, const Slots& slots, const Eligible& eligible, int allowed_by_quota,
                      const std::vector<const Job*>& running, const std::vector<TimePoint>& recent,
                      const Transaction& state) {
  std::set<std::string> nodes;
  for (const std::size_t i : eligible) nodes.insert(slots.places()[i].node->name);
  Victims victims;
  std::vector<const Job*> candidates;
  for (const Job* other : running) {
    if (other->priority >= job.priority || other->slot_kind != job.slot_kind || other->state != JobState::kRunning)
      continue;
    const TimePoint ripe = std::max(other->running_since, state.began()) + state.options.min_runtime;
    const bool young = state.now < ripe;
    // Where it runs is worth a look only if that could change something.
    if ((young && ripe >= victims.later) || !Touches(*other, nodes)) continue;
    if (young) {
      victims.later = ripe;
    } else {
      candidates.push_back(other);
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(), [&](const Job* a, const Job* b) {
    if (a->priority != b->priority) return a->priority < b->priority;
    if (a->one_attempt != b->one_attempt) return b->one_attempt;  // for it, this is the end
    return StopCost(*a, state.now, state.options) < StopCost(*b, state.now, state.options);
  });
  const auto fits = [&](const std::vector<const Job*>& stopped) {
    Slots after = slots;
    for (const Job* other : stopped) FreeAll(after, *other);
    return !Pick(after, eligible, job.min_world, std::min(job.max_world, allowed_by_quota), job.topology).empty();
  };
  if (!fits(candidates)) return victims;  // not even all of them would do
  // The shortest run of cheapest ones that is enough (more never fits worse, so halving finds it) ...
  std::size_t low = 0, high = candidates.size();
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (fits({candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(middle)})) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  std::vector<const Job*> chosen(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(high));
  // ... without those it does not need, the dearest first.
  for (std::size_t i = chosen.size(); i-- > 0 && chosen.size() <= 64;) {
    std::vector<const Job*> without = chosen;
    without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
    if (fits(without)) chosen = std::move(without);
  }
  const auto budget = static_cast<std::size_t>(std::max(0, state.options.preemptions_per_hour));
  if (chosen.size() + recent.size() <= budget) {
    victims.jobs = std::move(chosen);
  } else if (chosen.size() <= budget) {
    const std::size_t too_many = chosen.size() + recent.size() - budget;
    victims.later = std::min(victims.later, recent[too_many - 1] + kBudgetPeriod);
  }
  return victims;
}

}  // namespace vicreg::core
