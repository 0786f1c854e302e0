#pragma once

// Jobs and nodes as JSON text in the store.

#include <string>

#include "coordinator/core/state.h"

namespace vicreg::store {

std::string JobRecord(const core::Job& job);
// Throws nlohmann::json::exception for text that is not ours. `spec` is stored beside it.
core::Job JobFromRecord(const std::string& record, const std::string& spec);
std::string NodeRecord(const core::Node& node);
core::Node NodeFromRecord(const std::string& record);

// What a coordinator that starts takes a stored job or node for.
void Restore(core::State& state, core::Job job);
void Restore(core::State& state, core::Node node);

std::string ProjectRecord(const core::Project& project);
core::Project ProjectFromRecord(const std::string& record);

std::string QueueRecord(const core::Queue& queue);
core::Queue QueueFromRecord(const std::string& record);

}  // namespace vicreg::store
