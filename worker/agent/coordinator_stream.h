#pragma once

// The worker's one stream to the coordinator: registers, heartbeats, and connects again with full jitter for as long as
// the worker lives. A coordinator that is away is never a reason to touch a rank.

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "worker/agent/agent.h"

namespace vicreg::agent {

class CoordinatorStream {
 public:
  CoordinatorStream(std::string address, Agent& agent);
  ~CoordinatorStream();

 private:
  void Run();
  // One connection; returns how it ended.
  grpc::Status Serve();
  void Queue(v1::ConnectRequest message);
  void Write(grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>& stream);

  const std::string address_;
  Agent& agent_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::ConnectRequest> outgoing_;
  bool stopping_ = false, connected_ = false;
  int heartbeat_ms_ = 2000;
  grpc::ClientContext* context_ = nullptr;
  std::thread thread_;
};

}  // namespace vicreg::agent
