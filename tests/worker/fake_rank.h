#pragma once

// For tests: a rank that does what it is told, as a client of the worker's Unix socket.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vicreg/v1/rank_service.grpc.pb.h"

namespace vicreg::agent {

class FakeRank {
 public:
  FakeRank(const std::string& socket_path, v1::Hello hello)
      : stub_(v1::RankService::NewStub(grpc::CreateChannel("unix:" + socket_path, grpc::InsecureChannelCredentials()))),
        hello_(std::move(hello)) {
    context_ = std::make_unique<grpc::ClientContext>();
    stream_ = stub_->Attach(context_.get());
    v1::AttachRequest first;
    *first.mutable_hello() = hello_;
    stream_->Write(first);
    reader_ = std::thread([this] {
      v1::AttachResponse message;
      while (stream_->Read(&message)) {
        const std::lock_guard lock(mutex_);
        received_.push_back(message);
        changed_.notify_all();
      }
      const std::lock_guard lock(mutex_);
      over_ = true;
      changed_.notify_all();
    });
  }
  // As when the process dies: no goodbye.
  ~FakeRank() {
    context_->TryCancel();
    reader_.join();
    if (!finished_) stream_->Finish();
  }

  // Waits for the first message that `wanted` accepts; an empty message when none came in time.
  v1::AttachResponse Wait(const std::function<bool(const v1::AttachResponse&)>& wanted,
                          std::chrono::seconds deadline = std::chrono::seconds(20)) {
    std::unique_lock lock(mutex_);
    v1::AttachResponse found;
    changed_.wait_for(lock, deadline, [&] {
      for (const v1::AttachResponse& message : received_) {
        if (!wanted(message)) continue;
        found = message;
        return true;
      }
      return over_;
    });
    return found;
  }
  v1::Assignment WaitForAssignment() {
    return Wait([](const auto& m) { return m.has_assignment(); }).assignment();
  }
  v1::Command WaitForCommand() {
    return Wait([](const auto& m) { return m.has_command(); }).command();
  }
  bool WaitForAck(std::int64_t sequence) {
    return Wait([&](const auto& m) { return m.has_ack() && m.ack().sequence() >= sequence; }).has_ack();
  }

  // Blocks while the worker does not read. False: the stream is broken.
  bool Say(v1::RankSays says) {
    v1::AttachRequest request;
    *request.mutable_says() = std::move(says);
    return stream_->Write(request);
  }
  bool SayRow(std::int64_t sequence) {
    v1::RankSays says;
    says.set_sequence(sequence);
    says.mutable_rows()->add_rows()->set_step(sequence);
    return Say(std::move(says));
  }

  // Ends the stream in good order and tells how the worker saw it.
  grpc::Status Close() {
    stream_->WritesDone();
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return over_; });
    if (!over_) return {grpc::StatusCode::UNKNOWN, "the worker did not end the stream"};
    finished_ = true;
    return stream_->Finish();
  }

  v1::RankService::Stub& stub() { return *stub_; }

 private:
  const std::unique_ptr<v1::RankService::Stub> stub_;
  const v1::Hello hello_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>> stream_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::AttachResponse> received_;
  bool over_ = false, finished_ = false;
  std::thread reader_;
};

}  // namespace vicreg::agent
