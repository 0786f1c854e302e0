#pragma once

// A whole run of the trainer on the committed images: a small recipe, one rank, and what it told.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "common/files.h"
#include "worker/train/trainer.h"

namespace vicreg::train {

class Recorder : public Observer {
 public:
  void OnConnected(std::int64_t resume_step, std::int64_t) override { connected = resume_step; }
  void OnStepping(std::int64_t) override {}
  void OnRow(const StepRow& row) override {
    rows.push_back(row);
    if (stop != nullptr && row.step == stop_after) stop->requested = true;
  }
  void OnCheckpoint(const CheckpointInfo& info) override { checkpoints.push_back(info); }
  std::int64_t CommittedCheckpoint() override { return std::min(committed_at_most, checkpoints.back().step); }
  void OnExport(const std::string& path) override { exported = path; }
  void OnLog(const std::string&) override {}

  std::int64_t connected = -1, stop_after = 0;
  std::int64_t committed_at_most = std::numeric_limits<std::int64_t>::max();
  StopFlag* stop = nullptr;
  std::vector<StepRow> rows;
  std::vector<CheckpointInfo> checkpoints;
  std::string exported;
};

// Artifacts in a folder that goes with the test.
class RunTest : public ::testing::Test {
 protected:
  RunTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "vicreg-run-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~RunTest() override { std::filesystem::remove_all(root_); }

  RankContext Context(int attempt) {
    RankContext context;
    context.attempt = attempt;
    context.recipe_hash = "r";
    context.data_root = std::string(VICREG_SOURCE_DIR) + "/tests/fixtures/fashion-mnist";
    context.artifact_root = root_;
    return context;
  }
  std::string Bytes(const CheckpointInfo& info, const std::string& name) {
    return *ReadFile(root_ + "/" + info.path + "/" + name);
  }

  std::string root_;
  StopFlag stop_;
};

}  // namespace vicreg::train
