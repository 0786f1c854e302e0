#pragma once

// Can this node do what ranks need? Asked by an operator (`vicreg node probe`), and by the coordinator before it places
// anything on a node it does not know; ranks train on meanwhile.

#include "vicreg/v1/worker_service.pb.h"
#include "worker/agent/agent.h"

namespace vicreg::agent {

// Writes to the folders, opens the data roots, and has the rank program compute on each kind of slot. Blocks for
// seconds. Without a call id.
v1::Probed Probe(const AgentOptions& options);

}  // namespace vicreg::agent
