#pragma once

#include "common/status.h"
#include "vicreg/v1/worker_service.pb.h"

namespace vicreg::service {

// A worker is not trusted: what it says of its node is bounded and must make sense. FailedPrecondition: every problem,
// a line each.
absl::Status CheckInventory(const v1::Register& wire);

}  // namespace vicreg::service
