#pragma once

#include <string>
#include <vector>

namespace vicreg::agent {

// UUIDs of the GPUs NVML finds; empty without a driver. `note` says what was found, for the log.
std::vector<std::string> FindGpus(std::string& note);

}  // namespace vicreg::agent
