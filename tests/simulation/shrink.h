#pragma once

// Runs a seed, and makes a failing one smaller.

#include <cstdint>
#include <string>
#include <vector>

#include "tests/simulation/plan.h"

namespace vicreg::simulation {

struct Outcome {
  std::vector<std::string> wrong;  // empty: every invariant held
  std::uint64_t hash = 0;          // of the trace
  std::int64_t events = 0;
  double hours = 0;                // simulated
  std::vector<std::string> trace;  // when asked for
};

Outcome Run(const Plan& plan, bool keep_trace);

// The fewest steps of the plan that it found to break the same thing: first the shortest prefix, then without what is
// not needed. Returned: their numbers in the plan.
std::vector<std::size_t> Shrink(const Plan& plan);

Plan Keep(const Plan& plan, const std::vector<std::size_t>& steps);

}  // namespace vicreg::simulation
