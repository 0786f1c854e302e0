// Goal: a job for GPUs runs where a worker offers them, each rank seeing the one GPU of its slot and no other; where
// nobody offers any it is refused. Method: the real coordinator, its stream and the agent in this process; the
// inventory is made up, ranks are shell scripts that write down what they see.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "common/files.h"
#include "common/ids.h"
#include "coordinator/service/server.h"
#include "vicreg/v1/cluster_service.grpc.pb.h"
#include "vicreg/v1/jobs_service.grpc.pb.h"
#include "worker/agent/agent.h"
#include "worker/agent/coordinator_stream.h"
#include "worker/agent/inventory.h"

namespace vicreg::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

template <typename F>
bool Until(F condition) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

constexpr char kRankProgram[] = R"(#!/bin/sh
[ "$1" = --check-device ] && exit 0
echo "${CUDA_VISIBLE_DEVICES-unset}" > "$2/sees-$6-${10}.new"
mv "$2/sees-$6-${10}.new" "$2/sees-$6-${10}"
exec sleep 1000
)";

class GpuSlots : public testing::Test {
 protected:
  GpuSlots() {
    std::string name = "/tmp/vicreg-gpus-XXXXXX";
    folder_ = mkdtemp(name.data());
    for (const char* part : {"/ranks", "/logs", "/artifacts"}) EXPECT_TRUE(MakeFolders(folder_ + part).ok());
    EXPECT_TRUE(WriteFileAtomically(folder_ + "/rank", kRankProgram, 0700).ok());
    auto server = service::Server::Start({folder_ + "/state", folder_ + "/artifacts", "127.0.0.1:0", "127.0.0.1:0"},
                                         rpc::AllowLocalUser());
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    address_ = "127.0.0.1:" + std::to_string(server_->grpc_port());
    const auto channel = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    jobs_ = v1::JobsService::NewStub(channel);
    cluster_ = v1::ClusterService::NewStub(channel);
  }
  ~GpuSlots() override {
    if (agent_) agent_->StopAll(milliseconds(0));
    stream_.reset();
    agent_.reset();
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  void StartWorker(int cpu_slots, const std::vector<std::string>& gpus) {
    AgentOptions options;
    options.folder = folder_;
    options.socket_path = folder_ + "/rank.sock";
    options.node = "here";
    options.rank_program = folder_ + "/rank";
    options.artifact_root = folder_ + "/artifacts";
    options.cpu_slots = cpu_slots;
    options.gpus = gpus;
    options.data_roots = {{"images", folder_}};
    agent_ = std::make_unique<Agent>(options);
    stream_ = std::make_unique<CoordinatorStream>(address_, *agent_);
    ASSERT_TRUE(Until([&] {
      v1::ListNodesResponse nodes;
      grpc::ClientContext context;
      return cluster_->ListNodes(&context, {}, &nodes).ok() && nodes.nodes_size() == 1 &&
             nodes.nodes(0).state() == v1::NODE_STATE_READY;
    }));
  }
  grpc::Status Submit(v1::Device device, int world_size, std::string* id) {
    v1::SubmitJobRequest request;
    request.set_request_id(NewUuid());
    v1::JobSpec& spec = *request.mutable_spec();
    spec.set_name("job");
    spec.set_preset("demo-cpu");
    spec.set_device(device);
    spec.mutable_world_size()->set_min(world_size);
    spec.mutable_world_size()->set_max(world_size);
    spec.mutable_data()->set_root("images");
    v1::SubmitJobResponse response;
    grpc::ClientContext context;
    const grpc::Status status = jobs_->SubmitJob(&context, request, &response);
    *id = response.job().id();
    return status;
  }
  // CUDA_VISIBLE_DEVICES of a rank.
  std::string Sees(const std::string& job, int rank) {
    const std::string file = folder_ + "/sees-" + job + "-" + std::to_string(rank);
    EXPECT_TRUE(Until([&] { return std::filesystem::exists(file); })) << "rank " << rank << " was not started";
    return ReadFile(file).value_or("");
  }

  std::string folder_, address_;
  std::unique_ptr<service::Server> server_;
  std::unique_ptr<v1::JobsService::Stub> jobs_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
  std::unique_ptr<Agent> agent_;
  std::unique_ptr<CoordinatorStream> stream_;
};

TEST_F(GpuSlots, EachRankSeesTheGpuOfItsSlotAndOneOnACpuSeesNone) {
  StartWorker(2, {"GPU-aaaa", "GPU-bbbb", "GPU-cccc"});
  std::string on_cpus, one, two;
  ASSERT_TRUE(Submit(v1::DEVICE_CPU, 2, &on_cpus).ok());
  ASSERT_TRUE(Submit(v1::DEVICE_GPU, 2, &two).ok());
  ASSERT_TRUE(Submit(v1::DEVICE_GPU, 1, &one).ok());
  // Slots 0 of both kinds are held at once.
  EXPECT_EQ(Sees(on_cpus, 0), "\n");
  EXPECT_EQ(Sees(on_cpus, 1), "\n");
  EXPECT_EQ(Sees(two, 0), "GPU-aaaa\n");
  EXPECT_EQ(Sees(two, 1), "GPU-bbbb\n");
  EXPECT_EQ(Sees(one, 0), "GPU-cccc\n");
  v1::ListNodesResponse nodes;
  grpc::ClientContext context;
  ASSERT_TRUE(cluster_->ListNodes(&context, {}, &nodes).ok());
  ASSERT_EQ(nodes.nodes(0).slots_size(), 2);
  EXPECT_EQ(nodes.nodes(0).slots(1).kind(), "gpu");
  EXPECT_EQ(nodes.nodes(0).slots(1).total(), 3);
  EXPECT_EQ(nodes.nodes(0).slots(1).used(), 3);
  // More than are free: waits, and nothing is started.
  std::string waits;
  ASSERT_TRUE(Submit(v1::DEVICE_GPU, 1, &waits).ok());
  EXPECT_TRUE(Until([&] {
    v1::GetJobRequest request;
    request.set_id(waits);
    v1::GetJobResponse response;
    grpc::ClientContext another;
    return jobs_->GetJob(&another, request, &response).ok() && response.job().reason() == v1::REASON_SLOTS_IN_USE;
  }));
}

TEST_F(GpuSlots, WhereNobodyOffersAGpuTheJobIsRefusedAndBeforeTheFirstWorkerItWaits) {
  std::string id;
  EXPECT_TRUE(Submit(v1::DEVICE_GPU, 1, &id).ok()) << "no worker has come yet: one with GPUs may";
  StartWorker(2, {});
  const grpc::Status refused = Submit(v1::DEVICE_GPU, 1, &id);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("device: found gpu, and no worker offers GPU slots"));
}

// A worker offers the GPUs that NVML finds only where its rank program says that it can compute on them.
TEST(WhyNoRanksOn, AsksTheRankProgram) {
  std::string folder = "/tmp/vicreg-inventory-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string program = folder + "/rank", log = folder + "/log";
  const auto ask = [&](const std::string& script, milliseconds patience) {
    EXPECT_TRUE(WriteFileAtomically(program, "#!/bin/sh\n" + script + "\n", 0700).ok());
    return WhyNoRanksOn("gpu", program, log, patience);
  };
  EXPECT_EQ(ask("[ \"$1 $2\" = \"--check-device gpu\" ]", seconds(20)), "");
  EXPECT_EQ(ask("echo one; echo 'this build trains on CPUs only' >&2; exit 20", seconds(20)),
            "this build trains on CPUs only");
  EXPECT_THAT(ask("exit 127", seconds(20)), HasSubstr("does not say why"));
  EXPECT_THAT(ask("exec sleep 1000", milliseconds(20)), HasSubstr("did not answer within 20 ms"));
  EXPECT_THAT(WhyNoRanksOn("gpu", folder + "/nothing", log), HasSubstr("nothing"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace vicreg::agent
