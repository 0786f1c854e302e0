#pragma once

#include "common/rpc/gate.h"
#include "coordinator/service/coordinator.h"
#include "coordinator/service/worker_service.h"
#include "vicreg/v1/cluster_service.grpc.pb.h"

namespace vicreg::service {

// Decode, call, encode; contracts are in cluster_service.proto.
class ClusterService final : public v1::ClusterService::CallbackService {
 public:
  // `folder` of the coordinator: snapshots go beneath it.
  ClusterService(Coordinator& coordinator, ProbeCalls& probes, std::string folder, const rpc::Gate& gate)
      : coordinator_(coordinator), probes_(probes), folder_(std::move(folder)), gate_(gate) {}
  grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext*, const v1::GetClusterRequest*,
                                       v1::GetClusterResponse*) override;
  grpc::ServerUnaryReactor* ListNodes(grpc::CallbackServerContext*, const v1::ListNodesRequest*,
                                      v1::ListNodesResponse*) override;
  grpc::ServerUnaryReactor* ChangeNode(grpc::CallbackServerContext*, const v1::ChangeNodeRequest*,
                                       v1::ChangeNodeResponse*) override;
  grpc::ServerUnaryReactor* ProbeNode(grpc::CallbackServerContext*, const v1::ProbeNodeRequest*,
                                      v1::ProbeNodeResponse*) override;
  grpc::ServerUnaryReactor* TakeSnapshot(grpc::CallbackServerContext*, const v1::TakeSnapshotRequest*,
                                         v1::TakeSnapshotResponse*) override;
  grpc::ServerUnaryReactor* ListQueues(grpc::CallbackServerContext*, const v1::ListQueuesRequest*,
                                       v1::ListQueuesResponse*) override;
  grpc::ServerUnaryReactor* SetQueue(grpc::CallbackServerContext*, const v1::SetQueueRequest*,
                                     v1::SetQueueResponse*) override;
  grpc::ServerUnaryReactor* ListQuotas(grpc::CallbackServerContext*, const v1::ListQuotasRequest*,
                                       v1::ListQuotasResponse*) override;
  grpc::ServerUnaryReactor* SetQuota(grpc::CallbackServerContext*, const v1::SetQuotaRequest*,
                                     v1::SetQuotaResponse*) override;

  // Answers the probes nobody has answered. From time to time.
  void Expire(TimePoint now);

 private:
  // A probe that was not answered in time.
  struct Waiting {
    std::int64_t call_id;
    TimePoint give_up;
    rpc::UnaryDone done;
  };

  Coordinator& coordinator_;
  ProbeCalls& probes_;
  const std::string folder_;
  const rpc::Gate& gate_;
  std::mutex mutex_;
  std::map<std::string, Waiting> waiting_;  // by node: one at a time
};

}  // namespace vicreg::service
