// Goal: a rank that cannot compute where its job wants, or with the libraries it was built for, says so and ends as a
// wrong configuration. Method: this build, which has no GPU; versions as made up.

#include "worker/train/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/train/distributed/process_group.h"
#include "worker/train/error.h"
#include "worker/train/trainer.h"

namespace vicreg::train {
namespace {

using ::testing::HasSubstr;

TEST(Device, ACpuIsAlwaysThereAndThisBuildHasNoGpu) {
  EXPECT_EQ(WhyNot(Device::kCpu), "");
  EXPECT_FALSE(BuiltForGpus());
  EXPECT_THAT(WhyNot(Device::kGpu), HasSubstr("trains on CPUs only"));
}

TEST(Device, LibrariesOfAnotherVersionAreNamedWithBoth) {
  EXPECT_EQ(WhyNot({"NCCL", "2.28.9", "2.28.9"}), "");
  EXPECT_EQ(WhyNot({"NCCL", "", ""}), "");  // a build for CPUs has none
  EXPECT_THAT(WhyNot({"NCCL", "2.28.9", "2.27.3"}), HasSubstr("built with NCCL 2.28.9 and runs with 2.27.3"));
  EXPECT_THAT(WhyNot({"LibTorch", "2.11.0", ""}), HasSubstr("built with LibTorch 2.11.0 and runs with an unknown"));
  // Those of this process: what LibTorch says of itself was found and is what its headers say.
  EXPECT_EQ(WhyNotTheseLibraries(), "");
}

TEST(Device, GroupOfGpusIsAWrongConfigurationHere) {
  ProcessGroupOptions options;
  options.device = Device::kGpu;
  try {
    MakeProcessGroup(nullptr, options);
    FAIL() << "made a group";
  } catch (const RankError& error) {
    EXPECT_EQ(error.reason, ExitReason::kConfig);
  }
}

class Silent : public Observer {
  void OnConnected(std::int64_t, std::int64_t) override {}
  void OnStepping(std::int64_t) override {}
  void OnRow(const StepRow&) override {}
  void OnCheckpoint(const CheckpointInfo&) override {}
  std::int64_t CommittedCheckpoint() override { return 0; }
  void OnExport(const std::string&) override {}
  void OnLog(const std::string&) override {}
};

TEST(Device, RunOnAGpuEndsAsConfigBeforeItReadsAnything) {
  RankContext context;
  context.device = Device::kGpu;
  context.data_root = "/nonexistent";
  Silent observer;
  const Outcome outcome = train::Run({}, context, StopFlag(), observer);
  EXPECT_EQ(outcome.reason, ExitReason::kConfig);
  EXPECT_THAT(outcome.message, HasSubstr("trains on CPUs only"));
}

}  // namespace
}  // namespace vicreg::train
