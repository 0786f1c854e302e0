#pragma once

#include <string>
#include <vector>

#include "coordinator/core/state.h"

namespace vicreg::core {

// What must hold after every commit; a sentence for each that does not.
std::vector<std::string> Broken(const State& state);

}  // namespace vicreg::core
