// Goal: a job's branches are networks of their own that only the objective joins, and a network with many views treats
// each as if it were alone; how many ranks share the rows changes nothing. Method: branches against networks of one
// branch with the same weights; ranks as threads, uneven and empty, against one process, in double precision.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "tests/train/ranks.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/model/network.h"
#include "worker/train/objective/vicreg.h"

namespace vicreg::train {
namespace {

const bool kOneThread = [] {  // small shapes: more threads only wait for each other
  at::set_num_threads(1);
  return true;
}();

at::Tensor Normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kDouble).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(seed));
}

double Distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// An image and a waveform; nothing but D = 8 agrees.
recipe::Recipe TwoModalities() {
  recipe::Recipe recipe;
  recipe.branches = {
      {"photo", "image", false, {"tiny"}, {12, 10, 8}, 1, 10, 2, {"none", 13}},
      {"sound", "wave", false, {"resnet1d18", recipe::Stem::kSmall, 4}, {14, 8}, 2, 20, 1, {"none", 31}}};
  return recipe;
}

std::vector<at::Tensor> Samples(const recipe::Recipe& recipe, int64_t rows) {
  std::vector<at::Tensor> views;
  for (const recipe::Branch& view : recipe::Views(recipe)) {
    const std::uint64_t seed = 100 + views.size();
    const int64_t size = view.augmentation.size;
    at::Tensor x = view.part == "wave"     ? Normal({rows, view.channels, size}, seed)
                   : view.part == "vector" ? Normal({rows, view.channels}, seed)
                                           : Normal({rows, view.channels, size, size}, seed);
    views.push_back(x * static_cast<double>(views.size() + 1) + 1);  // statistics of one view are no other's
  }
  return views;
}

VicregWeights WeightsOf(const recipe::Recipe& recipe) {
  VicregWeights weights{25, {}};
  for (const recipe::Branch& view : recipe::Views(recipe)) weights.views.push_back({view.mu, view.nu});
  return weights;
}

std::set<std::string> FirstWords(const std::vector<NamedTensor>& tensors, std::size_t words) {
  std::set<std::string> found;
  for (const NamedTensor& t : tensors) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < words; ++i) end = t.name.find('.', end + 1);
    found.insert(t.name.substr(0, end));
  }
  return found;
}

TEST(Branches, NameTheirTensors) {
  recipe::Recipe recipe = TwoModalities();
  recipe.branches.push_back(recipe.branches[0]);
  recipe.branches[2].name = "copy";
  recipe.branches[2].shared = true;
  const Network network(recipe);
  EXPECT_THAT(FirstWords(network.parameters().all(), 2),
              testing::ElementsAre("photo.encoder", "photo.expander", "sound.encoder", "sound.expander"));
  recipe::Recipe one;
  one.expander = {8, 8};
  one.views = 4;
  const Network alone(one);
  EXPECT_THAT(FirstWords(alone.parameters().all(), 1), testing::ElementsAre("encoder", "expander"));
}

TEST(Branches, ExportTheirEncodersUnderTheNamesOfOne) {
  const Network network(TwoModalities());
  Parameters tiny(1, at::kFloat);
  MakeEncoder({"tiny"}, 1, 13, "", tiny);
  const auto photo = EncoderTensors(network.parameters().all(), "photo");
  ASSERT_EQ(photo.size(), tiny.all().size());
  for (std::size_t i = 0; i < photo.size(); ++i) EXPECT_EQ(photo[i].name, tiny.all()[i].name);
  EXPECT_THAT(EncoderTensors(network.parameters().all(), ""), testing::IsEmpty());
  EXPECT_EQ(recipe::EncoderFile("photo"), "encoder-photo.safetensors");
}

// A job of two views of that branch alone, with the branch's tensors.
std::unique_ptr<Network> Alone(const recipe::Recipe& recipe, std::size_t branch, const Network& whole) {
  const recipe::Branch& b = recipe.branches[branch];
  recipe::Recipe one;
  one.encoder = b.encoder;
  one.expander = b.expander;
  one.data.channels = b.channels;
  one.augmentation = b.augmentation;
  auto network = std::make_unique<Network>(one, at::kDouble);
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& t : whole.parameters().all()) {
    if (t.name.starts_with(b.name + ".")) tensors.push_back({t.name.substr(b.name.size() + 1), t.value});
  }
  CopyInto(tensors, network->parameters().all());
  return network;
}

TEST(Branches, ComputeWhatEachComputesAlone) {
  const recipe::Recipe recipe = TwoModalities();
  Network network(recipe, at::kDouble);
  const std::vector<at::Tensor> views = Samples(recipe, 6);
  Group group;
  for (std::size_t b = 0; b < 2; ++b) {
    SCOPED_TRACE(recipe.branches[b].name);
    const auto alone = Alone(recipe, b, network);
    const auto want = alone->Forward({views[b], views[b]}, group);
    Network fresh(recipe, at::kDouble);
    EXPECT_LT(Distance(fresh.Forward(views, group)[b], want[0]), 1e-12);
    EXPECT_EQ(network.Represent(views[b], static_cast<int>(b)).sizes()[0], 6);
  }
}

TEST(Branches, SharedOnesPassTheFirstsNetworkWithTheirOwnStatistics) {
  recipe::Recipe recipe = TwoModalities();
  recipe.branches.push_back(recipe.branches[0]);
  recipe.branches[2].shared = true;
  Network network(recipe, at::kDouble);
  const std::vector<at::Tensor> views = Samples(recipe, 6);
  Group group;
  const auto alone = Alone(recipe, 0, network);
  const auto want = alone->Forward({views[0], views[2]}, group), got = network.Forward(views, group);
  EXPECT_LT(Distance(got[0], want[0]), 1e-12);
  EXPECT_LT(Distance(got[2], want[1]), 1e-12);
  EXPECT_GT(Distance(got[0], got[2]), 1e-2);
  EXPECT_TRUE(at::equal(network.Represent(views[0], 0), network.Represent(views[0], 2)));
}

TEST(Views, EachIsEmbeddedAsIfItWereAlone) {
  for (const int count : {3, 4, 8}) {
    SCOPED_TRACE(count);
    recipe::Recipe recipe;
    recipe.expander = {12, 8};
    recipe.views = count;
    recipe.augmentation.size = 13;
    const std::vector<at::Tensor> views = Samples(recipe, 5);
    ASSERT_EQ(views.size(), static_cast<std::size_t>(count));
    Group group;
    const auto got = Network(recipe, at::kDouble).Forward(views, group);
    ASSERT_EQ(got.size(), views.size());
    recipe.views = 2;
    for (std::size_t v = 0; v < views.size(); ++v) {
      const auto alone = Network(recipe, at::kDouble).Forward({views[v], views[v]}, group);
      EXPECT_LT(Distance(got[v], alone[0]), 1e-12) << "view " << v;
    }
  }
}

TEST(Views, AsManyAndAsLongAsTheJobSays) {
  const recipe::Recipe recipe = TwoModalities();
  Network network(recipe, at::kDouble);
  const std::vector<at::Tensor> views = Samples(recipe, 4);
  Group group;
  EXPECT_THROW(network.Forward({views[0]}, group), std::invalid_argument);
  EXPECT_THROW(network.Forward({views[0], views[1].narrow(0, 0, 3)}, group), std::invalid_argument);
}

// What a step leaves behind: gradients summed over ranks, running statistics, the loss.
struct Step {
  std::vector<at::Tensor> gradients, all;
  double loss = 0;
};

Step StepOver(const recipe::Recipe& recipe, const std::vector<int64_t>& rows, bool synchronised = true) {
  int64_t n = 0;
  for (const int64_t r : rows) n += r;
  const std::vector<at::Tensor> views = Samples(recipe, n);
  Step step;
  std::mutex mutex;
  RunRanks(static_cast<int>(rows.size()), [&](Group& group) {
    Network network(recipe, at::kDouble);
    int64_t first = 0;
    for (int r = 0; r < group.rank(); ++r) first += rows[static_cast<std::size_t>(r)];
    std::vector<at::Tensor> own;
    for (const at::Tensor& view : views)
      own.push_back(view.narrow(0, first, rows[static_cast<std::size_t>(group.rank())]));
    Group alone;
    const auto embeddings = network.Forward(own, synchronised ? group : alone);
    const LossResult result = VicregLoss(embeddings, WeightsOf(recipe), recipe::LossForm::kAuto, group, 1);
    result.loss.backward();
    const std::scoped_lock lock(mutex);
    step.loss = result.terms.loss;
    std::size_t i = 0;
    for (const NamedTensor& p : network.parameters().trained()) {
      if (step.gradients.size() <= i) step.gradients.push_back(at::zeros_like(p.value));
      step.gradients[i++] += p.value.grad();
    }
    if (group.rank() != 0) return;
    for (const NamedTensor& t : network.parameters().all()) step.all.push_back(t.value.detach().to(at::kDouble));
  });
  return step;
}

double Relative(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& want) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]).square().sum().item<double>();
    size += want[i].square().sum().item<double>();
  }
  return std::sqrt(difference / size);
}

TEST(Branches, RanksTogetherEqualOneProcess) {
  recipe::Recipe shared = TwoModalities(), four;
  shared.branches.push_back(shared.branches[0]);
  shared.branches[2].shared = true;
  shared.branches.push_back({"numbers", "vector", false, {"mlp", recipe::Stem::kSmall, 9}, {8}, 5, 3, 3, {"none", 0}});
  four.expander = {12, 8};
  four.views = 4;
  four.augmentation.size = 13;
  for (const recipe::Recipe& recipe : {TwoModalities(), shared, four}) {
    SCOPED_TRACE(recipe::Views(recipe).size());
    const Step one = StepOver(recipe, {10});
    for (const std::vector<int64_t>& rows : std::vector<std::vector<int64_t>>{{5, 5}, {3, 7}, {3, 3, 4}, {6, 0, 4}}) {
      SCOPED_TRACE(testing::PrintToString(rows));
      const Step many = StepOver(recipe, rows);
      EXPECT_NEAR(many.loss, one.loss, 1e-11 * one.loss);
      EXPECT_LT(Relative(many.gradients, one.gradients), 1e-10);
      EXPECT_LT(Relative(many.all, one.all), 1e-12);
    }
  }
}

// Negative control: the comparison above sees statistics of own rows.
TEST(Branches, StatisticsOfOwnRowsAreFound) {
  const recipe::Recipe recipe = TwoModalities();
  EXPECT_GT(Relative(StepOver(recipe, {4, 6}, false).gradients, StepOver(recipe, {10}).gradients), 1e-2);
}

// Every branch is regularised by its own weights.
TEST(Branches, CarryTheirOwnWeights) {
  recipe::Recipe recipe = TwoModalities();
  const std::vector<at::Tensor> views = Samples(recipe, 10);
  Group group;
  const auto loss = [&](double mu_photo, double mu_sound) {
    recipe.branches[0].mu = mu_photo;
    recipe.branches[1].mu = mu_sound;
    Network network(recipe, at::kDouble);
    return VicregLoss(network.Forward(views, group), WeightsOf(recipe), recipe::LossForm::kAuto, group, 1).terms.loss;
  };
  const double none = loss(0, 0), photo = loss(1, 0) - none, sound = loss(0, 1) - none;
  EXPECT_GT(std::abs(photo - sound), 1e-6);
  EXPECT_NEAR(loss(3, 5), none + 3 * photo + 5 * sound, 1e-9);
}

}  // namespace
}  // namespace vicreg::train
