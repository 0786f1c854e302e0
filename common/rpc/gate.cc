#include "common/rpc/gate.h"

#include <pwd.h>
#include <unistd.h>

#include "common/rpc/status.h"

namespace vicreg::rpc {
namespace {

class AllowAll : public Policy {
 public:
  absl::Status Decide(const Principal&, std::string_view) const override { return absl::OkStatus(); }
};

std::string LocalUser() {
  passwd entry;
  passwd* found = nullptr;
  char buffer[4096];
  if (getpwuid_r(getuid(), &entry, buffer, sizeof buffer, &found) == 0 && found != nullptr) {
    return std::string("local:") + found->pw_name;
  }
  return "local:" + std::to_string(getuid());
}

}  // namespace

std::unique_ptr<Policy> AllowLocalUser() { return std::make_unique<AllowAll>(); }

Gate::Gate(std::unique_ptr<Policy> policy) : policy_(std::move(policy)), local_user_{LocalUser()} {}

absl::StatusOr<Principal> Gate::Admit(grpc::CallbackServerContext*, std::string_view method) const {
  if (const absl::Status decision = policy_->Decide(local_user_, method); !decision.ok()) {
    return absl::PermissionDeniedError(local_user_.name + " may not call " + std::string(method) + ": " +
                                       std::string(decision.message()));
  }
  return local_user_;
}

absl::Status Gate::Check(grpc::CallbackServerContext* context, std::string_view method) const {
  return Admit(context, method).status();
}

grpc::ServerUnaryReactor* Gate::Unary(grpc::CallbackServerContext* context, std::string_view method,
                                      const std::function<void(const Principal&, UnaryDone)>& handle) const {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<Principal> who = Admit(context, method);
  if (!who.ok()) {
    reactor->Finish(ToGrpc(who.status()));
  } else {
    handle(*who, [reactor](const absl::Status& status) { reactor->Finish(ToGrpc(status)); });
  }
  return reactor;
}

}  // namespace vicreg::rpc
