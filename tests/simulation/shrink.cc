#include "tests/simulation/shrink.h"

#include <chrono>
#include <numeric>

#include "tests/simulation/world.h"

namespace vicreg::simulation {
namespace {

// What broke, without whom it broke for: "job 3.7 (QUEUED) is late" and "job 1.1 (QUEUED) is late" are one thing.
std::string KindOf(const Outcome& outcome) {
  std::string kind;
  for (const char c : outcome.wrong.front()) {
    if (c < '0' || c > '9') kind += c;
  }
  return kind.substr(0, kind.find(':'));
}

bool BreaksAlike(const Plan& plan, const std::vector<std::size_t>& steps, const std::string& kind) {
  const Outcome outcome = Run(Keep(plan, steps), false);
  return !outcome.wrong.empty() && KindOf(outcome) == kind;
}

}  // namespace

Outcome Run(const Plan& plan, bool keep_trace) {
  World world(plan, keep_trace);
  const TimePoint begin = world.events.now();
  world.Run();
  return {world.wrong, world.trace.hash(), world.events.count(),
          std::chrono::duration<double>(world.events.now() - begin).count() / 3600, world.trace.lines()};
}

Plan Keep(const Plan& plan, const std::vector<std::size_t>& steps) {
  Plan kept{plan.seed, {}, plan.length};
  for (const std::size_t i : steps) {
    if (i < plan.steps.size()) kept.steps.push_back(plan.steps[i]);
  }
  return kept;
}

std::vector<std::size_t> Shrink(const Plan& plan) {
  std::vector<std::size_t> steps(plan.steps.size());
  std::iota(steps.begin(), steps.end(), 0);
  const std::string kind = KindOf(Run(plan, false));
  while (!steps.empty()) {
    const std::vector<std::size_t> shorter(steps.begin(), steps.end() - 1);
    if (!BreaksAlike(plan, shorter, kind)) break;
    steps = shorter;
  }
  for (std::size_t i = steps.size(); i-- > 0;) {
    std::vector<std::size_t> without = steps;
    without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
    if (BreaksAlike(plan, without, kind)) steps = without;
  }
  return steps;
}

}  // namespace vicreg::simulation
