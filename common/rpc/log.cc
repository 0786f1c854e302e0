#include "common/rpc/log.h"

#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

namespace vicreg::rpc {

void TakeOverGrpcLog(bool quiet) {
  if (quiet) {
    gpr_set_log_function([](gpr_log_func_args*) {});
    return;
  }
  gpr_set_log_function([](gpr_log_func_args* args) {
    spdlog::log(args->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn : spdlog::level::debug, "gRPC: {}",
                args->message);
  });
}

}  // namespace vicreg::rpc
