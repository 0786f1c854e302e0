#include "worker/agent/coordinator_stream.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "vicreg/v1/worker_service.grpc.pb.h"

namespace vicreg::agent {

CoordinatorStream::CoordinatorStream(std::string address, Agent& agent)
    : address_(std::move(address)), agent_(agent), thread_([this] { Run(); }) {}

CoordinatorStream::~CoordinatorStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  changed_.notify_all();
  thread_.join();
}

void CoordinatorStream::Queue(v1::ConnectRequest message) {
  {
    const std::lock_guard lock(mutex_);
    if (!connected_) return;  // reports are kept by the agent and sent again after the next Welcome
    outgoing_.push_back(std::move(message));
  }
  changed_.notify_all();
}

void CoordinatorStream::Run() {
  std::mt19937 dice(std::random_device{}());
  double ceiling_ms = 200;
  std::string said;
  while (true) {
    const auto begin = std::chrono::steady_clock::now();
    const grpc::Status status = Serve();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    if (status.error_code() == grpc::StatusCode::ABORTED) agent_.ForgetIncarnation();
    const std::string sentence = status.ok() ? "the coordinator closed the stream" : status.error_message();
    if (sentence != said)
      spdlog::warn("no coordinator at {}: {}; ranks train on, connecting again", address_, sentence);
    said = sentence;
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(5)) {
      ceiling_ms = 200;
      said.clear();
    }
    std::unique_lock lock(mutex_);
    const auto pause =
        std::chrono::milliseconds(std::uniform_int_distribution<int>(50, static_cast<int>(ceiling_ms))(dice));
    changed_.wait_for(lock, pause, [&] { return stopping_; });
    if (stopping_) return;
    ceiling_ms = std::min(ceiling_ms * 2, 10'000.0);
  }
}

grpc::Status CoordinatorStream::Serve() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel = grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::WorkerService::NewStub(channel);
  grpc::ClientContext context;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return grpc::Status::CANCELLED;
    context_ = &context;
  }
  const auto stream = stub->Connect(&context);
  v1::ConnectRequest first;
  *first.mutable_register_() = agent_.MakeRegister();
  v1::ConnectResponse message;
  std::thread writer;
  bool lapsed = false;
  if (stream->Write(first) && stream->Read(&message) && message.has_welcome()) {
    spdlog::info("registered at {} with incarnation {}", address_, message.welcome().incarnation());
    {
      const std::lock_guard lock(mutex_);
      connected_ = true;
      heartbeat_ms_ = std::max(message.welcome().heartbeat_ms(), 100);
      outgoing_.clear();
    }
    agent_.SetOutlet([this](v1::ConnectRequest m) { Queue(std::move(m)); });
    writer = std::thread([&] { Write(*stream); });
    do {
      if (const int every = message.heartbeat().heartbeat_ms(); every > 0) {
        const std::lock_guard lock(mutex_);
        heartbeat_ms_ = std::max(every, 100);
      }
      lapsed = !agent_.OnMessage(message);
    } while (!lapsed && stream->Read(&message));
    agent_.SetOutlet(nullptr);
  }
  {
    const std::lock_guard lock(mutex_);
    connected_ = false;
  }
  changed_.notify_all();
  context.TryCancel();
  if (writer.joinable()) writer.join();
  grpc::Status status = stream->Finish();
  if (lapsed) status = {grpc::StatusCode::CANCELLED, "this worker's lease had lapsed"};
  const std::lock_guard lock(mutex_);
  context_ = nullptr;
  return status;
}

void CoordinatorStream::Write(grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>& stream) {
  auto next_heartbeat = std::chrono::steady_clock::now();
  while (true) {
    v1::ConnectRequest message;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, next_heartbeat, [&] { return !connected_ || !outgoing_.empty(); });
      if (!connected_) return;
      if (!outgoing_.empty()) {
        message = std::move(outgoing_.front());
        outgoing_.pop_front();
      }
    }
    if (message.message_case() == v1::ConnectRequest::MESSAGE_NOT_SET) {
      *message.mutable_heartbeat() = agent_.MakeHeartbeat();
      next_heartbeat = std::chrono::steady_clock::now() + std::chrono::milliseconds(heartbeat_ms_);
    }
    if (!stream.Write(message)) return;
  }
}

}  // namespace vicreg::agent
