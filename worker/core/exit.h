#pragma once

// Exit codes and reasons of a rank process (jobs_service.proto, ExitReason). Pure.

#include <string>

#include "vicreg/v1/jobs_service.pb.h"

namespace vicreg::worker {

// The reason behind an exit code; INTERNAL for one that is not on the list.
v1::ExitReason ReasonOfCode(int code);

// Reason and sentence for a wait status (waitpid).
v1::ExitReason ReasonOfStatus(int wait_status, std::string& message, int& code);

// Peers of a rank that ended so need not be stopped.
bool EndsWell(v1::ExitReason reason);

}  // namespace vicreg::worker
