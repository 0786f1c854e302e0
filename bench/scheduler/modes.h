#pragma once

// What vicreg-bench-scheduler measures, one repetition a call, each in a folder of its own. Times are in seconds.

#include <nlohmann/json.hpp>
#include <string>

namespace vicreg::bench {

// Kueue's workload (kueue.json): how long until all of it was done, and how long each class waited for its Launch.
nlohmann::json Replay(const nlohmann::json& settings, const std::string& folder);

// Gangs of 4, 8, 16 and 64 ranks, submitted at once to an empty cluster: how long until all were durably RESERVED.
nlohmann::json Gangs(const nlohmann::json& settings, const std::string& folder);

// A full cluster and a long queue: from the exit of a gang to the Launch of the next one in its place.
nlohmann::json Latency(const nlohmann::json& settings, const std::string& folder);

// A queue of jobs that the cluster can never hold, each a class of its own: from the submit of one that fits to its
// Launch.
nlohmann::json Misfits(const nlohmann::json& settings, const std::string& folder);

// Floors of the same run: what SQLite does for durable commits of one row, alone and in groups, and a fixed workload of
// a hash map.
nlohmann::json Commits(const std::string& folder);
nlohmann::json Hashing();

// {"p50":, "p99":, "worst":} of samples in seconds.
nlohmann::json Quantiles(std::vector<double> samples);

}  // namespace vicreg::bench
