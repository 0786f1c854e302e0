#pragma once

// A real server in this process, on ports of the kernel's choice, in a temporary folder, and clients of it.

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/ids.h"
#include "coordinator/service/server.h"
#include "vicreg/v1/cluster_service.grpc.pb.h"
#include "vicreg/v1/jobs_service.grpc.pb.h"
#include "vicreg/v1/worker_service.grpc.pb.h"

namespace vicreg::service {

class Service : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "service_test_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    Start(rpc::AllowLocalUser());
  }
  void TearDown() override {
    Stop();
    std::filesystem::remove_all(folder_);
  }

  void Start(std::unique_ptr<rpc::Policy> policy) {
    auto server =
        Server::Start({folder_ + "/state", folder_ + "/artifacts", "127.0.0.1:0", "127.0.0.1:0"}, std::move(policy));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ =
        grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->grpc_port()), grpc::InsecureChannelCredentials());
    jobs_ = v1::JobsService::NewStub(channel_);
    cluster_ = v1::ClusterService::NewStub(channel_);
    workers_ = v1::WorkerService::NewStub(channel_);
  }
  void Stop() {
    jobs_.reset();
    cluster_.reset();
    workers_.reset();
    channel_.reset();
    server_.reset();
  }

  static v1::JobSpec Spec(const std::string& name = "test") {
    v1::JobSpec spec;
    spec.set_name(name);
    spec.set_preset("demo-cpu");
    spec.mutable_data()->set_root("images");
    return spec;
  }
  grpc::Status Submit(const v1::JobSpec& spec, const std::string& request_id, v1::SubmitJobResponse* response = nullptr,
                      bool dry_run = false) {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(request_id);
    request.set_dry_run(dry_run);
    v1::SubmitJobResponse unused;
    grpc::ClientContext context;
    return jobs_->SubmitJob(&context, request, response != nullptr ? response : &unused);
  }
  std::string SubmitOne() {
    v1::SubmitJobResponse response;
    const grpc::Status status = Submit(Spec(), NewUuid(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job().id();
  }
  v1::Job Get(const std::string& id) {
    v1::GetJobRequest request;
    request.set_id(id);
    v1::GetJobResponse response;
    grpc::ClientContext context;
    const grpc::Status status = jobs_->GetJob(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job();
  }
  std::vector<v1::Job> List() {
    v1::ListJobsResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(jobs_->ListJobs(&context, {}, &response).ok());
    return {response.jobs().begin(), response.jobs().end()};
  }
  grpc::Status Cancel(const std::string& id) {
    v1::CancelJobRequest request;
    request.set_id(id);
    v1::CancelJobResponse response;
    grpc::ClientContext context;
    return jobs_->CancelJob(&context, request, &response);
  }
  bool Serves() {
    v1::GetClusterResponse response;
    grpc::ClientContext context;
    return cluster_->GetCluster(&context, {}, &response).ok() && response.ready();
  }
  std::string folder_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobsService::Stub> jobs_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
  std::unique_ptr<v1::WorkerService::Stub> workers_;
};

// A worker that says what it is told to, and passes the coordinator's probes unless it is told not to.
class FakeWorker {
 public:
  FakeWorker(v1::WorkerService::Stub& stub, const std::string& node, std::int64_t incarnation = 0,
             const std::vector<v1::HeldRank>& held = {})
      : stream_(stub.Connect(WithDeadline(context_))) {
    v1::ConnectRequest hello;
    hello.mutable_register_()->set_node(node);
    hello.mutable_register_()->set_boot_id("boot");
    hello.mutable_register_()->set_incarnation(incarnation);
    hello.mutable_register_()->set_cpu_slots(2);
    hello.mutable_register_()->add_data_roots("images");
    hello.mutable_register_()->mutable_held()->Assign(held.begin(), held.end());
    Say(hello);
  }
  ~FakeWorker() { context_.TryCancel(); }

  bool passes_probes = true;

  void Say(const v1::ConnectRequest& message) { stream_->Write(message); }
  void Report(const v1::Launch& launch, std::int64_t sequence, const std::function<void(v1::RankReport&)>& fill) {
    v1::ConnectRequest message;
    message.mutable_report()->set_job_id(launch.job_id());
    message.mutable_report()->set_attempt(launch.attempt());
    message.mutable_report()->set_sequence(sequence);
    fill(*message.mutable_report());
    Say(message);
  }
  // The next message of this kind; others are skipped. An empty one when the stream has ended.
  v1::ConnectResponse Next(v1::ConnectResponse::MessageCase kind) {
    v1::ConnectResponse message;
    while (stream_->Read(&message)) {
      if (passes_probes && message.has_probe() && message.probe().call_id() < 0) AnswerProbe(message.probe(), "");
      if (message.message_case() == kind) return message;
    }
    return {};
  }
  void AnswerProbe(const v1::Probe& probe, const std::string& problem) {
    v1::ConnectRequest answer;
    answer.mutable_probed()->set_call_id(probe.call_id());
    if (!problem.empty()) answer.mutable_probed()->add_problems(problem);
    Say(answer);
  }
  // Prepared and launched.
  v1::Launch Launched() {
    const v1::ConnectResponse prepare = Next(v1::ConnectResponse::kPrepare);
    v1::ConnectRequest yes;
    yes.mutable_prepared()->set_job_id(prepare.prepare().job_id());
    yes.mutable_prepared()->set_attempt(prepare.prepare().attempt());
    Say(yes);
    return Next(v1::ConnectResponse::kLaunch).launch();
  }
  // Why the coordinator ended the stream.
  grpc::Status Ended() {
    v1::ConnectResponse message;
    while (stream_->Read(&message)) {
    }
    return stream_->Finish();
  }

 private:
  // A broken promise is a failure, not a hang.
  static grpc::ClientContext* WithDeadline(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    return &context;
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ConnectRequest, v1::ConnectResponse>> stream_;
};

}  // namespace vicreg::service
