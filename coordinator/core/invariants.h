#pragma once

// What must hold; a sentence for each thing that does not. Tests ask after every commit, a simulation too.

#include <string>
#include <vector>

#include "coordinator/core/state.h"
#include "coordinator/core/transaction.h"

namespace vicreg::core {

// Of a state, whatever led to it.
std::vector<std::string> Broken(const State& state);

// Of one commit: only edges of the state machines, events without gap that fold to the state, nothing that only grows
// fallen, nothing placed where nothing new may be, no node in use that should have been probed, no more quarantined
// than may be. `before` needs no more than the jobs and nodes that `tx` changes, and the number of the next event.
std::vector<std::string> BrokenBy(const State& before, const Transaction& tx, const State& after);

// Timers that should have ended or repeated something by `now`, and live jobs that nothing is bound to end.
std::vector<std::string> Overdue(const State& state, TimePoint now);

// As much of `state` as BrokenBy compares with what `tx` makes of it.
State PartBefore(const State& state, const Transaction& tx);

}  // namespace vicreg::core
