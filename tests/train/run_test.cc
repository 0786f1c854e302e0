// Goal: a run that was stopped and resumed ends with the same bits as one that was not; a run that goes wrong says
// where; kNN is what a plain loop computes. Method: whole runs of a small recipe on the committed fixture, one rank,
// compared by the bytes of their checkpoints.

#include "tests/train/run.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>
#include <vector>

#include "common/files.h"
#include "common/recipe/recipe_json.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/eval/knn.h"
#include "worker/train/trainer.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

recipe::Recipe Small() {
  recipe::Recipe recipe;
  recipe.data.limit = 256;
  recipe.encoder.name = "tiny";
  recipe.expander = {32, 32, 32};
  recipe.batch_size = 64;
  recipe.length = {6, 0};
  recipe.checkpoint_every = {2, 0};
  recipe.checkpoint_keep = 2;
  return recipe;
}

recipe::Recipe Byol() {
  recipe::Recipe recipe = Small();
  recipe.loss.objective = recipe::Objective::kByol;
  recipe.loss.predictor = 16;
  recipe.loss.momentum = 0.9;
  return recipe;
}

TEST_F(RunTest, ResumedEqualsUninterrupted) {
  int attempt = 0;
  recipe::Recipe views = Small();
  views.views = 3;
  for (const recipe::Recipe& recipe : {Small(), Byol(), views}) {  // BYOL's target is state beside the network
    SCOPED_TRACE(std::string(recipe::Name(recipe.loss.objective)) + ", views " + std::to_string(recipe.views));
    Recorder whole, first, second;
    ASSERT_EQ(train::Run(recipe, Context(++attempt), stop_, whole).reason, ExitReason::kCompleted);
    ASSERT_EQ(whole.rows.size(), 6u);

    first.stop = &stop_;
    first.stop_after = 3;
    const Outcome stopped = train::Run(recipe, Context(++attempt), stop_, first);
    EXPECT_EQ(stopped.reason, ExitReason::kStopped);
    EXPECT_EQ(stopped.step, 3);
    ASSERT_EQ(first.checkpoints.back().step, 3);

    stop_.requested = false;
    RankContext context = Context(++attempt);
    context.resume = ResumePoint{3, first.checkpoints.back().path, first.checkpoints.back().hash};
    const Outcome outcome = train::Run(recipe, context, stop_, second);
    ASSERT_EQ(outcome.reason, ExitReason::kCompleted) << outcome.message;
    EXPECT_EQ(second.connected, 3);
    ASSERT_EQ(second.rows.size(), 3u);
    EXPECT_EQ(second.rows[0].step, 4);
    EXPECT_EQ(second.rows[2].loss, whole.rows[5].loss);
    for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
      EXPECT_TRUE(Bytes(whole.checkpoints.back(), name) == Bytes(second.checkpoints.back(), name))
          << name << " differs";
    }
    EXPECT_TRUE(fs::exists(root_ + "/" + second.exported + "/encoder.safetensors"));
  }
}

// Same weights and samples at step 1, so the weighted terms are linear in what weighs them.
TEST_F(RunTest, EachViewIsWeighedByItsOwn) {
  int attempt = 0;
  const auto first = [&](const std::vector<recipe::ViewWeights>& weights) {
    recipe::Recipe recipe = Small();
    recipe.length = {1, 0};
    recipe.views = 3;
    recipe.loss.convention = recipe::Convention::kPerView;
    recipe.loss.per_view = weights;
    Recorder recorder;
    EXPECT_EQ(train::Run(recipe, Context(++attempt), stop_, recorder).reason, ExitReason::kCompleted);
    return recorder.rows.at(0);
  };
  const StepRow a = first({{1, 0}, {0, 0}, {0, 1}}), b = first({{0, 1}, {1, 0}, {0, 0}}),
                c = first({{0, 0}, {0, 1}, {1, 0}}), all = first({{3, 4}, {5, 6}, {7, 8}});
  EXPECT_NE(a.variance_weighted, b.variance_weighted);
  EXPECT_NEAR(a.variance, a.variance_weighted + b.variance_weighted + c.variance_weighted, 1e-12);
  EXPECT_NEAR(all.variance_weighted, 3 * a.variance_weighted + 5 * b.variance_weighted + 7 * c.variance_weighted, 1e-9);
  EXPECT_NEAR(all.covariance_weighted,
              4 * b.covariance_weighted + 6 * c.covariance_weighted + 8 * a.covariance_weighted, 1e-9);
}

// Loads `tensors` over the network's own of the same name, each once and all of them.
void Fill(Network& network, const std::vector<NamedTensor>& tensors, const std::string& prefix) {
  std::size_t filled = 0;
  for (const NamedTensor& own : network.parameters().all()) {
    if (own.name.rfind("encoder.", 0) != 0) continue;
    for (const NamedTensor& t : tensors) {
      if (prefix + t.name != own.name) continue;
      const at::NoGradGuard no_grad;
      own.value.copy_(t.value);
      ++filled;
    }
  }
  ASSERT_GT(filled, 0u);
  const auto wanted = std::count_if(tensors.begin(), tensors.end(),
                                    [&](const NamedTensor& t) { return (prefix + t.name).rfind("encoder.", 0) == 0; });
  ASSERT_EQ(filled, static_cast<std::size_t>(wanted));
}

TEST_F(RunTest, ExportedEncoderHasTheFeaturesOfTheOneInTraining) {
  const SampleSet images = OpenSamples(Context(1).data_root, Small(), "test", 40);
  for (const char* name : {"tiny", "resnet18"}) {
    SCOPED_TRACE(name);
    recipe::Recipe recipe = Small();
    recipe.encoder.name = name;
    recipe.encoder.width = 8;
    recipe.length = {2, 0};
    Recorder recorder;
    ASSERT_EQ(train::Run(recipe, Context(name[0]), stop_, recorder).reason, ExitReason::kCompleted);
    Group alone;
    Network trained(recipe);
    Fill(trained, ParseSafetensors(Bytes(recorder.checkpoints.back(), "model.safetensors")), "");
    recipe.seed = 99;  // nothing of another network's own weights may remain
    Network exported(recipe);
    const std::vector<NamedTensor> encoder =
        ParseSafetensors(*ReadFile(root_ + "/" + recorder.exported + "/encoder.safetensors"));
    EXPECT_FALSE(at::equal(Represent(exported, images, 0, alone), Represent(trained, images, 0, alone)));
    Fill(exported, encoder, "encoder.");
    EXPECT_TRUE(at::equal(Represent(exported, images, 0, alone), Represent(trained, images, 0, alone)));
    for (const NamedTensor& t : encoder) EXPECT_EQ(t.name.find("expander"), std::string::npos) << t.name;
  }
}

TEST_F(RunTest, KeepsTheNewestCheckpoints) {
  Recorder recorder;
  ASSERT_EQ(train::Run(Small(), Context(1), stop_, recorder).reason, ExitReason::kCompleted);
  ASSERT_EQ(recorder.checkpoints.size(), 3u);
  EXPECT_FALSE(fs::exists(root_ + "/" + recorder.checkpoints[0].path));
  EXPECT_TRUE(fs::exists(root_ + "/" + recorder.checkpoints[1].path));
  EXPECT_TRUE(fs::exists(root_ + "/" + recorder.checkpoints[2].path));
}

TEST_F(RunTest, KeepsWhatTheNextAttemptMayResumeFrom) {
  Recorder recorder;
  recorder.committed_at_most = 2;  // the coordinator went away after that
  recipe::Recipe recipe = Small();
  recipe.length = {10, 0};
  ASSERT_EQ(train::Run(recipe, Context(1), stop_, recorder).reason, ExitReason::kCompleted);
  ASSERT_EQ(recorder.checkpoints.size(), 5u);
  for (const CheckpointInfo& info : recorder.checkpoints) EXPECT_TRUE(fs::exists(root_ + "/" + info.path)) << info.path;
}

TEST_F(RunTest, NumericFailureNamesStepAndTerm) {
  recipe::Recipe recipe = Small();
  recipe.optimizer.peak_lr = 1e30;
  Recorder recorder;
  const Outcome outcome = train::Run(recipe, Context(1), stop_, recorder);
  EXPECT_EQ(outcome.reason, ExitReason::kNumeric) << outcome.message;
  EXPECT_THAT(
      outcome.message,
      ::testing::ContainsRegex(
          "(invariance|variance|covariance) term is not finite at step [0-9]+|gradient is not finite at step [0-9]+"));
  EXPECT_THAT(outcome.message, HasSubstr("rank 0"));
}

TEST_F(RunTest, NumericFailureSaysWhichBatchToSubstitute) {
  recipe::Recipe recipe = Small();
  recipe.optimizer.peak_lr = 1e30;
  Recorder recorder;
  const Outcome outcome = train::Run(recipe, Context(1), stop_, recorder);
  ASSERT_EQ(outcome.reason, ExitReason::kNumeric) << outcome.message;
  EXPECT_EQ(outcome.nonfinite_step, outcome.step + 1);
}

TEST_F(RunTest, SubstitutedBatchChangesItsStepAndNoneBefore) {
  RankContext context = Context(1);
  context.substituted_step = 3;
  Recorder plain, other;
  ASSERT_EQ(train::Run(Small(), Context(2), stop_, plain).reason, ExitReason::kCompleted);
  ASSERT_EQ(train::Run(Small(), context, stop_, other).reason, ExitReason::kCompleted);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(plain.rows[i].loss == other.rows[i].loss, i < 2) << i + 1;
}

TEST_F(RunTest, Bf16TrainsAsFp32DoesButForItsRounding) {
  recipe::Recipe recipe = Small();
  Recorder single, half;
  ASSERT_EQ(train::Run(recipe, Context(1), stop_, single).reason, ExitReason::kCompleted);
  recipe.precision = recipe::Precision::kBf16;
  ASSERT_EQ(train::Run(recipe, Context(2), stop_, half).reason, ExitReason::kCompleted);
  // Step 1 has the same weights. Eight bits of every activation are kept, and the terms are means of many.
  EXPECT_NE(half.rows[0].loss, single.rows[0].loss);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(half.rows[i].loss / single.rows[i].loss, 1, 0.03) << i + 1;
  for (const NamedTensor& t : ParseSafetensors(Bytes(half.checkpoints.back(), "model.safetensors")))
    EXPECT_NE(t.value.scalar_type(), at::kBFloat16) << t.name;
}

// fp16 is for GPUs; the rule that skips is the same on a CPU.
recipe::Recipe Fp16() {
  recipe::Recipe recipe = Small();
  recipe.precision = recipe::Precision::kFp16;
  recipe.batch_size = 8;  // half-precision convolutions of a CPU take their time
  recipe.augmentation.size = 12;
  return recipe;
}

TEST_F(RunTest, Fp16OverflowSkipsTheUpdateCountsItAndHalvesTheScale) {
  recipe::Recipe recipe = Fp16();
  recipe.length = {12, 0};
  recipe.loss.lambda_ = 100;  // overflows at first
  Recorder recorder;
  const Outcome outcome = train::Run(recipe, Context(1), stop_, recorder);
  ASSERT_EQ(outcome.reason, ExitReason::kCompleted) << outcome.message;
  const StepRow &first = recorder.rows.front(), &last = recorder.rows.back();
  EXPECT_EQ(first.loss_scale, 65536);
  EXPECT_EQ(first.skipped_steps, 1);
  EXPECT_FALSE(std::isfinite(first.grad_norm));
  EXPECT_LT(last.skipped_steps, 12);
  EXPECT_EQ(last.loss_scale, 65536 / std::exp2(static_cast<double>(last.skipped_steps)));
  EXPECT_TRUE(std::isfinite(last.grad_norm));
}

TEST_F(RunTest, Fp16ThatOverflows20TimesInARowIsNumeric) {
  recipe::Recipe recipe = Fp16();
  recipe.length = {30, 0};
  recipe.loss.lambda_ = 1e14;
  Recorder recorder;
  const Outcome outcome = train::Run(recipe, Context(1), stop_, recorder);
  EXPECT_EQ(outcome.reason, ExitReason::kNumeric) << outcome.message;
  EXPECT_THAT(outcome.message, HasSubstr("20 times in a row"));
  EXPECT_EQ(recorder.rows.size(), 19u);
}

TEST_F(RunTest, Fp16ResumesWithItsLossScale) {
  recipe::Recipe recipe = Fp16();
  recipe.loss.lambda_ = 100;
  Recorder whole, second;
  ASSERT_EQ(train::Run(recipe, Context(1), stop_, whole).reason, ExitReason::kCompleted);
  RankContext context = Context(2);
  context.resume = ResumePoint{4, whole.checkpoints[1].path, whole.checkpoints[1].hash};
  ASSERT_EQ(train::Run(recipe, context, stop_, second).reason, ExitReason::kCompleted);
  EXPECT_EQ(second.rows.front().loss_scale, whole.rows[4].loss_scale);
  EXPECT_EQ(second.rows.front().skipped_steps, whole.rows[4].skipped_steps);
  for (const char* name : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_TRUE(Bytes(whole.checkpoints.back(), name) == Bytes(second.checkpoints.back(), name)) << name << " differs";
}

TEST_F(RunTest, MissingDataIsADataError) {
  RankContext context = Context(1);
  context.data_root = root_;
  Recorder recorder;
  const Outcome outcome = train::Run(Small(), context, stop_, recorder);
  EXPECT_EQ(outcome.reason, ExitReason::kData);
  EXPECT_THAT(outcome.message, HasSubstr("train-images-idx3-ubyte"));
}

TEST_F(RunTest, KnnIsMeasuredBeforeItsRow) {
  recipe::Recipe recipe = Small();
  recipe.knn.enabled = true;
  recipe.knn.every = {3, 0};
  Recorder recorder;
  ASSERT_EQ(train::Run(recipe, Context(1), stop_, recorder).reason, ExitReason::kCompleted);
  for (const StepRow& row : recorder.rows) EXPECT_EQ(row.knn_accuracy.has_value(), row.step % 3 == 0) << row.step;
  EXPECT_GT(*recorder.rows.back().knn_accuracy, 0.2);  // ten classes
}

TEST(Knn, EqualsAPlainLoop) {
  const std::int64_t m = 60, q = 300, f = 5;
  at::Tensor bank = at::empty({m, f}, at::kFloat), queries = at::empty({q, f}, at::kFloat);
  std::vector<std::uint8_t> bank_labels, labels;
  const auto fill = [](at::Tensor& t, double a) {
    float* data = t.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < t.numel(); ++i)
      data[i] = static_cast<float>(std::sin(a * static_cast<double>(i + 1) * static_cast<double>(i + 3)));
  };
  fill(bank, 1.7);
  fill(queries, 2.3);
  for (std::int64_t i = 0; i < m; ++i) bank_labels.push_back(static_cast<std::uint8_t>(i % 3));
  for (std::int64_t i = 0; i < q; ++i) labels.push_back(static_cast<std::uint8_t>(i % 3));
  const float *b = bank.const_data_ptr<float>(), *x = queries.const_data_ptr<float>();
  int right = 0;
  for (std::int64_t i = 0; i < q; ++i) {
    std::vector<std::pair<double, std::int64_t>> near;
    for (std::int64_t j = 0; j < m; ++j) {
      double dot = 0, nb = 0, nx = 0;
      for (std::int64_t c = 0; c < f; ++c) {
        dot += b[j * f + c] * x[i * f + c];
        nb += b[j * f + c] * b[j * f + c];
        nx += x[i * f + c] * x[i * f + c];
      }
      near.emplace_back(-dot / std::sqrt(nb * nx), j);
    }
    std::sort(near.begin(), near.end());
    double votes[3] = {};
    for (int n = 0; n < 7; ++n) votes[near[n].second % 3] += std::exp(-near[n].first / 0.07);
    const auto winner = static_cast<std::uint8_t>(std::max_element(votes, votes + 3) - votes);
    right += winner == labels[static_cast<std::size_t>(i)];
    EXPECT_EQ(KnnAccuracy(bank, bank_labels, queries.narrow(0, i, 1), {winner}, 7, 0.07), 1) << "query " << i;
  }
  EXPECT_DOUBLE_EQ(KnnAccuracy(bank, bank_labels, queries, labels, 7, 0.07), right / static_cast<double>(q));
}

}  // namespace
}  // namespace vicreg::train
