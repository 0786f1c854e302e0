#pragma once

// The gate every RPC handler is entered through. It names the caller and decides; a denial is answered here, so that no
// handler can forget to. A development cluster on loopback asks for no token: the caller is the local user.

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/status.h"

namespace vicreg::rpc {

// Who calls, as shown in events: "local:alice".
struct Principal {
  std::string name;
};

// Decides whether `principal` may call `method` ("vicreg.v1.JobsService/SubmitJob"). Pure. A denial is a sentence.
class Policy {
 public:
  virtual ~Policy() = default;
  virtual absl::Status Decide(const Principal& principal, std::string_view method) const = 0;
};

// Allows everybody everything; only ever used on loopback.
std::unique_ptr<Policy> AllowLocalUser();

// Ends a unary call; may be called from any thread, exactly once.
using UnaryDone = std::function<void(absl::Status)>;

class Gate {
 public:
  explicit Gate(std::unique_ptr<Policy> policy);

  // Principal of an admitted call; PermissionDenied with the policy's sentence otherwise.
  absl::StatusOr<Principal> Admit(grpc::CallbackServerContext* context, std::string_view method) const;

  // Unary handlers: `return gate_.Unary(context, "vicreg.v1.JobsService/GetJob", [=](const Principal&, UnaryDone done)
  // {...});` `handle` runs only when admitted.
  grpc::ServerUnaryReactor* Unary(grpc::CallbackServerContext* context, std::string_view method,
                                  const std::function<void(const Principal&, UnaryDone)>& handle) const;

  // Streams: the reactor finishes with this status when it is not OK, before it reads or sends anything.
  absl::Status Check(grpc::CallbackServerContext* context, std::string_view method) const;

 private:
  std::unique_ptr<Policy> policy_;
  Principal local_user_;
};

}  // namespace vicreg::rpc
