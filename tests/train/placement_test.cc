// Goal: a rank whose device is not the CPU keeps every tensor on its device, and learns the same there. Method: a
// device that refuses to mix its tensors with the CPU's and computes what the CPU computes (strict_device.h); whole
// updates, evaluation and checkpoints there and on the CPU from the same batches. What it cannot show is a GPU's own
// arithmetic and timing.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "common/recipe/networks.h"
#include "tests/train/strict_device.h"
#include "worker/train/checkpoint/checkpoint.h"
#include "worker/train/eval/knn.h"
#include "worker/train/learner.h"
#include "worker/train/pinned_memory.h"

namespace vicreg::train {
namespace {

constexpr int kRows = 24, kSide = 16;

recipe::Recipe Small(recipe::OptimizerKind kind = recipe::OptimizerKind::kAdamW) {
  recipe::Recipe r;
  r.encoder.name = "tiny";
  r.expander = {48, 32};
  r.batch_size = kRows;
  r.augmentation.size = kSide;
  r.optimizer = {kind, 0.05, 1e-4};
  return r;
}

// With a predictor, a target, or terms of regularisation, as it may have.
recipe::Recipe With(recipe::Objective objective) {
  recipe::Recipe r = Small();
  r.loss.objective = objective;
  r.loss.redundancy = 0.0051;
  r.loss.regularize = {1, 0.01, recipe::RegularizeOn::kL2};
  if (objective == recipe::Objective::kSimSiam || objective == recipe::Objective::kByol) r.loss.predictor = 16;
  if (objective == recipe::Objective::kByol) r.loss.momentum = 0.9;
  return r;
}

recipe::Recipe InParts() {
  recipe::Recipe r = With(recipe::Objective::kByol);
  r.encoder.name = "vit_ti16";
  r.expander_norm = recipe::ExpanderNorm::kNone;
  r.accumulate = 3;
  return r;
}

// An image and a waveform, each with a network of its own.
recipe::Recipe Branches() {
  recipe::Recipe r = Small();
  r.branches = {{"photo", "image", false, {"tiny"}, {48, 32}, 1, 10, 2, {"none", kSide}},
                {"sound", "wave", false, {"resnet1d18", recipe::Stem::kSmall, 8}, {32}, 2, 20, 1, {"none", kSide}}};
  return r;
}

Batch MakeBatch(const recipe::Recipe& recipe, std::uint64_t seed) {
  Batch batch;
  batch.rows = kRows;
  std::int64_t row = 0;
  for (const recipe::Branch& view : recipe::Views(recipe)) row += c10::multiply_integers(recipe::SampleShape(view));
  batch.views.resize(static_cast<std::size_t>(kRows * row));
  const at::Tensor values = at::randn({static_cast<std::int64_t>(batch.views.size())},
                                      at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kFloat));
  std::copy_n(values.const_data_ptr<float>(), batch.views.size(), batch.views.data());
  return batch;
}

void ExpectSame(const std::vector<NamedTensor>& there, const std::vector<NamedTensor>& here, double within = 1e-6) {
  ASSERT_EQ(there.size(), here.size());
  for (std::size_t i = 0; i < there.size(); ++i) {
    EXPECT_EQ(there[i].value.device(), StrictDevice()) << there[i].name;
    EXPECT_TRUE(at::allclose(there[i].value.detach().cpu(), here[i].value.detach(), 1e-4, within)) << there[i].name;
  }
}

TEST(StrictDevice, RefusesToMixWithTheCpu) {
  const at::Tensor there = at::ones({3}, at::TensorOptions().device(StrictDevice())), here = at::ones({3});
  EXPECT_THAT([&] { there + here; }, ::testing::Throws<c10::Error>());
  EXPECT_TRUE((there + 1).cpu().equal(at::full({3}, 2.f)));
}

class Placement : public ::testing::TestWithParam<recipe::Recipe> {};

TEST_P(Placement, AWholeUpdateStaysOnTheDeviceAndIsTheSame) {
  const recipe::Recipe& recipe = GetParam();
  // adamw's first updates are as long as the rate, however short the gradient: rounding decides the direction of one
  // that is 0 but for rounding (a bias before batch norm). Its gradients' means are compared instead. sgd's are as long
  // as the gradient, so three of them at a high rate carry the devices' rounding apart.
  const bool adamw = recipe.optimizer.kind == recipe::OptimizerKind::kAdamW;
  const double rate = adamw ? 1e-4 : recipe.optimizer.kind == recipe::OptimizerKind::kSgd ? 1e-3 : 0.05;
  Group alone;
  const long before = StrictOperations();
  Learner there(recipe, alone, StrictDevice()), here(recipe, alone, at::kCPU);
  for (int step = 1; step <= 3; ++step) {
    Batch batch = MakeBatch(recipe, static_cast<std::uint64_t>(step)), same = batch;
    const Update a = there.Learn(batch, rate, step, 3), b = here.Learn(same, rate, step, 3);
    EXPECT_NEAR(a.terms.loss, b.terms.loss, 1e-4 * std::abs(b.terms.loss)) << step;
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-3 * b.grad_norm) << step;
  }
  ExpectSame(there.model(), here.model(), adamw ? 6 * rate : 1e-6);
  ExpectSame(there.optimizer_state(), here.optimizer_state(), 1e-3);
  EXPECT_GT(StrictOperations(), before + 100);
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Placement,
                         ::testing::Values(Small(recipe::OptimizerKind::kAdamW), Small(recipe::OptimizerKind::kLars),
                                           Small(recipe::OptimizerKind::kLarc), Small(recipe::OptimizerKind::kSgd)));
INSTANTIATE_TEST_SUITE_P(Objectives, Placement,
                         ::testing::Values(With(recipe::Objective::kBarlowTwins), With(recipe::Objective::kSimSiam),
                                           With(recipe::Objective::kByol), InParts(), Branches()));

TEST(Placement, ACheckpointOfTheDeviceIsTheCpusAndBack) {
  std::string folder = (std::filesystem::temp_directory_path() / "vicreg-placement-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const recipe::Recipe recipe = With(recipe::Objective::kByol);  // whose target is state too
  Group alone;
  Learner there(recipe, alone, StrictDevice());
  Batch batch = MakeBatch(recipe, 1);
  there.Learn(batch, 0.05, 1, 4);
  const CheckpointId id{"default", "job", 1, 1, "hash"};
  const SavedCheckpoint saved = SaveCheckpoint(folder, id, there.model(), there.optimizer_state());
  Learner here(recipe, alone, at::kCPU), back(recipe, alone, StrictDevice());
  for (Learner* learner : {&here, &back})
    LoadCheckpoint(folder, saved.path, saved.hash, 1, "hash", learner->model(), learner->optimizer_state());
  ExpectSame(there.model(), here.model());
  ExpectSame(back.model(), here.model());
  ExpectSame(back.optimizer_state(), here.optimizer_state());
  std::filesystem::remove_all(folder);
}

TEST(Placement, BatchesLieInTheDevicesHostMemory) {
  StrictDevice();
  PinnedMemory pinned(StrictDevice().type());
  const long before = StrictHostBlocks();
  {
    ImageSet images;
    images.count = 6;
    images.height = images.width = 8;
    images.pixels.resize(6 * 8 * 8, 77);
    LoaderOptions options;
    options.batch_size = 2;
    options.memory = &pinned;
    const SampleSet samples = ImageSamples(images, OptionsFor("cifar", 8), 2);
    Loader loader(samples, options);
    const Batch batch = loader.Next();  // it is moved to its user, never copied
    EXPECT_EQ(batch.views.get_allocator().resource(), &pinned);
    EXPECT_EQ(batch.views.size(), 2U * 2 * 8 * 8);
    EXPECT_GT(StrictHostBlocks(), before);
  }
  EXPECT_EQ(StrictHostBlocks(), before);
}

TEST(Placement, EvaluationReadsImagesFromTheHost) {
  const recipe::Recipe recipe = Small();
  ImageSet images;
  images.count = 40;
  images.height = images.width = kSide;
  images.pixels.resize(40 * kSide * kSide);
  for (std::size_t i = 0; i < images.pixels.size(); ++i) images.pixels[i] = static_cast<std::uint8_t>(i * 7919 >> 4);
  for (int i = 0; i < 40; ++i) images.labels.push_back(static_cast<std::uint8_t>(i % 4));
  const SampleSet set = ImageSamples(images, OptionsFor("none", kSide), 1);
  Group alone;
  const Network there(recipe, at::kFloat, StrictDevice()), here(recipe);
  const at::Tensor a = Represent(there, set, 0, alone), b = Represent(here, set, 0, alone);
  EXPECT_EQ(a.device(), StrictDevice());
  EXPECT_TRUE(at::allclose(a.cpu(), b, 1e-4, 1e-5));
  EXPECT_EQ(KnnAccuracy(a, images.labels, a, images.labels, 3, 0.07),
            KnnAccuracy(b, images.labels, b, images.labels, 3, 0.07));
}

}  // namespace
}  // namespace vicreg::train
