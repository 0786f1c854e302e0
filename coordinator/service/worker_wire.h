#pragma once

// What core decides and what workers say, as the messages of worker_service.proto. No gRPC.

#include <optional>
#include <string>

#include "common/status.h"
#include "coordinator/core/decide.h"
#include "vicreg/v1/worker_service.pb.h"

namespace vicreg::service {

// At most `most` bytes, cut between two UTF-8 characters: half of one would make every answer that holds it unreadable.
std::string Cut(const std::string& text, std::size_t most);

// `state`: as of the commit that decided it. nullopt: the job's stored spec is not one.
std::optional<v1::ConnectResponse> ToWire(const core::Message& message, const core::State& state);
v1::ConnectResponse ToWire(const core::Welcome& welcome, std::int64_t term, const std::string& store_id,
                           int heartbeat_ms);

core::Report ToReport(const v1::RankReport& wire);
// Of the worker of that node and incarnation. Its number is 0 when an operator asked.
core::ProbeAnswer ToProbeAnswer(const v1::Probed& wire, const std::string& node, std::int64_t incarnation);
// Whatever it claims (inventory.h judges it).
core::Registration ToRegistration(const v1::Register& wire);

}  // namespace vicreg::service
