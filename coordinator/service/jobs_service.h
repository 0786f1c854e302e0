#pragma once

#include <map>
#include <string>

#include "common/rpc/gate.h"
#include "coordinator/service/coordinator.h"
#include "coordinator/service/fanout.h"
#include "coordinator/service/worker_service.h"
#include "vicreg/v1/jobs_service.grpc.pb.h"

namespace vicreg::service {

// Decode, call, encode; contracts are in jobs_service.proto.
class JobsService final : public v1::JobsService::CallbackService {
 public:
  JobsService(Coordinator& coordinator, Fanout& fanout, LogCalls& logs, const rpc::Gate& gate)
      : coordinator_(coordinator), fanout_(fanout), logs_(logs), gate_(gate) {}

  grpc::ServerUnaryReactor* SubmitJob(grpc::CallbackServerContext*, const v1::SubmitJobRequest*,
                                      v1::SubmitJobResponse*) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext*, const v1::GetJobRequest*,
                                   v1::GetJobResponse*) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext*, const v1::ListJobsRequest*,
                                     v1::ListJobsResponse*) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext*, const v1::CancelJobRequest*,
                                      v1::CancelJobResponse*) override;
  grpc::ServerUnaryReactor* ChangeJob(grpc::CallbackServerContext*, const v1::ChangeJobRequest*,
                                      v1::ChangeJobResponse*) override;
  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(grpc::CallbackServerContext*,
                                                                 const v1::WatchEventsRequest*) override;
  grpc::ServerWriteReactor<v1::StreamMetricsResponse>* StreamMetrics(grpc::CallbackServerContext*,
                                                                     const v1::StreamMetricsRequest*) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(grpc::CallbackServerContext*,
                                                           const v1::WatchJobRequest*) override;
  grpc::ServerWriteReactor<v1::StreamLogsResponse>* StreamLogs(grpc::CallbackServerContext*,
                                                               const v1::StreamLogsRequest*) override;
  grpc::ServerWriteReactor<v1::ExportJobResponse>* ExportJob(grpc::CallbackServerContext*,
                                                             const v1::ExportJobRequest*) override;

 private:
  // Of running jobs, seconds to their ends at their recent rates.
  std::map<std::string, double> Etas() const;

  Coordinator& coordinator_;
  Fanout& fanout_;
  LogCalls& logs_;
  const rpc::Gate& gate_;
};

}  // namespace vicreg::service
