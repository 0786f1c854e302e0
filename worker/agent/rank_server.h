#pragma once

#include <memory>
#include <string>

#include "common/rpc/gate.h"
#include "worker/agent/agent.h"

namespace vicreg::agent {

// RankService on a Unix socket (0600): ranks of this worker connect here, nobody else.
class RankServer {
 public:
  // FailedPrecondition: the path is longer than a socket's may be (107 bytes) or cannot be bound.
  static absl::StatusOr<std::unique_ptr<RankServer>> Start(const std::string& socket_path, Agent& agent,
                                                           const rpc::Gate& gate);
  virtual ~RankServer() = default;
};

}  // namespace vicreg::agent
