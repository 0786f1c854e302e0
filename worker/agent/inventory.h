#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace vicreg::agent {

// UUIDs of the GPUs NVML finds; empty without a driver. `note` says what was found, for the log.
std::vector<std::string> FindGpus(std::string& note);

// Why ranks of `rank_program` cannot compute on `device` ("cpu", "gpu") here; empty if they can. Asks the program
// itself
// (--check-device), which knows how it was built and whether its libraries load. What it says goes to `log_path`.
std::string WhyNoRanksOn(const std::string& device, const std::string& rank_program, const std::string& log_path,
                         std::chrono::milliseconds patience = std::chrono::seconds(60));

}  // namespace vicreg::agent
