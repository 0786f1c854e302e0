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

// Answers of workers to what they were asked, by call id. Each is called back once, or forgotten.
template <typename Message>
class Calls {
 public:
  using Callback = std::function<void(const Message&)>;

  // Ids grow from `first`: one that an earlier coordinator gave out must not come again.
  explicit Calls(std::int64_t first) : next_(first) {}

  std::int64_t Add(Callback callback) {
    const std::lock_guard lock(mutex_);
    waiting_[next_] = std::move(callback);
    return next_++;
  }
  void Answer(const Message& message) {
    Callback callback;
    {
      const std::lock_guard lock(mutex_);
      const auto found = waiting_.find(message.call_id());
      if (found == waiting_.end()) return;
      callback = std::move(found->second);
      waiting_.erase(found);
    }
    callback(message);
  }
  // False: it was answered, or is being answered now.
  bool Forget(std::int64_t id) {
    const std::lock_guard lock(mutex_);
    return waiting_.erase(id) != 0;
  }

 private:
  std::mutex mutex_;
  std::int64_t next_;
  std::map<std::int64_t, Callback> waiting_;
};
using LogCalls = Calls<v1::LogChunk>;
using ProbeCalls = Calls<v1::Probed>;

class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  WorkerService(Coordinator& coordinator, Rendezvous& rendezvous, LogCalls& logs, ProbeCalls& probes,
                const rpc::Gate& gate)
      : coordinator_(coordinator), rendezvous_(rendezvous), logs_(logs), probes_(probes), gate_(gate) {}
  grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override;

 private:
  Coordinator& coordinator_;
  Rendezvous& rendezvous_;
  LogCalls& logs_;
  ProbeCalls& probes_;
  const rpc::Gate& gate_;
};

}  // namespace vicreg::service
