#include "tests/simulation/plan.h"

#include <algorithm>

#include "tests/simulation/random.h"

namespace vicreg::simulation {

const char* Name(What what) {
  static const char* const kNames[] = {"rank crash",
                                       "rank exits",
                                       "numeric",
                                       "rank ignores stop",
                                       "rank unkillable",
                                       "rank hangs",
                                       "rank hangs leaving",
                                       "starts fail",
                                       "ranks cut",
                                       "worker kill",
                                       "reboot",
                                       "machine off",
                                       "freeze",
                                       "probe fails",
                                       "freeze when launched",
                                       "break",
                                       "cut",
                                       "cut up",
                                       "cut down",
                                       "repeat",
                                       "coordinator kill",
                                       "coordinator away",
                                       "kill before commit",
                                       "kill after commit",
                                       "kill in recovery",
                                       "power cut",
                                       "take over",
                                       "stall",
                                       "disk fails once",
                                       "disk fails",
                                       "disk slow",
                                       "history fails",
                                       "wall jump",
                                       "submit",
                                       "submit again",
                                       "cancel",
                                       "pause",
                                       "resume",
                                       "hold",
                                       "release",
                                       "requeue",
                                       "restart",
                                       "resize",
                                       "priority",
                                       "cordon",
                                       "drain",
                                       "open",
                                       "probe",
                                       "quota",
                                       "queue"};
  static_assert(std::size(kNames) == static_cast<std::size_t>(What::kCount));
  return kNames[static_cast<std::size_t>(what)];
}

Plan MakePlan(std::uint64_t seed) {
  Random random(seed * 0x2545f4914f6cdd1d + 1);
  Plan plan;
  plan.seed = seed;
  plan.length = std::chrono::milliseconds(20'000 + random.Draw(160'000));
  const auto add = [&](What what) {
    plan.steps.push_back(
        {std::chrono::milliseconds(random.Draw(static_cast<int>(plan.length.count()))), what, random.Next()});
  };
  // Swarms: each run has some kinds of faults, so that none is always hidden by another.
  std::vector<What> faults;
  for (int i = 0; i < static_cast<int>(What::kSubmit); ++i) {
    if (random.Chance(25)) faults.push_back(static_cast<What>(i));
  }
  const int count = random.Chance(10) ? 0 : random.Draw(16);
  for (int i = 0; i < count && !faults.empty(); ++i)
    add(faults[static_cast<std::size_t>(random.Draw(static_cast<int>(faults.size())))]);
  for (int i = 2 + random.Draw(6); i > 0; --i) add(What::kSubmit);
  const int first = static_cast<int>(What::kSubmitAgain), last = static_cast<int>(What::kCount);
  const int wishes = random.Draw(3) == 0 ? 0 : random.Draw(10);
  for (int i = 0; i < wishes; ++i) add(static_cast<What>(first + random.Draw(last - first)));
  std::stable_sort(plan.steps.begin(), plan.steps.end(), [](const Step& a, const Step& b) { return a.at < b.at; });
  return plan;
}

}  // namespace vicreg::simulation
