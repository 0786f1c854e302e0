#pragma once

// How long nodes may be silent. A node is given up a third later than its worker's lease lapses, which is 7.5
// heartbeats (worker/core/lease.h): the worker knows first. Beyond 1,000 of them all their timers stretch alike, so
// that heartbeats stay at 500 a second; what concerns ranks never does. Pure.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

#include "coordinator/core/state.h"
#include "coordinator/core/transaction.h"

namespace vicreg::core {

struct NodeTimers {
  std::chrono::milliseconds heartbeat{2000}, suspect{5000}, lost{20000};
};

// `nodes`: those that are not LOST.
inline NodeTimers TimersFor(std::size_t nodes, const Options& options) {
  const double stretch = std::max(1.0, static_cast<double>(nodes) / 1000.0);
  const auto stretched = [&](std::chrono::milliseconds time) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(static_cast<double>(time.count()) * stretch));
  };
  return {stretched(options.heartbeat), stretched(options.suspect), stretched(options.lost)};
}

inline NodeTimers TimersFor(const std::vector<const Node*>& nodes, const Options& options) {
  const auto there =
      std::count_if(nodes.begin(), nodes.end(), [](const Node* n) { return n->state != NodeState::kLost; });
  return TimersFor(static_cast<std::size_t>(there), options);
}

}  // namespace vicreg::core
