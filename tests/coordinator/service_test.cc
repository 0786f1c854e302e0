// Goal: every call enters through the gate, gets the answer its contract promises, and nothing a client sends can stop
// the coordinator. Method: a real server in this process, on ports of the kernel's choice, in a temporary folder.
// Methods are found by walking the descriptors, so that a new one is covered the day it is declared.

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/message.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <limits>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "common/ids.h"
#include "coordinator/service/server.h"
#include "tests/coordinator/connections.h"
#include "tests/coordinator/service_fixture.h"
#include "vicreg/v1/cluster_service.grpc.pb.h"
#include "vicreg/v1/jobs_service.grpc.pb.h"
#include "vicreg/v1/rank_service.pb.h"
#include "vicreg/v1/worker_service.grpc.pb.h"

namespace vicreg::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAreArray;

class DenyAll : public rpc::Policy {
 public:
  // What was asked, shared with the test.
  struct Asked {
    std::mutex mutex;
    std::set<std::string> methods;
  };
  explicit DenyAll(std::shared_ptr<Asked> asked) : asked_(std::move(asked)) {}
  absl::Status Decide(const rpc::Principal&, std::string_view method) const override {
    const std::lock_guard lock(asked_->mutex);
    asked_->methods.insert(std::string(method));
    return absl::PermissionDeniedError("nobody may do anything here");
  }

 private:
  const std::shared_ptr<Asked> asked_;
};

struct Answer {
  grpc::Status status;
  std::vector<std::string> messages;
};

// One call of any kind, as bytes.
Answer Call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
            const std::vector<std::string>& requests, milliseconds patience = milliseconds(20'000)) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + patience);
  const auto done = [&] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  auto call = stub.PrepareCall(&context, "/" + method, &queue);
  call->StartCall(nullptr);
  bool open = done();
  for (const std::string& request : requests) {
    if (!open) break;
    const grpc::Slice slice(request);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    open = done();
  }
  if (open) {
    call->WritesDone(nullptr);
    done();
  }
  Answer answer;
  while (true) {
    grpc::ByteBuffer bytes;
    call->Read(&bytes, nullptr);
    if (!done()) break;
    std::vector<grpc::Slice> slices;
    (void)bytes.Dump(&slices);
    std::string message;
    for (const grpc::Slice& slice : slices) message.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    answer.messages.push_back(std::move(message));
  }
  call->Finish(&answer.status, nullptr);
  done();
  queue.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue.Next(&tag, &ok)) {
  }
  return answer;
}

// "vicreg.v1.JobsService/GetJob"
std::string PathOf(const MethodDescriptor& method) {
  return std::string(method.service()->full_name()) + "/" + std::string(method.name());
}

// Of every service the coordinator's protos declare.
std::vector<const MethodDescriptor*> Methods() {
  std::vector<const MethodDescriptor*> methods;
  for (const auto* file : {v1::GetJobRequest::descriptor()->file(), v1::GetClusterRequest::descriptor()->file(),
                           v1::ConnectRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) methods.push_back(file->service(s)->method(m));
    }
  }
  return methods;
}

std::unique_ptr<Message> NewRequest(const MethodDescriptor& method) {
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(method.input_type())->New());
}

// Names from the server's reflection service.
std::set<std::string> ReflectedServices(const std::shared_ptr<grpc::Channel>& channel) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  auto* factory = google::protobuf::MessageFactory::generated_factory();
  const auto* request_type = pool->FindMessageTypeByName("grpc.reflection.v1alpha.ServerReflectionRequest");
  const auto* response_type = pool->FindMessageTypeByName("grpc.reflection.v1alpha.ServerReflectionResponse");
  if (request_type == nullptr || response_type == nullptr) {
    ADD_FAILURE() << "the reflection service is not linked";
    return {};
  }
  const std::unique_ptr<Message> request(factory->GetPrototype(request_type)->New());
  request->GetReflection()->SetString(request.get(), request_type->FindFieldByName("list_services"), "*");
  const Answer answer =
      Call(channel, "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", {request->SerializeAsString()});
  EXPECT_THAT(answer.messages, SizeIs(1)) << answer.status.error_message();
  const std::unique_ptr<Message> response(factory->GetPrototype(response_type)->New());
  if (answer.messages.empty() || !response->ParseFromString(answer.messages[0])) return {};
  const Message& list =
      response->GetReflection()->GetMessage(*response, response_type->FindFieldByName("list_services_response"));
  const FieldDescriptor* entries = list.GetDescriptor()->FindFieldByName("service");
  std::set<std::string> names;
  for (int i = 0; i < list.GetReflection()->FieldSize(list, entries); ++i) {
    const Message& entry = list.GetReflection()->GetRepeatedMessage(list, entries, i);
    names.insert(entry.GetReflection()->GetString(entry, entry.GetDescriptor()->FindFieldByName("name")));
  }
  return names;
}

// ---- the gate ----

TEST_F(Service, EveryMethodIsEnteredThroughTheGateUnderItsOwnName) {
  const std::string id = SubmitOne();  // so that a handler which forgets the gate has something to answer
  Stop();
  auto asked = std::make_shared<DenyAll::Asked>();
  Start(std::make_unique<DenyAll>(asked));
  std::vector<std::string> paths;
  for (const MethodDescriptor* method : Methods()) {
    const std::string path = PathOf(*method);
    SCOPED_TRACE(path);
    paths.push_back(path);
    const std::unique_ptr<Message> request = NewRequest(*method);
    if (const FieldDescriptor* field = method->input_type()->FindFieldByName("id"))
      request->GetReflection()->SetString(request.get(), field, id);
    const Answer answer = Call(channel_, path, {request->SerializeAsString()});
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << answer.status.error_message();
    EXPECT_THAT(answer.status.error_message(), HasSubstr("nobody may do anything here"));
    EXPECT_THAT(answer.messages, SizeIs(0));
  }
  EXPECT_GE(paths.size(), 12u);
  EXPECT_THAT(asked->methods, UnorderedElementsAreArray(paths));
}

TEST_F(Service, EveryServiceOfOursIsWalkedAndReflected) {
  std::set<std::string> ours;
  for (const MethodDescriptor* method : Methods()) ours.insert(std::string(method->service()->full_name()));
  const std::set<std::string> reflected = ReflectedServices(channel_);
  EXPECT_THAT(reflected, IsSupersetOf(ours));
  EXPECT_THAT(reflected, Contains("grpc.health.v1.Health"));
  for (const std::string& name : reflected) {
    EXPECT_TRUE(name.rfind("vicreg.", 0) != 0 || ours.count(name) != 0)
        << name << " is served but not walked by these tests";
  }
}

TEST_F(Service, HealthIsServing) {
  const Answer answer = Call(channel_, "grpc.health.v1.Health/Check", {""});
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_THAT(answer.messages, ::testing::ElementsAre("\x08\x01"));  // status: SERVING
}

TEST_F(Service, MethodNobodyDeclaredIsUnimplemented) {
  for (const char* method : {"vicreg.v1.JobsService/Nothing", "vicreg.v1.RankService/Attach", "nobody/nothing"}) {
    EXPECT_EQ(Call(channel_, method, {""}).status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
  }
}

// ---- submit ----

TEST_F(Service, SameRequestIdTwiceGivesOneJob) {
  const std::string id = NewUuid();
  v1::SubmitJobResponse first, second;
  ASSERT_TRUE(Submit(Spec(), id, &first).ok());
  ASSERT_TRUE(Submit(Spec(), id, &second).ok());
  EXPECT_TRUE(IsUuid(first.job().id()));
  EXPECT_EQ(first.job().id(), second.job().id());
  EXPECT_THAT(List(), SizeIs(1));
}

TEST_F(Service, SameRequestIdFromManyAtOnceGivesOneJob) {
  const std::string id = NewUuid();
  std::vector<std::string> ids(8);
  std::vector<std::thread> threads;
  for (std::string& got : ids) {
    threads.emplace_back([&] {
      v1::SubmitJobResponse response;
      if (Submit(Spec(), id, &response).ok()) got = response.job().id();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(ids, ::testing::Each(ids[0]));
  EXPECT_TRUE(IsUuid(ids[0]));
  EXPECT_THAT(List(), SizeIs(1));
}

TEST_F(Service, SameRequestIdSurvivesARestart) {
  const std::string id = NewUuid();
  v1::SubmitJobResponse first, second;
  ASSERT_TRUE(Submit(Spec(), id, &first).ok());
  Stop();
  Start(rpc::AllowLocalUser());
  ASSERT_TRUE(Submit(Spec(), id, &second).ok());
  EXPECT_EQ(first.job().id(), second.job().id());
  EXPECT_EQ(first.job().recipe_hash(), second.job().recipe_hash());
}

TEST_F(Service, SameRequestIdWithOtherBytesAlreadyExists) {
  const std::string id = NewUuid();
  ASSERT_TRUE(Submit(Spec("one"), id).ok());
  const grpc::Status status = Submit(Spec("two"), id);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(status.error_message(), HasSubstr(id));
  EXPECT_THAT(List(), SizeIs(1));
}

TEST_F(Service, RequestIdThatIsNoUuidIsRefused) {
  for (const std::string& id : {std::string(), std::string("1"), std::string(500'000, 'a'),
                                std::string("00000000-0000-0000-0000-00000000000G")}) {
    const grpc::Status status = Submit(Spec(), id);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("request_id"));
  }
}

TEST_F(Service, BadSpecIsRefusedWithEveryProblemAtOnce) {
  v1::JobSpec spec = Spec("Not A Name");
  spec.mutable_data()->clear_root();
  spec.set_batch_size(1);
  spec.mutable_encoder()->set_name("resnet51");
  spec.mutable_loss()->set_mu(-1);
  spec.mutable_world_size()->set_min(0);
  const grpc::Status status = Submit(spec, NewUuid());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  for (const char* field : {"name: ", "data.root: ", "batch_size: ", "encoder.name: ", "loss.mu: ", "world_size: "}) {
    EXPECT_THAT("\n" + status.error_message(), HasSubstr("\n" + std::string(field)));
  }
  EXPECT_THAT(List(), SizeIs(0));
}

TEST_F(Service, SpecWithMoreProblemsThanAnAnswerHoldsIsStillRefusedInWords) {
  v1::JobSpec spec = Spec("Not A Name");
  for (int i = 0; i < 50'000; ++i) spec.add_expander(0);
  const grpc::Status status = Submit(spec, NewUuid());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("name: "));
  EXPECT_THAT(status.error_message(), HasSubstr("more problems"));
}

TEST_F(Service, DryRunResolvesAndKeepsNothing) {
  v1::SubmitJobResponse response;
  ASSERT_TRUE(Submit(Spec(), NewUuid(), &response, true).ok());
  EXPECT_TRUE(response.job().id().empty());
  EXPECT_EQ(response.job().spec().batch_size(), 256);
  EXPECT_FALSE(response.job().recipe_hash().empty());
  EXPECT_THAT(List(), SizeIs(0));
}

// ---- jobs ----

TEST_F(Service, UnknownJobIsNotFoundByEveryMethodThatTakesOne) {
  int methods = 0;
  for (const MethodDescriptor* method : Methods()) {
    const FieldDescriptor* field = method->input_type()->FindFieldByName("id");
    if (field == nullptr) continue;
    ++methods;
    for (const std::string& id : {NewUuid(), std::string("no uuid"), std::string(500'000, 'x'),
                                  std::string("../../etc/passwd"), std::string("\n\x01 \xc3\xbc")}) {
      SCOPED_TRACE(PathOf(*method) + " of " + id.substr(0, 40));
      const std::unique_ptr<Message> request = NewRequest(*method);
      request->GetReflection()->SetString(request.get(), field, id);
      if (const FieldDescriptor* of = method->input_type()->FindFieldByName("request_id"))
        request->GetReflection()->SetString(request.get(), of, NewUuid());
      if (const FieldDescriptor* change = method->input_type()->FindFieldByName("pause"))
        request->GetReflection()->MutableMessage(request.get(), change);
      const Answer answer = Call(channel_, PathOf(*method), {request->SerializeAsString()});
      EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::NOT_FOUND) << answer.status.error_message();
      EXPECT_LT(answer.status.error_message().size(), 500u);
    }
  }
  EXPECT_GE(methods, 7);
}

TEST_F(Service, CancelledJobEndsItsWatchersAndItsEventsTellTheStory) {
  const std::string id = SubmitOne();
  grpc::ClientContext context;
  v1::WatchEventsRequest request;
  request.set_id(id);
  request.set_follow(true);
  const auto watch = jobs_->WatchEvents(&context, request);
  v1::WatchEventsResponse event;
  ASSERT_TRUE(watch->Read(&event));
  EXPECT_EQ(event.kind(), "SUBMITTED");
  ASSERT_TRUE(Cancel(id).ok());
  ASSERT_TRUE(Cancel(id).ok()) << "asked twice";
  std::vector<std::string> kinds;
  while (watch->Read(&event)) kinds.push_back(event.kind());
  EXPECT_TRUE(watch->Finish().ok());
  EXPECT_THAT(kinds, ::testing::ElementsAre("CANCELLED"));
  EXPECT_EQ(Get(id).state(), v1::JOB_STATE_CANCELLED);
}

TEST_F(Service, GraceOfACancelIsBounded) {
  const std::string id = SubmitOne();
  for (const double grace :
       {-1.0, 3601.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    v1::CancelJobRequest request;
    request.set_id(id);
    request.set_grace_seconds(grace);
    v1::CancelJobResponse response;
    grpc::ClientContext context;
    EXPECT_EQ(jobs_->CancelJob(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT) << grace;
  }
  EXPECT_EQ(Get(id).state(), v1::JOB_STATE_QUEUED);
}

TEST_F(Service, ListGivesEachJobOnceAcrossPages) {
  std::vector<std::string> submitted, listed;
  for (int i = 0; i < 7; ++i) submitted.push_back(SubmitOne());
  v1::ListJobsRequest request;
  request.set_page_size(3);
  do {
    v1::ListJobsResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(jobs_->ListJobs(&context, request, &response).ok());
    EXPECT_LE(response.jobs_size(), 3);
    for (const v1::Job& job : response.jobs()) listed.push_back(job.id());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(listed, submitted);
  ASSERT_TRUE(Cancel(submitted[5]).ok());
  request.add_states(v1::JOB_STATE_CANCELLED);
  v1::ListJobsResponse cancelled;
  grpc::ClientContext another;
  ASSERT_TRUE(jobs_->ListJobs(&another, request, &cancelled).ok());
  ASSERT_EQ(cancelled.jobs_size(), 1);
  EXPECT_EQ(cancelled.jobs(0).id(), submitted[5]);
  EXPECT_EQ(cancelled.next_page_token(), "");
  request.set_page_token("12x");
  v1::ListJobsResponse response;
  grpc::ClientContext context;
  EXPECT_EQ(jobs_->ListJobs(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(Service, NothingExportedIsAFailedPrecondition) {
  v1::ExportJobRequest request;
  request.set_id(SubmitOne());
  EXPECT_EQ(Call(channel_, "vicreg.v1.JobsService/ExportJob", {request.SerializeAsString()}).status.error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

// ---- workers ----

TEST_F(Service, WorkerIsWelcomedAskedAndTold) {
  FakeWorker worker(*workers_, "a");
  const v1::Welcome welcome = worker.Next(v1::ConnectResponse::kWelcome).welcome();
  EXPECT_EQ(welcome.incarnation(), 1);
  EXPECT_EQ(welcome.term(), 1);
  const std::string id = SubmitOne();
  const v1::Launch launch = worker.Launched();
  EXPECT_EQ(launch.job_id(), id);
  EXPECT_EQ(launch.attempt(), 1);
  EXPECT_EQ(launch.world_size(), 1);
  EXPECT_EQ(launch.spec().data().root(), "images");
  EXPECT_FALSE(launch.has_resume());
  worker.Report(launch, 1, [](v1::RankReport& r) { r.mutable_stepping()->set_step(1); });
  EXPECT_EQ(worker.Next(v1::ConnectResponse::kAck).ack().sequence(), 1);
  EXPECT_EQ(Get(id).state(), v1::JOB_STATE_RUNNING);
  worker.Report(launch, 2, [](v1::RankReport& r) { r.mutable_exited()->set_reason(v1::EXIT_REASON_COMPLETED); });
  EXPECT_FALSE(worker.Next(v1::ConnectResponse::kAck).ack().fenced());
  EXPECT_EQ(Get(id).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(Service, ProbesOfTheCoordinatorAndOfAnOperatorAreNotConfused) {
  const auto node = [&] {
    v1::ListNodesResponse nodes;
    grpc::ClientContext context;
    EXPECT_TRUE(cluster_->ListNodes(&context, {}, &nodes).ok());
    return nodes.nodes_size() == 1 ? nodes.nodes(0) : v1::Node();
  };
  FakeWorker worker(*workers_, "a");
  worker.passes_probes = false;
  const v1::Probe own = worker.Next(v1::ConnectResponse::kProbe).probe();
  EXPECT_EQ(own.call_id(), -1);
  EXPECT_EQ(node().state(), v1::NODE_STATE_PROBING);
  v1::ProbeNodeResponse response;
  auto asked = std::async(std::launch::async, [&] {
    v1::ProbeNodeRequest request;
    request.set_name("a");
    grpc::ClientContext context;
    return cluster_->ProbeNode(&context, request, &response);
  });
  const v1::Probe operators = worker.Next(v1::ConnectResponse::kProbe).probe();
  EXPECT_GE(operators.call_id(), std::int64_t{1} << 32) << "no id of an earlier term";
  // The coordinator's is answered first: it ends no call of an operator.
  worker.AnswerProbe(own, "no space");
  while (node().message().find("no space") == std::string::npos) std::this_thread::yield();
  EXPECT_EQ(node().state(), v1::NODE_STATE_PROBING) << "of one node a fifth is none";
  EXPECT_THAT(node().message(), HasSubstr("a probe by coordinator failed: no space"));
  EXPECT_EQ(node().strikes(), 0);
  worker.AnswerProbe(operators, "");
  EXPECT_TRUE(asked.get().ok());
  EXPECT_EQ(response.node().state(), v1::NODE_STATE_READY);
  // Late, and said twice.
  worker.AnswerProbe(own, "no space");
  worker.AnswerProbe(operators, "no space");
  const std::string id = SubmitOne();
  EXPECT_EQ(worker.Launched().job_id(), id);
  EXPECT_EQ(node().state(), v1::NODE_STATE_READY);
  EXPECT_EQ(node().strikes(), 0);
}

// A worker forgets all reports up to an acknowledgement.
TEST_F(Service, RowsAreNotAcknowledgedAheadOfAReportThatIsNotCommitted) {
  const store::Connections connections;
  Stop();
  Start(rpc::AllowLocalUser());
  FakeWorker worker(*workers_, "a");
  SubmitOne();
  const v1::Launch launch = worker.Launched();
  worker.Report(launch, 1, [](v1::RankReport& r) { r.mutable_stepping()->set_step(1); });
  ASSERT_EQ(worker.Next(v1::ConnectResponse::kAck).ack().sequence(), 1);
  store::Connections::Run("PRAGMA query_only=1");
  worker.Report(launch, 2, [](v1::RankReport& r) {
    r.mutable_checkpoint()->set_step(1);
    r.mutable_checkpoint()->set_path("p");
  });
  worker.Report(launch, 3, [](v1::RankReport& r) { r.mutable_rows()->add_rows()->set_step(1); });
  EXPECT_FALSE(worker.Next(v1::ConnectResponse::kAck).has_ack()) << "the stream must end without one";
  store::Connections::Run("PRAGMA query_only=0");
}

// Neither may the end of the attempt be: it would fence the rows, which are still to come again.
TEST_F(Service, ReportIsNotCommittedAheadOfRowsThatCouldNotBeStored) {
  const store::Connections connections;
  Stop();
  Start(rpc::AllowLocalUser());
  const auto rows = [](std::int64_t step) {
    return [step](v1::RankReport& r) { r.mutable_rows()->add_rows()->set_step(step); };
  };
  const auto checkpoint = [](v1::RankReport& r) {
    r.mutable_checkpoint()->set_step(2);
    r.mutable_checkpoint()->set_path("p");
  };
  const auto exited = [](v1::RankReport& r) { r.mutable_exited()->set_reason(v1::EXIT_REASON_STOPPED); };
  FakeWorker worker(*workers_, "a");
  const std::string id = SubmitOne();
  const v1::Launch launch = worker.Launched();
  worker.Report(launch, 1, rows(1));
  ASSERT_EQ(worker.Next(v1::ConnectResponse::kAck).ack().sequence(), 1);
  {
    store::RefusedCommit refused(store::Connections::To("metrics.db"));
    worker.Report(launch, 2, rows(2));
    ASSERT_TRUE(refused.Wait());
    // These wait behind a commit that is about to fail, in one that will not.
    worker.Report(launch, 3, checkpoint);
    worker.Report(launch, 4, exited);
    v1::ConnectRequest heartbeat;
    heartbeat.mutable_heartbeat()->set_sequence(1);
    worker.Say(heartbeat);
    ASSERT_EQ(worker.Next(v1::ConnectResponse::kHeartbeat).heartbeat().sequence(), 1) << "all has come";
    refused.Refuse();
    EXPECT_FALSE(worker.Next(v1::ConnectResponse::kAck).has_ack()) << "the stream must end without one";
  }
  v1::HeldRank held;
  held.set_job_id(id);
  held.set_attempt(1);
  FakeWorker again(*workers_, "a", 1, {held});
  const v1::Welcome welcome = again.Next(v1::ConnectResponse::kWelcome).welcome();
  ASSERT_EQ(welcome.keep_size(), 1) << "its end was committed";
  EXPECT_EQ(Get(id).checkpoints_size(), 0);
  again.Report(launch, 2, rows(2));
  EXPECT_FALSE(again.Next(v1::ConnectResponse::kAck).ack().fenced());
  again.Report(launch, 3, checkpoint);
  again.Report(launch, 4, exited);
  while (again.Next(v1::ConnectResponse::kAck).ack().sequence() < 4) {
  }
  EXPECT_EQ(Get(id).checkpoints_size(), 1);
  EXPECT_EQ(Get(id).step(), 2) << "the rows were not fenced";
}

TEST_F(Service, ExitMessageThatIsTooLongIsCutBetweenCharacters) {
  FakeWorker worker(*workers_, "a");
  const std::string id = SubmitOne();
  const v1::Launch launch = worker.Launched();
  std::string message = "xx";                                 // so that byte 4096 is in the middle of one
  while (message.size() < 10'000) message += "\xe2\x82\xac";  // three bytes each
  worker.Report(launch, 1, [&](v1::RankReport& r) {
    r.mutable_exited()->set_reason(v1::EXIT_REASON_DATA);
    r.mutable_exited()->set_message(message);
  });
  worker.Next(v1::ConnectResponse::kAck);
  const v1::Job job = Get(id);
  ASSERT_EQ(job.ranks_size(), 1);
  EXPECT_EQ(job.ranks(0).exit_message(), message.substr(0, 2 + 3 * 1364));
}

TEST_F(Service, RefusalOfAWorkerFitsIntoItsHeaders) {
  FakeWorker worker(*workers_, "a");
  ASSERT_TRUE(worker.Next(v1::ConnectResponse::kWelcome).has_welcome());
  v1::ConnectRequest message;
  message.mutable_report()->set_job_id(std::string(100'000, 'x'));
  message.mutable_report()->set_attempt(1);
  message.mutable_report()->mutable_rows()->add_rows()->set_step(1);
  worker.Say(message);
  const grpc::Status status = worker.Ended();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("has not begun"));
}

TEST_F(Service, FirstMessageMustBeRegisterAndMakeSense) {
  v1::ConnectRequest beat, nameless, greedy;
  beat.mutable_heartbeat()->set_sequence(1);
  nameless.mutable_register_()->set_cpu_slots(1);
  greedy.mutable_register_()->set_node("a");
  greedy.mutable_register_()->set_cpu_slots(1'000'000'000);
  v1::ConnectRequest gpus;
  gpus.mutable_register_()->set_node("a");
  for (int i = 0; i < 100'000; ++i) gpus.mutable_register_()->add_gpu_uuids("");
  for (const v1::ConnectRequest& first : {beat, nameless, greedy, gpus, v1::ConnectRequest()}) {
    const Answer answer = Call(channel_, "vicreg.v1.WorkerService/Connect", {first.SerializeAsString()});
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION)
        << first.ShortDebugString().substr(0, 100);
  }
  v1::ListNodesResponse nodes;
  grpc::ClientContext context;
  ASSERT_TRUE(cluster_->ListNodes(&context, {}, &nodes).ok());
  EXPECT_EQ(nodes.nodes_size(), 0);
}

TEST_F(Service, NewerProcessOfANodeEndsTheOlderOnesStream) {
  FakeWorker older(*workers_, "a");
  older.Next(v1::ConnectResponse::kWelcome);
  FakeWorker newer(*workers_, "a");
  EXPECT_EQ(newer.Next(v1::ConnectResponse::kWelcome).welcome().incarnation(), 2);
  EXPECT_EQ(older.Ended().error_code(), grpc::StatusCode::ABORTED);
  FakeWorker again(*workers_, "a", 1);
  EXPECT_EQ(again.Ended().error_code(), grpc::StatusCode::ABORTED);
}

TEST_F(Service, RestartedCoordinatorKeepsTheIncarnationOfAWorker) {
  std::string id;
  v1::Launch launch;
  {
    FakeWorker worker(*workers_, "a");
    id = SubmitOne();
    launch = worker.Launched();
    worker.Report(launch, 1, [](v1::RankReport& r) { r.mutable_spawned()->set_pid(17); });
    worker.Next(v1::ConnectResponse::kAck);
  }
  Stop();
  Start(rpc::AllowLocalUser());
  EXPECT_EQ(Get(id).state(), v1::JOB_STATE_STARTING);
  FakeWorker worker(*workers_, "a", 1);  // holds nothing: the rank was lost meanwhile
  const v1::Welcome welcome = worker.Next(v1::ConnectResponse::kWelcome).welcome();
  EXPECT_EQ(welcome.incarnation(), 1);
  EXPECT_EQ(welcome.term(), 2);
  EXPECT_EQ(Get(id).attempt(), 2);
  EXPECT_THAT(Get(id).message(),
              HasSubstr("attempt 2 on the same slots in 1 s from step 0, after rank 0 on a ended with LOST"));
}

// ---- hostile bytes ----

class Garbage {
 public:
  explicit Garbage(std::uint64_t seed) : random_(seed) {}

  int Draw(int below) { return static_cast<int>(random_() % static_cast<std::uint64_t>(below)); }
  std::string Bytes(int most) {
    std::string bytes(static_cast<std::size_t>(Draw(most + 1)), '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    return bytes;
  }
  std::string Text() {
    switch (Draw(8)) {
      case 0:
        return "";
      case 1:
        return std::string(static_cast<std::size_t>(Draw(200'000)), 'A');
      case 2:
        return "../../../../etc/passwd";
      case 3:
        return std::string("a\0b", 3);
      case 4:
        return "'; DROP TABLE jobs; --";
      case 5:
        return "\xf0\x9f\x92\xa5 \xe2\x80\xae %s%n\r\n";
      case 6:
        return "images";
      default:
        return known.empty() ? "x" : known[static_cast<std::size_t>(Draw(static_cast<int>(known.size())))];
    }
  }
  std::int64_t Number() {
    static constexpr std::int64_t kNumbers[] = {0,
                                                1,
                                                -1,
                                                2,
                                                100,
                                                std::numeric_limits<std::int32_t>::max(),
                                                std::numeric_limits<std::int32_t>::min(),
                                                std::numeric_limits<std::int64_t>::max(),
                                                std::numeric_limits<std::int64_t>::min()};
    return kNumbers[static_cast<std::size_t>(Draw(static_cast<int>(std::size(kNumbers))))];
  }
  double Real() {
    static constexpr double kNumbers[] = {
        0, -1, 0.5, 1e308, -0.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()};
    return kNumbers[static_cast<std::size_t>(Draw(static_cast<int>(std::size(kNumbers))))];
  }
  // Every field that is set holds something nobody would write.
  void Fill(Message& message, int depth = 0) {
    const google::protobuf::Descriptor& type = *message.GetDescriptor();
    const google::protobuf::Reflection& set = *message.GetReflection();
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor* f = type.field(i);
      if (Draw(3) == 0 || depth > 6) continue;
      for (int n = f->is_repeated() ? Draw(4) : 1; n > 0; --n) {
        const bool many = f->is_repeated();
        switch (f->cpp_type()) {
          case FieldDescriptor::CPPTYPE_STRING: {
            const std::string text = f->type() == FieldDescriptor::TYPE_BYTES ? Bytes(1000) : Text();
            many ? set.AddString(&message, f, text) : set.SetString(&message, f, text);
            break;
          }
          case FieldDescriptor::CPPTYPE_INT32:
            many ? set.AddInt32(&message, f, static_cast<std::int32_t>(Number()))
                 : set.SetInt32(&message, f, static_cast<std::int32_t>(Number()));
            break;
          case FieldDescriptor::CPPTYPE_INT64:
            many ? set.AddInt64(&message, f, Number()) : set.SetInt64(&message, f, Number());
            break;
          case FieldDescriptor::CPPTYPE_UINT64:
            many ? set.AddUInt64(&message, f, static_cast<std::uint64_t>(Number()))
                 : set.SetUInt64(&message, f, static_cast<std::uint64_t>(Number()));
            break;
          case FieldDescriptor::CPPTYPE_DOUBLE:
            many ? set.AddDouble(&message, f, Real()) : set.SetDouble(&message, f, Real());
            break;
          case FieldDescriptor::CPPTYPE_BOOL:
            many ? set.AddBool(&message, f, Draw(2) == 0) : set.SetBool(&message, f, Draw(2) == 0);
            break;
          case FieldDescriptor::CPPTYPE_ENUM: {
            const int value = Draw(2) == 0 ? Draw(12) : static_cast<int>(Number());
            many ? set.AddEnumValue(&message, f, value) : set.SetEnumValue(&message, f, value);
            break;
          }
          case FieldDescriptor::CPPTYPE_MESSAGE:
            Fill(*(many ? set.AddMessage(&message, f) : set.MutableMessage(&message, f)), depth + 1);
            break;
          default:
            break;
        }
      }
    }
  }
  // Bytes that are a message, nearly one, or none.
  std::string Request(const MethodDescriptor& method) {
    if (Draw(4) == 0) return Bytes(2000);
    const std::unique_ptr<Message> message = NewRequest(method);
    Fill(*message);
    std::string bytes = message->SerializeAsString();
    if (Draw(3) == 0 && !bytes.empty())
      bytes[static_cast<std::size_t>(Draw(static_cast<int>(bytes.size())))] ^= static_cast<char>(1 << Draw(8));
    if (Draw(8) == 0) bytes.resize(bytes.size() / 2);
    return bytes;
  }

  std::vector<std::string> known;  // ids worth guessing

 private:
  std::mt19937_64 random_;
};

TEST_F(Service, NoBytesStopTheCoordinator) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Garbage garbage(seed);
    garbage.known = {SubmitOne(), "a"};
    for (const MethodDescriptor* method : Methods()) {
      for (int i = 0; i < 4; ++i) {
        std::vector<std::string> requests = {garbage.Request(*method)};
        for (int more = method->client_streaming() ? 10 : 0; more > 0; --more)
          requests.push_back(garbage.Request(*method));
        // A stream that follows would never end by itself.
        Call(channel_, PathOf(*method), requests, milliseconds(method->server_streaming() ? 150 : 20'000));
      }
    }
    ASSERT_TRUE(Serves());
  }
  EXPECT_THAT(List(), ::testing::Not(::testing::IsEmpty()));
  // All of it is still there, and readable, after a restart.
  Stop();
  Start(rpc::AllowLocalUser());
  EXPECT_TRUE(Serves());
  EXPECT_GE(List().size(), 12u);
}

TEST_F(Service, NothingAWorkerSaysStopsTheCoordinator) {
  const MethodDescriptor* connect = v1::ConnectRequest::descriptor()->file()->service(0)->method(0);
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    FakeWorker worker(*workers_, "node");
    ASSERT_TRUE(worker.Next(v1::ConnectResponse::kWelcome).has_welcome());
    const std::string id = SubmitOne();
    const v1::Launch launch = worker.Launched();
    ASSERT_FALSE(launch.job_id().empty());
    Garbage garbage(seed);
    garbage.known = {launch.job_id(), "node"};
    for (int i = 0; i < 100; ++i) {
      v1::ConnectRequest message;
      if (!message.ParseFromString(garbage.Request(*connect))) continue;
      if (message.has_register_()) continue;  // would make it another node
      // Half of them about the attempt that runs.
      if (garbage.Draw(2) == 0) {
        if (message.has_report())
          message.mutable_report()->set_job_id(launch.job_id()),
              message.mutable_report()->set_attempt(launch.attempt()), message.mutable_report()->set_rank(0);
        if (message.has_store_call())
          message.mutable_store_call()->set_job_id(launch.job_id()),
              message.mutable_store_call()->set_attempt(launch.attempt());
      }
      worker.Say(message);
    }
    ASSERT_TRUE(Serves());
    (void)Cancel(id);
    Get(id);
    List();
  }
}

TEST_F(Service, MessageAboveOneMebibyteIsRefused) {
  v1::GetJobRequest request;
  request.set_id(std::string(2 << 20, 'x'));
  EXPECT_EQ(Call(channel_, "vicreg.v1.JobsService/GetJob", {request.SerializeAsString()}).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Serves());
}

}  // namespace
}  // namespace vicreg::service
