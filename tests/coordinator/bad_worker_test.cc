// Goal: a worker that lies about its node, or speaks for ranks that are not its own, is refused, counted and told why,
// and changes nothing. Method: one lie per row; then a real coordinator on loopback with workers that lie.

#include <gmock/gmock.h>
#include <httplib.h>

#include "coordinator/service/inventory.h"
#include "tests/coordinator/service_fixture.h"

namespace vicreg::service {
namespace {

using ::testing::HasSubstr;

v1::Register Honest() {
  v1::Register wire;
  wire.set_node("gpu-7.rack_2");
  wire.set_boot_id("4be2cb5a-4a36-4f0a-9f3f-0c9d2f1f5c3e");
  wire.set_build("0.1.0");
  wire.set_cpu_slots(4);
  wire.add_gpu_uuids("GPU-1");
  wire.add_gpu_uuids("GPU-2");
  wire.add_data_roots("images");
  wire.add_labels("rack=r2");
  return wire;
}

TEST(Inventory, LieIsRefusedWithTheFieldAndWhatWasFound) {
  EXPECT_TRUE(CheckInventory(Honest()).ok());
  const struct {
    std::function<void(v1::Register&)> lie;
    const char* says;
  } rows[] = {
      {[](v1::Register& w) { w.set_node(""); }, "node: found \"\"; expected 1 to 253"},
      {[](v1::Register& w) { w.set_node(std::string(254, 'n')); }, "node: found \"nnn"},
      {[](v1::Register& w) { w.set_node("a b\n\x1b[31m"); }, "node: found \"a?b??[31m\""},
      {[](v1::Register& w) { w.clear_boot_id(); }, "boot_id: found"},
      {[](v1::Register& w) { w.set_boot_id(std::string(65, 'b')); }, "boot_id: found"},
      {[](v1::Register& w) { w.set_build(std::string(65, 'b')); }, "build: found"},
      {[](v1::Register& w) { w.set_incarnation(-1); }, "incarnation: found -1"},
      {[](v1::Register& w) { w.set_cpu_slots(-1); }, "cpu_slots: found -1; expected 0 to 4096"},
      {[](v1::Register& w) { w.set_cpu_slots(1 << 30); }, "cpu_slots: found 1073741824; expected 0 to 4096"},
      {[](v1::Register& w) { w.add_gpu_uuids("GPU-1"); }, "gpu_uuids: found \"GPU-1\"; expected each GPU once"},
      {[](v1::Register& w) { w.add_gpu_uuids(""); }, "gpu_uuids: found \"\""},
      {[](v1::Register& w) {
         for (int i = 0; i < 4097; ++i) w.add_gpu_uuids(std::to_string(i));
       },
       "gpu_uuids: found 4099; expected at most 4096"},
      {[](v1::Register& w) { w.add_data_roots("../etc passwd"); }, "data_roots: found \"../etc?passwd\""},
      {[](v1::Register& w) {
         for (int i = 0; i < 1001; ++i) w.add_data_roots("r");
       },
       "data_roots: found 1002; expected at most 1000"},
      {[](v1::Register& w) { w.add_labels("rack"); }, "labels: found \"rack\"; expected key=value"},
      {[](v1::Register& w) {
         for (int i = 0; i < 64; ++i) w.add_labels("a=b");
       },
       "labels: found 65; expected at most 64"},
      {[](v1::Register& w) {
         for (int i = 0; i < 8193; ++i) w.add_held();
       },
       "held: found 8193 ranks; expected at most 8192"},
  };
  for (const auto& row : rows) {
    v1::Register wire = Honest();
    row.lie(wire);
    const absl::Status status = CheckInventory(wire);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(row.says));
  }
  v1::Register all = Honest();
  all.set_cpu_slots(-1);
  all.clear_boot_id();
  EXPECT_THAT(std::string(CheckInventory(all).message()), testing::AllOf(HasSubstr("boot_id"), HasSubstr("cpu_slots")))
      << "every problem at once";
}

class BadWorker : public Service {
 protected:
  double Metric(const std::string& series) {
    httplib::Client client("127.0.0.1", server_->http_port());
    const auto page = client.Get("/metrics");
    EXPECT_TRUE(page && page->status == 200);
    const std::size_t at = page->body.find(series + " ");
    EXPECT_NE(at, std::string::npos) << series;
    return at == std::string::npos ? -1 : std::stod(page->body.substr(at + series.size()));
  }
};

TEST_F(BadWorker, LyingAboutItsNodeIsSentAwayCountedAndUnknown) {
  FakeWorker liar(*workers_, "a node");
  const grpc::Status ended = liar.Ended();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(ended.error_message(), HasSubstr("node: found \"a?node\""));
  grpc::ClientContext context;
  v1::ListNodesResponse nodes;
  ASSERT_TRUE(cluster_->ListNodes(&context, {}, &nodes).ok());
  EXPECT_EQ(nodes.nodes_size(), 0);
  EXPECT_EQ(Metric("vicreg_coordinator_fenced_messages_total{kind=\"inventory\"}"), 1);
}

TEST_F(BadWorker, ReportingForARankOfAnotherNodeIsFencedCountedAndChangesNothing) {
  FakeWorker owner(*workers_, "a");
  owner.Next(v1::ConnectResponse::kWelcome);
  const std::string id = SubmitOne();
  const v1::Launch launch = owner.Launched();
  FakeWorker thief(*workers_, "b");
  thief.Next(v1::ConnectResponse::kWelcome);
  const v1::Job before = Get(id);
  thief.Report(launch, 1, [](v1::RankReport& report) { report.mutable_exited()->set_reason(v1::EXIT_REASON_DATA); });
  const v1::ConnectResponse answer = thief.Next(v1::ConnectResponse::kAck);
  EXPECT_TRUE(answer.ack().fenced());
  v1::Launch later = launch;
  later.set_attempt(launch.attempt() + 5);  // of an attempt that never was
  owner.Report(later, 1, [](v1::RankReport& report) { report.mutable_exited()->set_reason(v1::EXIT_REASON_DATA); });
  EXPECT_TRUE(owner.Next(v1::ConnectResponse::kAck).ack().fenced());
  const v1::Job after = Get(id);
  EXPECT_EQ(after.version(), before.version());
  EXPECT_EQ(after.state(), before.state());
  EXPECT_EQ(Metric("vicreg_coordinator_fenced_messages_total{kind=\"stale\"}"), 2);
}

}  // namespace
}  // namespace vicreg::service
