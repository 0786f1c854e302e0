#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "common/rpc/gate.h"
#include "coordinator/service/coordinator.h"
#include "coordinator/service/rendezvous.h"
#include "vicreg/v1/worker_service.grpc.pb.h"

namespace vicreg::service {

// Answers of workers to ReadLog, by call id.
class LogCalls {
 public:
  using Callback = std::function<void(const v1::LogChunk&)>;
  std::int64_t Add(Callback callback);
  void Answer(const v1::LogChunk& chunk);
  void Forget(std::int64_t id);

 private:
  std::mutex mutex_;
  std::int64_t next_ = 1;
  std::map<std::int64_t, Callback> waiting_;
};

class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  WorkerService(Coordinator& coordinator, Rendezvous& rendezvous, LogCalls& logs, const rpc::Gate& gate)
      : coordinator_(coordinator), rendezvous_(rendezvous), logs_(logs), gate_(gate) {}
  grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override;

 private:
  Coordinator& coordinator_;
  Rendezvous& rendezvous_;
  LogCalls& logs_;
  const rpc::Gate& gate_;
};

}  // namespace vicreg::service
