// Goal: a change of a job, node, queue or quota is refused whole, with every problem at once, or is made once, however
// often it is asked for. Method: a real server in this process; each refused request has several problems.

#include <gmock/gmock.h>

#include <limits>

#include "tests/coordinator/service_fixture.h"

namespace vicreg::service {
namespace {

using ::testing::HasSubstr;

class Changes : public Service {
 protected:
  grpc::Status Change(v1::ChangeJobRequest request, v1::Job* job = nullptr) {
    v1::ChangeJobResponse response;
    grpc::ClientContext context;
    const grpc::Status status = jobs_->ChangeJob(&context, request, &response);
    if (job != nullptr) *job = response.job();
    return status;
  }
  static v1::ChangeJobRequest Of(const std::string& id, const std::string& request_id = NewUuid()) {
    v1::ChangeJobRequest request;
    request.set_id(id);
    request.set_request_id(request_id);
    return request;
  }
  static v1::ChangeJobRequest Priority(const std::string& id, int priority, const std::string& request_id) {
    v1::ChangeJobRequest request = Of(id, request_id);
    request.mutable_reprioritize()->set_priority(priority);
    return request;
  }
  grpc::Status SetNode(const std::string& name, int admin, double grace) {
    v1::ChangeNodeRequest request;
    request.set_name(name);
    request.set_admin(static_cast<v1::NodeAdmin>(admin));
    request.set_grace_seconds(grace);
    v1::ChangeNodeResponse response;
    grpc::ClientContext context;
    return cluster_->ChangeNode(&context, request, &response);
  }
  grpc::Status SetQueue(const v1::Queue& queue) {
    v1::SetQueueRequest request;
    *request.mutable_queue() = queue;
    v1::SetQueueResponse response;
    grpc::ClientContext context;
    return cluster_->SetQueue(&context, request, &response);
  }
  grpc::Status SetQuota(const v1::Quota& quota) {
    v1::SetQuotaRequest request;
    *request.mutable_quota() = quota;
    v1::SetQuotaResponse response;
    grpc::ClientContext context;
    return cluster_->SetQuota(&context, request, &response);
  }
  static void ExpectAll(const grpc::Status& status, const std::vector<std::string>& fields) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    for (const std::string& field : fields)
      EXPECT_THAT("\n" + status.error_message(), HasSubstr("\n" + field + ": found "));
  }
};

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST_F(Changes, OfAJobAreRefusedWithEveryProblemAtOnce) {
  const std::string id = SubmitOne();
  v1::ChangeJobRequest request = Of(id, "no uuid");
  request.set_grace_seconds(kNan);
  request.set_note(std::string(201, 'x'));
  request.set_expected_version(-1);
  ExpectAll(Change(request), {"request_id", "grace_seconds", "note", "expected_version", "change"});
  EXPECT_EQ(Get(id).version(), 1) << "nothing was changed";
}

TEST_F(Changes, OfAJobWithAValueOutOfRangeAreRefused) {
  const std::string id = SubmitOne();
  v1::ChangeJobRequest resize = Of(id), restart = Of(id);
  for (const int world : {0, -1, 257, 5000, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()}) {
    resize.mutable_resize()->set_world_size(world);
    ExpectAll(Change(resize), {"world_size"});
  }
  for (const int priority : {-1001, 1001, std::numeric_limits<int>::max()})
    ExpectAll(Change(Priority(id, priority, NewUuid())), {"priority"});
  for (const std::int64_t step : {std::int64_t{-1}, std::int64_t{7}, std::numeric_limits<std::int64_t>::max()}) {
    restart.mutable_restart()->set_from_step(step);
    ExpectAll(Change(restart), {"step"});
  }
  EXPECT_EQ(Get(id).version(), 1);
}

TEST_F(Changes, OfAJobThatHasEndedOrMovedOnSayWhy) {
  const std::string id = SubmitOne();
  v1::ChangeJobRequest stale = Priority(id, 5, NewUuid());
  stale.set_expected_version(7);
  const grpc::Status moved = Change(stale);
  EXPECT_EQ(moved.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(moved.error_message(), HasSubstr("expected version 7, found 1"));
  ASSERT_TRUE(Cancel(id).ok());
  const grpc::Status ended = Change(Priority(id, 5, NewUuid()));
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(ended.error_message(), HasSubstr("CANCELLED"));
  EXPECT_EQ(Change(Priority(NewUuid(), 5, NewUuid())).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(Changes, OfAJobAreMadeOnceForARequestId) {
  const std::string id = SubmitOne(), first = NewUuid();
  v1::Job job;
  ASSERT_TRUE(Change(Priority(id, 5, first), &job).ok());
  EXPECT_EQ(job.priority(), 5);
  ASSERT_TRUE(Change(Priority(id, 7, NewUuid())).ok());
  // The first one comes again: late, from a client that did not hear the answer; also from another life of the server.
  ASSERT_TRUE(Change(Priority(id, 5, first), &job).ok());
  EXPECT_EQ(job.priority(), 7);
  Stop();
  Start(rpc::AllowLocalUser());
  ASSERT_TRUE(Change(Priority(id, 5, first), &job).ok());
  EXPECT_EQ(job.priority(), 7);
  EXPECT_EQ(job.version(), 3) << "submitted and twice changed";
}

TEST_F(Changes, OfAJobWithAUsedRequestIdAndOtherBytesAlreadyExist) {
  const std::string id = SubmitOne(), used = NewUuid();
  ASSERT_TRUE(Change(Priority(id, 5, used)).ok());
  const grpc::Status status = Change(Priority(id, 6, used));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(status.error_message(), HasSubstr(id));
  EXPECT_EQ(Submit(Spec(), used).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(Get(id).priority(), 5);
  EXPECT_EQ(List().size(), 1u);
}

TEST_F(Changes, RequestIdOfARefusedChangeIsNotUsedUp) {
  const std::string id = SubmitOne(), request_id = NewUuid();
  ExpectAll(Change(Priority(id, 5000, request_id)), {"priority"});
  EXPECT_TRUE(Change(Priority(id, 5, request_id)).ok());
  EXPECT_EQ(Get(id).priority(), 5);
}

TEST_F(Changes, OfANodeAreRefusedWithEveryProblemAtOnce) {
  FakeWorker worker(*workers_, "a");
  ASSERT_TRUE(worker.Next(v1::ConnectResponse::kWelcome).has_welcome());
  for (const int admin : {0, 4, -1}) {
    for (const double grace : {-1.0, 3601.0, kNan}) ExpectAll(SetNode("a", admin, grace), {"admin", "grace_seconds"});
  }
  const grpc::Status unknown = SetNode("nobody", v1::NODE_ADMIN_DRAINING, 1);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(unknown.error_message(), HasSubstr("nobody"));
  v1::ListNodesResponse nodes;
  grpc::ClientContext context;
  ASSERT_TRUE(cluster_->ListNodes(&context, {}, &nodes).ok());
  EXPECT_EQ(nodes.nodes(0).admin(), v1::NODE_ADMIN_OPEN);
}

TEST_F(Changes, OfAQueueAreRefusedWithEveryProblemAtOnce) {
  v1::Queue queue;
  queue.set_project("Not A Name");
  queue.set_name(std::string(64, 'q'));
  queue.set_min_priority(-1001);
  queue.set_max_priority(-1002);
  queue.add_labels("no label");
  const grpc::Status status = SetQueue(queue);
  ExpectAll(status, {"project", "name", "min_priority", "max_priority", "labels"});
  EXPECT_THAT(status.error_message(), HasSubstr("min_priority: found -1001, above max_priority -1002"));
  for (int i = 0; i < 16; ++i) queue.add_labels("rack=a");
  ExpectAll(SetQueue(queue), {"labels"});
  v1::ListQueuesResponse queues;
  grpc::ClientContext context;
  ASSERT_TRUE(cluster_->ListQueues(&context, {}, &queues).ok());
  EXPECT_EQ(queues.queues_size(), 1) << "the default one";
}

TEST_F(Changes, OfAQuotaAreRefusedWithEveryProblemAtOnce) {
  v1::Quota quota;
  quota.set_project("");
  quota.set_cpu_slots(-2);
  quota.set_gpu_slots(1'000'001);
  for (const double weight : {0.0, -1.0, 1001.0, kNan}) {
    quota.set_weight(weight);
    ExpectAll(SetQuota(quota), {"project", "cpu_slots", "gpu_slots", "weight"});
  }
  v1::ListQuotasResponse quotas;
  grpc::ClientContext context;
  ASSERT_TRUE(cluster_->ListQuotas(&context, {}, &quotas).ok());
  EXPECT_EQ(quotas.quotas_size(), 0);
}

}  // namespace
}  // namespace vicreg::service
