#pragma once

// What gRPC alone costs: the services' messages answered with nothing behind them. Heartbeats on streams, and empty
// unary calls.

#include <grpcpp/grpcpp.h>

#include <memory>

#include "vicreg/v1/cluster_service.grpc.pb.h"
#include "vicreg/v1/worker_service.grpc.pb.h"

namespace vicreg::bench {

class BareServer {
 public:
  BareServer();  // on a port of the kernel's choice; throws std::runtime_error
  int port() const { return port_; }

 private:
  class Workers final : public v1::WorkerService::CallbackService {
    grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(grpc::CallbackServerContext*) override;
  };
  class Calls final : public v1::ClusterService::CallbackService {
    grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext* context, const v1::GetClusterRequest*,
                                         v1::GetClusterResponse*) override;
  };

  Workers workers_;
  Calls calls_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace vicreg::bench
