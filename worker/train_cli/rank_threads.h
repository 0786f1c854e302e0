#pragma once

// Ranks as threads of one process: real Gloo between them, a rendezvous in memory. For `vicreg-train objective` and
// tests of what ranks compute together; a training run has a process per rank.

#include <chrono>
#include <functional>
#include <string>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

// Why this process cannot connect so many, with what it has, what is needed and how many it can; empty if it can.
// Raises the limit on open files as far as it may.
std::string WhyNotSoManyRanks(int world_size);

// Calls `body` once per rank, each on its own thread; throws what the first failing rank threw. A group of one has no
// backend. Connections are made once per size and kept to the end of the process: no rank hangs up while a peer still
// reads. Ranks are connected in pairs, so descriptors grow with world_size squared. `timeout`: of connecting and of
// each collective; taken when a size is first connected. Not thread-safe.
void RunRanks(int world_size, const std::function<void(Group&)>& body,
              std::chrono::seconds timeout = std::chrono::seconds(20));

}  // namespace vicreg::train
