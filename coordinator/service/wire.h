#pragma once

// Core records as messages users see.

#include "coordinator/service/coordinator.h"
#include "vicreg/v1/cluster_service.pb.h"

namespace vicreg::service {

v1::Job ToWire(const core::Job& job, const telemetry::History& history);
v1::WatchEventsResponse ToWire(const core::Event& event);
v1::Node ToWire(const core::Node& node, const std::vector<core::Job>& jobs);
v1::Queue ToWire(const core::Queue& queue);
v1::Quota ToWire(const core::Project& project);
v1::PlacementPlan ToWire(const core::Foreseen& plan);

}  // namespace vicreg::service
