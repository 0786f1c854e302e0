#pragma once

// Everything a coordinator is, put together: used by main and by tests.

#include <functional>
#include <memory>
#include <string>

#include "common/rpc/gate.h"
#include "coordinator/service/coordinator.h"

namespace vicreg::service {

struct ServerOptions {
  std::string folder;                           // control.db, metrics.db, lock
  std::string artifact_root;                    // exports are read from here
  std::string grpc_address = "127.0.0.1:7070";  // port 0 asks the kernel
  std::string http_address = "127.0.0.1:7071";
  // Another coordinator has begun a term on the store: this one serves nothing any more, and is to end.
  std::function<void()> deposed = [] {};
};

class Server {
 public:
  // Errors name the folder, file or address and the next step.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                                       std::unique_ptr<rpc::Policy> policy);
  virtual ~Server() = default;  // stops serving, in reverse order of starting
  virtual int grpc_port() const = 0;
  virtual int http_port() const = 0;
};

}  // namespace vicreg::service
