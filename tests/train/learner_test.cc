// Goal: what no job can choose of a Learner, and comparisons with other frameworks do, changes what it says and nothing
// else. Method: one update of two ranks as threads, from rows that are the same on both or not.

#include "worker/train/learner.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "tests/train/ranks.h"

namespace vicreg::train {
namespace {

constexpr int kRanks = 2, kRows = 12, kSide = 16;  // rows of each rank

// D > N: the objective's collectives are of moments, rows and shares.
recipe::Recipe Small() {
  recipe::Recipe r;
  r.encoder.name = "tiny";
  r.expander = {48, 48};
  r.batch_size = kRanks * kRows;
  r.augmentation.size = kSide;
  r.optimizer = {recipe::OptimizerKind::kSgd, 0.05, 1e-4};
  return r;
}

Batch MakeBatch(std::uint64_t seed) {
  Batch batch;
  batch.rows = kRows;
  const at::Tensor values = at::randn({2 * kRows * kSide * kSide}, at::detail::createCPUGenerator(seed),
                                      at::TensorOptions().dtype(at::kFloat));
  batch.views.assign(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
  return batch;
}

struct Learned {
  double loss = 0;
  std::int64_t collectives = 0;
  at::Tensor parameters;
};

// What rank 0 has after one update; rank r's rows are drawn from seeds[r].
Learned LearnOnce(const LearnerOptions& options, std::array<std::uint64_t, kRanks> seeds) {
  Learned learned;
  RunRanks(kRanks, [&](Group& group) {
    const recipe::Recipe recipe = Small();
    Learner learner(recipe, group, at::kCPU, options);
    Batch batch = MakeBatch(seeds[static_cast<std::size_t>(group.rank())]);
    const Update update = learner.Learn(batch, 0.05, 1, 2);
    if (group.rank() != 0) return;
    std::vector<at::Tensor> parameters;
    for (const NamedTensor& t : learner.network().parameters().trained())
      parameters.push_back(t.value.detach().flatten());
    learned = {update.terms.loss, group.collectives(), at::cat(parameters)};
  });
  return learned;
}

TEST(Learner, OwnRowsNormsLookAtNoOtherRank) {
  const LearnerOptions own{.own_rows_norms = true};
  const Learned same = LearnOnce(own, {1, 1}), same_of_all = LearnOnce({}, {1, 1});
  EXPECT_EQ(same.collectives, 3);
  EXPECT_GT(same_of_all.collectives, 3);
  EXPECT_NEAR(same.loss, same_of_all.loss, 1e-5 * same_of_all.loss);
  const Learned other = LearnOnce(own, {1, 2}), other_of_all = LearnOnce({}, {1, 2});
  EXPECT_EQ(other.collectives, 3);
  EXPECT_GT(std::abs(other.loss - other_of_all.loss), 1e-3 * other_of_all.loss);
}

TEST(Learner, BucketsOfAnySizeGiveTheSameUpdate) {
  const Learned usual = LearnOnce({}, {1, 2});
  for (const std::size_t bytes : {std::size_t{1} << 10, std::size_t{1} << 40}) {
    const Learned learned = LearnOnce({.bucket_bytes = bytes}, {1, 2});
    EXPECT_TRUE(at::equal(learned.parameters, usual.parameters)) << bytes;  // a sum of two has no order
  }
  EXPECT_FALSE(at::equal(LearnOnce({}, {1, 1}).parameters, usual.parameters));
}

}  // namespace
}  // namespace vicreg::train
