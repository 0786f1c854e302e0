#pragma once

#include "common/rpc/gate.h"
#include "coordinator/service/coordinator.h"
#include "vicreg/v1/cluster_service.grpc.pb.h"

namespace vicreg::service {

// Decode, call, encode; contracts are in cluster_service.proto.
class ClusterService final : public v1::ClusterService::CallbackService {
 public:
  ClusterService(Coordinator& coordinator, const rpc::Gate& gate) : coordinator_(coordinator), gate_(gate) {}
  grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext*, const v1::GetClusterRequest*,
                                       v1::GetClusterResponse*) override;
  grpc::ServerUnaryReactor* ListNodes(grpc::CallbackServerContext*, const v1::ListNodesRequest*,
                                      v1::ListNodesResponse*) override;
  grpc::ServerUnaryReactor* ChangeNode(grpc::CallbackServerContext*, const v1::ChangeNodeRequest*,
                                       v1::ChangeNodeResponse*) override;
  grpc::ServerUnaryReactor* ListQueues(grpc::CallbackServerContext*, const v1::ListQueuesRequest*,
                                       v1::ListQueuesResponse*) override;
  grpc::ServerUnaryReactor* SetQueue(grpc::CallbackServerContext*, const v1::SetQueueRequest*,
                                     v1::SetQueueResponse*) override;
  grpc::ServerUnaryReactor* ListQuotas(grpc::CallbackServerContext*, const v1::ListQuotasRequest*,
                                       v1::ListQuotasResponse*) override;
  grpc::ServerUnaryReactor* SetQuota(grpc::CallbackServerContext*, const v1::SetQuotaRequest*,
                                     v1::SetQuotaResponse*) override;

 private:
  Coordinator& coordinator_;
  const rpc::Gate& gate_;
};

}  // namespace vicreg::service
