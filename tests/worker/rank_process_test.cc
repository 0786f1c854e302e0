// Goal: a rank process whose worker is gone trains on, then checkpoints and leaves; one whose work nobody confirmed
// claims no success. Method: the real vicreg-rank on the committed fixture with a short --orphan-grace; the test is its
// worker.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "common/files.h"
#include "common/ids.h"
#include "common/process.h"
#include "common/recipe/resolve.h"
#include "common/spec/spec.h"
#include "tests/worker/fake_worker.h"

namespace vicreg::rank {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using ::testing::HasSubstr;

std::string JobOf(int steps) {
  return R"({name: orphan, preset: demo-cpu, data: {root: fixture, format: idx, split: train, limit: 128, channels: 1}, encoder: {name: tiny},
expander: [16], batch_size: 32, length: {steps: )" +
         std::to_string(steps) +
         R"(}, schedule: {warmup: 1 steps}, checkpoint: {every: 1000000 steps}, evaluation: {knn: {every: 1000000 steps}}})";
}

class RankProcess : public testing::Test {
 protected:
  RankProcess() {
    std::string name = "/tmp/vicreg-rank-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~RankProcess() override {
    worker_.reset();
    if (process_.pid > 1 && !ended_) {
      kill(-process_.pid, SIGKILL);
      waitpid(process_.pid, nullptr, 0);
    }
    if (process_.pidfd >= 0) close(process_.pidfd);
    fs::remove_all(folder_);
  }

  void StartWorker(int steps, bool acknowledge = true, const std::vector<std::string>& sets = {}) {
    const auto spec = spec::ParseJob(JobOf(steps), "job", sets);
    ASSERT_TRUE(spec.ok()) << spec.status();
    const auto resolved = recipe::Resolve(*spec);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    FakeWorker::Options options;
    options.acknowledge = acknowledge;
    v1::Assignment& assignment = options.assignment;
    *assignment.mutable_spec() = *spec;
    assignment.set_world_size(1);
    assignment.set_recipe_hash(resolved->hash);
    assignment.set_data_root(std::string(VICREG_SOURCE_DIR) + "/tests/fixtures/fashion-mnist");
    assignment.set_artifact_root(folder_ + "/artifacts");
    assignment.set_threads(1);
    assignment.set_project("default");
    fs::create_directories(folder_ + "/artifacts");
    worker_.reset();
    worker_ = std::make_unique<FakeWorker>(folder_ + "/s", options);
  }
  void StartRank(int grace_seconds) {
    const auto process = Spawn({.program = VICREG_BINARY_DIR "/vicreg-rank",
                                .arguments = {"--dir", folder_, "--socket", folder_ + "/s", "--job", job_, "--attempt",
                                              "1", "--rank", "0", "--orphan-grace", std::to_string(grace_seconds)},
                                .environment = {{"PATH", "/usr/bin:/bin"}, {"OMP_NUM_THREADS", "1"}},
                                .log_path = folder_ + "/log",
                                .secret = RandomBytes(32)});
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *process;
  }
  // Until the worker has heard of this step.
  bool WaitForStep(std::int64_t step) {
    return worker_->Wait([&](const auto& said) {
      return !said.empty() && said.back().rows().rows_size() > 0 && said.back().rows().rows(0).step() >= step;
    });
  }
  // Exit code; -1 when it does not end in time.
  int WaitForEnd(seconds limit) {
    pollfd watch{process_.pidfd, POLLIN, 0};
    if (poll(&watch, 1, static_cast<int>(limit.count() * 1000)) != 1) return -1;
    int status = 0;
    EXPECT_EQ(waitpid(process_.pid, &status, 0), process_.pid);
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string Log() const { return ReadFile(folder_ + "/log").value_or("no log"); }
  // Steps with a complete checkpoint.
  std::vector<std::string> Checkpoints() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ + "/artifacts")) {
      if (entry.path().filename() == "manifest.json") found.push_back(entry.path().parent_path().filename());
    }
    return found;
  }

  std::string folder_;
  const std::string job_ = NewUuid();
  std::unique_ptr<FakeWorker> worker_;
  Process process_;
  bool ended_ = false;
};

TEST_F(RankProcess, TrainsOnWithoutAWorkerForTheGraceThenCheckpointsAndLeaves) {
  constexpr int kSteps = 1'000'000;
  constexpr seconds kGrace{3};
  StartWorker(kSteps);
  StartRank(kGrace.count());
  ASSERT_TRUE(WaitForStep(3)) << Log();
  // Away for less than the grace: the next one hears every row that was not acknowledged, and those made meanwhile.
  worker_.reset();
  StartWorker(kSteps);
  ASSERT_TRUE(worker_->Wait([](const auto& said) { return said.size() >= 3; })) << Log();
  const auto said = worker_->Said();
  for (std::size_t i = 1; i < said.size(); ++i) EXPECT_EQ(said[i].sequence(), said[i - 1].sequence() + 1);
  // Away for good.
  const auto cut = Clock::now();
  worker_.reset();
  EXPECT_EQ(WaitForEnd(seconds(60)), 12) << Log();  // nobody confirmed the end, so it claims none
  EXPECT_GE(Clock::now() - cut, kGrace);
  EXPECT_THAT(Log(), HasSubstr("asked to stop: no worker for"));
  EXPECT_THAT(Log(), HasSubstr("STOPPED: stopped after step"));
  EXPECT_THAT(Checkpoints(), testing::SizeIs(1)) << Log();
}

TEST_F(RankProcess, FinishedWorkThatNobodyConfirmsClaimsNoSuccess) {
  StartWorker(2, /*acknowledge=*/false);
  StartRank(1);
  EXPECT_EQ(WaitForEnd(seconds(60)), 12) << Log();
  EXPECT_THAT(Log(), HasSubstr("did not confirm all reports"));
  const auto said = worker_->Said();
  ASSERT_FALSE(said.empty());
  EXPECT_EQ(said.back().leaving().reason(), v1::EXIT_REASON_ABORTED);
  EXPECT_THAT(said.back().leaving().message(), HasSubstr("without the coordinator's confirmation"));
}

TEST_F(RankProcess, FinishedWorkThatIsConfirmedIsCompleted) {
  StartWorker(2);
  StartRank(60);
  EXPECT_EQ(WaitForEnd(seconds(60)), 0) << Log();
  EXPECT_EQ(worker_->Said().back().leaving().reason(), v1::EXIT_REASON_COMPLETED);
}

// The coordinator accepts such a job where another node offers GPUs.
TEST_F(RankProcess, JobForAGpuIsAWrongConfigurationOfABuildForCpus) {
  StartWorker(2, /*acknowledge=*/true, {"device=gpu"});
  StartRank(60);
  EXPECT_EQ(WaitForEnd(seconds(60)), 20) << Log();
  const v1::Exited left = worker_->Said().back().leaving();
  EXPECT_EQ(left.reason(), v1::EXIT_REASON_CONFIG);
  EXPECT_THAT(left.message(), HasSubstr("this build trains on CPUs only"));
}

}  // namespace
}  // namespace vicreg::rank
