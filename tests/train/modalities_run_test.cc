// Goal: jobs that read .npy train whole: a network for each modality, or one network of a waveform or vector alone,
// with what a run leaves behind for each branch. Method: whole runs of small recipes, one rank, on two modalities of
// the committed images (an image and the sums of its columns and rows); checkpoints compared by their bytes.

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "common/recipe/recipe_json.h"
#include "tests/testing/npy_file.h"
#include "tests/train/run.h"
#include "worker/train/data/idx.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int kSide = 28;

class Modalities : public RunTest {
 protected:
  Modalities() {
    for (const std::string split : {"train", "test"}) {
      const ImageSet images = ReadIdx(RunTest::Context(1).data_root, "", split, 256);
      std::vector<std::uint16_t> waves;
      for (std::uint32_t i = 0; i < images.count; ++i) {
        for (const bool columns : {true, false}) {
          for (int at = 0; at < kSide; ++at) {
            int sum = 0;
            for (int k = 0; k < kSide; ++k) sum += images.image(i)[columns ? k * kSide + at : at * kSide + k];
            waves.push_back(static_cast<std::uint16_t>(sum));
          }
        }
      }
      const std::string stem = root_ + "/" + split + "-", count = std::to_string(images.count);
      WriteNpy(stem + "image.npy", "|u1", "(" + count + ", 28, 28)", images.pixels);
      WriteNpy(stem + "wave.npy", "<u2", "(" + count + ", 2, 28)", waves);
      WriteNpy(stem + "vector.npy", "<u2", "(" + count + ", 56)", waves);
      WriteNpy(stem + "labels.npy", "|u1", "(" + count + ",)", images.labels);
    }
  }
  RankContext Context(int attempt) {
    RankContext context = RunTest::Context(attempt);
    context.data_root = root_;
    return context;
  }
};

recipe::Recipe Plain() {
  recipe::Recipe r;
  r.data.format = recipe::DataFormat::kNpy;
  r.batch_size = 64;
  r.length = {6, 0};
  r.checkpoint_every = {2, 0};
  return r;
}

recipe::Recipe TwoModalities() {
  recipe::Recipe r = Plain();
  r.branches = {{"picture", "image", false, {"tiny"}, {48, 32}, 1, 10, 2, {"cifar", kSide}},
                {"sound", "wave", false, {"resnet1d18", recipe::Stem::kSmall, 8}, {32}, 2, 20, 1, {"wave", 24}}};
  return r;
}

recipe::Recipe Alone(const std::string& encoder) {
  recipe::Recipe r = Plain();
  const bool wave = encoder == "resnet1d18";
  r.encoder = {encoder, recipe::Stem::kSmall, wave ? 8 : 32};
  r.expander = {32, 32};
  r.data.part = wave ? "wave" : "vector";
  r.data.channels = wave ? 2 : 56;
  r.augmentation = wave ? recipe::Augmentation{"wave", 24} : recipe::Augmentation{"vector", 0};
  return r;
}

TEST_F(Modalities, ResumedEqualsUninterrupted) {
  recipe::Recipe shared = TwoModalities();
  shared.branches.push_back(shared.branches[0]);
  shared.branches.back().name = "again";
  shared.branches.back().shared = true;
  int attempt = 0;
  for (const recipe::Recipe& recipe : {TwoModalities(), shared, Alone("resnet1d18"), Alone("mlp")}) {
    SCOPED_TRACE(recipe::Serialize(recipe));
    Recorder whole, first, second;
    const Outcome outcome = train::Run(recipe, Context(++attempt), stop_, whole);
    ASSERT_EQ(outcome.reason, ExitReason::kCompleted) << outcome.message;
    ASSERT_EQ(whole.rows.size(), 6u);
    EXPECT_LT(whole.rows.back().loss, whole.rows.front().loss);
    first.stop = &stop_;
    first.stop_after = 3;
    ASSERT_EQ(train::Run(recipe, Context(++attempt), stop_, first).reason, ExitReason::kStopped);
    stop_.requested = false;
    RankContext context = Context(++attempt);
    context.resume = ResumePoint{3, first.checkpoints.back().path, first.checkpoints.back().hash};
    ASSERT_EQ(train::Run(recipe, context, stop_, second).reason, ExitReason::kCompleted);
    ASSERT_EQ(second.rows.size(), 3u);
    EXPECT_EQ(second.rows[2].loss, whole.rows[5].loss);
    for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
      EXPECT_TRUE(Bytes(whole.checkpoints.back(), name) == Bytes(second.checkpoints.back(), name))
          << name << " differs";
    }
  }
}

TEST_F(Modalities, EachBranchIsExportedAndMeasured) {
  recipe::Recipe recipe = TwoModalities();
  recipe.knn.enabled = true;
  recipe.knn.every = {3, 0};
  Recorder recorder;
  const Outcome outcome = train::Run(recipe, Context(1), stop_, recorder);
  ASSERT_EQ(outcome.reason, ExitReason::kCompleted) << outcome.message;
  for (const StepRow& row : recorder.rows) {
    ASSERT_EQ(row.knn_by_branch.size(), row.step % 3 == 0 ? 2u : 0u) << row.step;
    EXPECT_EQ(row.knn_accuracy.has_value(), row.step % 3 == 0);
    if (row.knn_by_branch.empty()) continue;
    EXPECT_EQ(row.knn_by_branch[0].branch, "picture");
    EXPECT_EQ(row.knn_by_branch[1].branch, "sound");
    for (const BranchAccuracy& of : row.knn_by_branch) EXPECT_GT(of.accuracy, 0.2);  // ten classes
    EXPECT_NE(row.knn_by_branch[0].accuracy, row.knn_by_branch[1].accuracy);
    EXPECT_DOUBLE_EQ(*row.knn_accuracy, (row.knn_by_branch[0].accuracy + row.knn_by_branch[1].accuracy) / 2);
  }
  const std::string folder = root_ + "/" + recorder.exported + "/";
  const auto json = nlohmann::json::parse(*ReadFile(folder + "export.json"));
  EXPECT_EQ(json.at("files").size(), 2u);
  for (const char* name : {"encoder-picture.safetensors", "encoder-sound.safetensors"})
    EXPECT_EQ(json.at("files").at(name).at("sha256"), Sha256Hex(*ReadFile(folder + name))) << name;
  EXPECT_FALSE(fs::exists(folder + "encoder.safetensors"));
  EXPECT_EQ(recipe::Serialize(recipe::Deserialize(json.at("recipe").dump())), recipe::Serialize(recipe));
}

TEST_F(Modalities, WhatDoesNotFitEndsTheRunNamingTheFile) {
  fs::rename(root_ + "/test-wave.npy", root_ + "/hidden");
  recipe::Recipe recipe = TwoModalities();
  Recorder recorder;
  EXPECT_EQ(train::Run(recipe, Context(1), stop_, recorder).reason, ExitReason::kCompleted) << "no test samples needed";
  recipe.knn.enabled = true;
  const Outcome outcome = train::Run(recipe, Context(2), stop_, recorder);
  EXPECT_EQ(outcome.reason, ExitReason::kData);
  EXPECT_THAT(outcome.message, HasSubstr("data file test-wave.npy: not found"));
  recipe = TwoModalities();
  recipe.branches[1].channels = 3;
  const Outcome channels = train::Run(recipe, Context(3), stop_, recorder);
  EXPECT_EQ(channels.reason, ExitReason::kData);
  EXPECT_THAT(channels.message,
              HasSubstr("data file train-wave.npy: found (256, 2, 28) of uint16; expected waveforms"));
}

}  // namespace
}  // namespace vicreg::train
