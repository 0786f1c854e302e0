#pragma once

// The coordinator as a command sees it: calls that are repeated while nobody answers, streams that are opened again
// where they broke.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cli/interrupt.h"
#include "common/rpc/status.h"
#include "vicreg/v1/cluster_service.grpc.pb.h"
#include "vicreg/v1/jobs_service.grpc.pb.h"

namespace vicreg::cli {

using SteadyTime = std::chrono::steady_clock::time_point;

class Client {
 public:
  explicit Client(std::string address);

  // Unavailable after 5 s of nobody answering; the message says how to start one. `method` as in
  // &v1::JobsService::Stub::GetJob.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request) {
    Response response;
    RETURN_IF_ERROR(Retry([&](grpc::ClientContext& context) {
      response.Clear();
      return (stub.*method)(&context, request, &response);
    }));
    return response;
  }

  // Reads one server stream to its end. `open` is called again, after a pause, when the coordinator goes away, for up
  // to a minute; `take` sees every message and answers false to stop. DeadlineExceeded: `deadline`; Cancelled: the user
  // detached.
  template <typename Response>
  absl::Status Follow(Interrupts& interrupts, std::optional<SteadyTime> deadline,
                      const std::function<std::unique_ptr<grpc::ClientReader<Response>>(grpc::ClientContext*)>& open,
                      const std::function<bool(const Response&)>& take) {
    Response message;
    return Reopen(interrupts, deadline, [&](grpc::ClientContext& context, bool& heard) {
      const auto reader = open(&context);
      while (reader->Read(&message)) {
        heard = true;
        if (take(message)) continue;
        context.TryCancel();
        while (reader->Read(&message)) {
        }
        reader->Finish();
        return grpc::Status::OK;
      }
      return reader->Finish();
    });
  }

  // Full id of the one job whose id begins with `prefix`. NotFound; InvalidArgument: several do.
  absl::StatusOr<std::string> FullId(const std::string& prefix);
  absl::StatusOr<v1::Job> Get(const std::string& id);
  absl::StatusOr<std::vector<v1::Job>> List(const std::vector<v1::JobState>& states = {});

  v1::JobsService::Stub& jobs() { return *jobs_; }
  v1::ClusterService::Stub& cluster() { return *cluster_; }
  const std::string& address() const { return address_; }
  void set_patience(std::chrono::milliseconds patience) { patience_ = patience; }

 private:
  absl::Status Retry(const std::function<grpc::Status(grpc::ClientContext&)>& call);
  absl::Status Reopen(Interrupts& interrupts, std::optional<SteadyTime> deadline,
                      const std::function<grpc::Status(grpc::ClientContext&, bool& heard)>& stream);
  absl::Status Explained(const grpc::Status& status) const;
  // For at most `pause`; short when there is a connection.
  void Pause(std::chrono::milliseconds pause);

  const std::string address_;
  std::chrono::milliseconds patience_{5000};
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobsService::Stub> jobs_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
};

}  // namespace vicreg::cli
