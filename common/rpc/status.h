#pragma once

// The one place where grpc::Status and absl::Status meet.

#include <grpcpp/support/status.h>

#include "common/status.h"

namespace vicreg::rpc {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace vicreg::rpc
