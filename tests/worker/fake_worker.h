#pragma once

// For tests: the worker's side of a rank's line, which does what it is told. Lives as long as the socket exists.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "vicreg/v1/rank_service.grpc.pb.h"

namespace vicreg::rank {

class FakeWorker : public v1::RankService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>;

  struct Options {
    v1::Assignment assignment;
    bool deny = false;
    bool read = true;          // false: says nothing is wanted until Read()
    bool acknowledge = false;  // all at once
  };

  FakeWorker(const std::string& socket_path, Options options) : options_(std::move(options)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket_path, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  // As when the worker is killed: streams break, nobody listens.
  ~FakeWorker() override {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      changed_.notify_all();
    }
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  grpc::Status Attach(grpc::ServerContext*, Stream* stream) override {
    v1::AttachRequest request;
    if (!stream->Read(&request) || !request.has_hello()) return {grpc::StatusCode::FAILED_PRECONDITION, "no hello"};
    if (options_.deny) return {grpc::StatusCode::PERMISSION_DENIED, "not a rank of this worker"};
    v1::AttachResponse answer;
    *answer.mutable_assignment() = options_.assignment;
    stream->Write(answer);
    {
      std::unique_lock lock(mutex_);
      stream_ = stream;
      changed_.notify_all();
      changed_.wait(lock, [&] { return options_.read || over_; });
    }
    while (stream->Read(&request)) {
      if (!request.has_says()) continue;  // where it is: has no number and is never said again
      {
        const std::lock_guard lock(mutex_);
        said_.push_back(request.says());
        changed_.notify_all();
      }
      if (options_.acknowledge) Ack(request.says().sequence());
    }
    const std::lock_guard lock(mutex_);
    stream_ = nullptr;
    return grpc::Status::OK;
  }

  void Read() {
    const std::lock_guard lock(mutex_);
    options_.read = true;
    changed_.notify_all();
  }
  void Ack(std::int64_t sequence) {
    v1::AttachResponse message;
    message.mutable_ack()->set_sequence(sequence);
    Send(message);
  }
  void Command(v1::Command::Kind kind, bool nobody_confirms = false) {
    v1::AttachResponse message;
    message.mutable_command()->set_kind(kind);
    message.mutable_command()->set_nobody_confirms(nobody_confirms);
    Send(message);
  }
  std::vector<v1::RankSays> Said() {
    const std::lock_guard lock(mutex_);
    return said_;
  }
  // False: not in time.
  bool Wait(const std::function<bool(const std::vector<v1::RankSays>&)>& wanted,
            std::chrono::seconds deadline = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, deadline, [&] { return wanted(said_); });
  }

 private:
  void Send(const v1::AttachResponse& message) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return stream_ != nullptr || over_; });
    if (stream_ != nullptr) stream_->Write(message);
  }

  Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  Stream* stream_ = nullptr;
  std::vector<v1::RankSays> said_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace vicreg::rank
