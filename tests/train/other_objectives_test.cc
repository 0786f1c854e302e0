// Goal: Barlow Twins, SimSiam and BYOL computed by many ranks, each from its own rows, are the loss and the gradient of
// one process that holds all rows. Method: plain autograd over all rows, written from the papers, against ranks as
// threads; numbers worked out by hand. The same comparison must fail when the sharding is done wrong in the known ways.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/train/sharded_loss.h"
#include "worker/train/objective/barlow_twins.h"
#include "worker/train/objective/cosine.h"

namespace vicreg::train {
namespace {

using recipe::LossForm;
using ::testing::HasSubstr;

constexpr LossForm kForms[] = {LossForm::kGram, LossForm::kCovariance};
const char* NameOf(LossForm form) { return form == LossForm::kGram ? "gram" : "covariance"; }

// Against plain autograd over all rows; every rank reports the same.
Error Compare(const Shards& s, const ShardedLoss& sharded, const WholeLoss& plain) {
  const Comparison comparison = CompareWithWhole(s, sharded, plain);
  for (const LossResult& rank : comparison.ranks)
    EXPECT_TRUE(at::equal(rank.loss, comparison.ranks[0].loss)) << "a rank reports another loss than rank 0";
  return comparison.error;
}

std::string Describe(const Shards& c) {
  std::string text =
      std::to_string(c.views) + " views, N " + std::to_string(c.n) + ", D " + std::to_string(c.d) + ", rows";
  for (const int64_t n : c.rows) text += " " + std::to_string(n);
  return text + (c.dtype == at::kFloat ? ", fp32" : ", fp64");
}

// The gates of both precisions.
void ExpectParity(const Shards& c, const ShardedLoss& sharded, const WholeLoss& plain) {
  SCOPED_TRACE(Describe(c));
  const Error error = Compare(c, sharded, plain);
  EXPECT_LE(error.loss, c.dtype == at::kDouble ? 1e-12 : 1e-5);
  EXPECT_LE(error.embeddings, c.dtype == at::kDouble ? 1e-12 : 1e-5);
  EXPECT_LE(error.parameters, c.dtype == at::kDouble ? 1e-12 : 1e-5);
}

// ---------------------------------------------------------------------------------------------- Barlow Twins

// Algorithm 1 of the paper; the published code normalises by batch norm without affine.
at::Tensor PlainBarlowTwins(const Views& views, double h) {
  const double n = static_cast<double>(views[0].size(0));
  Views normed;
  for (const at::Tensor& z : views) normed.push_back((z - z.mean(0)) / (z.var(0, /*unbiased=*/false) + 1e-5).sqrt());
  const at::Tensor k = normed[0].t().mm(normed[1]) / n;
  const at::Tensor off_diagonal = k * (1 - at::eye(k.size(0), k.options()));
  return (1 - k.diagonal()).square().sum() + h * off_diagonal.square().sum();
}

WholeLoss BarlowPlain(double h) {
  return [h](const Views& all) { return PlainBarlowTwins(all, h); };
}

ShardedLoss Barlow(double h, LossForm form) {
  return [=](const Views& views, Group& group) { return BarlowTwinsLoss(views, h, form, group, group.size()); };
}

TEST(BarlowTwins, EqualsPlainAutogradOverAllRows) {
  for (const auto& [n, d] : {std::pair{7, 19}, {40, 5}, {12, 12}}) {
    for (const std::vector<int64_t>& rows : Splits(n)) {
      for (const LossForm form : kForms) {
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
          SCOPED_TRACE(NameOf(form));
          ExpectParity({n, d, rows, dtype}, Barlow(0.3, form), BarlowPlain(0.3));
        }
      }
    }
  }
}

TEST(BarlowTwins, EachTermAloneEqualsPlainAutograd) {
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    ExpectParity({14, 9, {4, 1, 9}}, Barlow(0, form), BarlowPlain(0));
    // So much weight that the other term is below the gate.
    const double h = 1e14;
    ExpectParity({14, 9, {4, 1, 9}}, Barlow(h, form), BarlowPlain(h));
  }
}

TEST(BarlowTwins, MoreThanOneBlockEqualsPlainAutograd) {
  ExpectParity({2100, 6, {1000, 1100}}, Barlow(0.3, LossForm::kGram), BarlowPlain(0.3));
  ExpectParity({40, 600, {15, 25}}, Barlow(0.0051, LossForm::kCovariance), BarlowPlain(0.0051));
}

// 2X and 2Y: X's columns are orthogonal, Y is X with its second column turned around. Then K = diag(1, -1), but for
// eps: columns of X have v = 1/4, so K_jj = +-(1/4) / (1/4 + 1e-5).
TEST(BarlowTwins, TermsAreTheHandComputedOnes) {
  const at::Tensor x = at::tensor({1., 1., 1., -1., -1., 1., -1., -1.}, at::kDouble).reshape({4, 2}) / 2;
  const at::Tensor y = x * at::tensor({1., -1.}, at::kDouble);
  const double k = 0.25 / (0.25 + 1e-5);
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    Group alone;
    const LossTerms t = BarlowTwinsLoss({x + 3, y}, 0.5, form, alone, 1).terms;
    EXPECT_NEAR(t.invariance, (1 - k) * (1 - k) + (1 + k) * (1 + k), 1e-12);
    EXPECT_NEAR(t.covariance, 0, 1e-12);
    EXPECT_NEAR(t.mismatch, 1, 1e-12);
    EXPECT_NEAR(t.redundancy, 0, 1e-12);
    // Two columns that are one: K is all +-k.
    const at::Tensor same = x.narrow(1, 0, 1).expand({4, 2});
    const LossTerms s = BarlowTwinsLoss({same, same}, 0.5, form, alone, 1).terms;
    EXPECT_NEAR(s.invariance, 2 * (1 - k) * (1 - k), 1e-12);
    EXPECT_NEAR(s.covariance, 2 * k * k, 1e-12);
    EXPECT_NEAR(s.covariance_weighted, k * k, 1e-12);
    EXPECT_NEAR(s.loss, s.invariance_weighted + s.covariance_weighted, 1e-15);
    EXPECT_NEAR(s.redundancy, k * k, 1e-12);
    EXPECT_NEAR(s.mismatch, 1 - k, 1e-12);
    EXPECT_NEAR(s.covariance_noise_floor, 2.0 / 3, 1e-12);
    // Standardised: unbiased variance 4/3 of k.
    EXPECT_NEAR(s.z_std_mean, std::sqrt(4.0 / 3 * k + 1e-4), 1e-12);
  }
}

TEST(BarlowTwins, AutoLooksAtRowsOfAllRanksAndWidthOnly) {
  for (const auto& [n, d, form] : {std::tuple{8, 9, LossForm::kGram}, {8, 8, LossForm::kCovariance}}) {
    for (const int world : {1, 2, 4}) {
      RunRanks(world, [&](Group& group) {
        const at::Tensor x = Normal({n / group.size(), d}, 1), y = Normal({n / group.size(), d}, 2);
        EXPECT_EQ(BarlowTwinsLoss({x, y}, 1, LossForm::kAuto, group, 1).form, form) << "N " << n << ", D " << d;
      });
    }
  }
}

// Moments as in VICReg's; then the standardised rows of both views and 3 D numbers, or K.
TEST(BarlowTwins, CollectivesAndBytesAreThePredictedOnes) {
  const struct {
    LossForm form;
    int64_t d;
    std::int64_t collectives, bytes;
  } rows[] = {{LossForm::kGram, 9, 3, 16 + 2 * 9 * (8 + 4) + 2 * 4 * 9 * 4 + 3 * 9 * 8},
              {LossForm::kCovariance, 5, 2, 16 + 2 * 5 * (8 + 4) + 5 * 5 * 4}};
  for (const auto& row : rows) {
    SCOPED_TRACE(NameOf(row.form));
    RunRanks(2, [&](Group& group) {
      const at::Tensor x = Normal({4, row.d}, 1).to(at::kFloat).set_requires_grad(true),
                       y = Normal({4, row.d}, 2).to(at::kFloat);
      const at::Tensor loss = BarlowTwinsLoss({x, y}, 1, row.form, group, 1).loss;
      EXPECT_EQ(group.collectives(), row.collectives);
      EXPECT_EQ(group.bytes(), row.bytes);
      loss.backward();
      EXPECT_EQ(group.collectives(), row.collectives) << "backward waited for other ranks";
      EXPECT_TRUE(x.grad().defined());
    });
  }
}

// Negative controls.
TEST(BarlowTwins, ShardedWrongTheComparisonFails) {
  const Shards c{12, 16, {3, 3, 3, 3}};
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    const Error forgotten = Compare(
        c, [&](const Views& v, Group& g) { return BarlowTwinsLoss(v, 0.3, form, g, 1); }, BarlowPlain(0.3));
    EXPECT_NEAR(forgotten.embeddings, 0.75, 1e-10) << "the factor W";
  }
  // Mean and deviation taken for constants.
  const Error constant = Compare(
      c,
      [&](const Views& views, Group& group) {
        Views all;
        for (const at::Tensor& z : views) {
          const at::Tensor others = group.AllGather(z.detach()).flatten(0, 1);
          const at::Tensor attached = others.index_copy(0, at::arange(z.size(0)) + group.rank() * z.size(0), z);
          all.push_back((attached - others.mean(0)) / (others.var(0, false) + 1e-5).sqrt());
        }
        const at::Tensor k = all[0].t().mm(all[1]) / 12.0;
        const at::Tensor off = k * (1 - at::eye(16, k.options()));
        return LossResult{((1 - k.diagonal()).square().sum() + 0.3 * off.square().sum()) * group.size(), {}};
      },
      [](const Views& all) { return 4 * PlainBarlowTwins(all, 0.3); });  // what is added up counts W times
  EXPECT_LE(constant.loss, 1e-12) << "the control differs by more than the fault it is about";
  EXPECT_GT(constant.embeddings, 0.1);
}

TEST(BarlowTwins, ConstantColumnHasFiniteLossAndNoGradient) {
  for (const LossForm form : kForms) {
    Group alone;
    at::Tensor x = Normal({5, 3}, 1);
    x.select(1, 1).fill_(7);
    x.set_requires_grad(true);
    const LossResult result = BarlowTwinsLoss({x, Normal({5, 3}, 2)}, 1, form, alone, 1);
    result.loss.backward();
    EXPECT_TRUE(std::isfinite(result.terms.loss));
    EXPECT_DOUBLE_EQ(result.terms.z_std_min, 0.01);  // sqrt(1e-4): collapsed
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
  }
}

TEST(BarlowTwins, RefusesWhatItCannotCompare) {
  const auto refusal = [](const Views& views) -> std::string {
    Group alone;
    try {
      BarlowTwinsLoss(views, 1, LossForm::kAuto, alone, 1);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  const at::Tensor z = Normal({4, 3}, 1);
  EXPECT_THAT(refusal({z, z, z}), HasSubstr("exactly 2 views; found 3"));
  EXPECT_THAT(refusal({z, Normal({4, 2}, 2)}), HasSubstr("one shape"));
  EXPECT_THAT(refusal({Normal({1, 3}, 1), Normal({1, 3}, 2)}), HasSubstr("at least 2 rows over all ranks; found 1"));
  EXPECT_EQ(refusal({z, z}), "");
}

TEST(BarlowTwins, NotANumberOfOneRankIsSeenByAll) {
  RunRanks(3, [&](Group& group) {
    at::Tensor x = Normal({2, 4}, 1);
    if (group.rank() == 1) x[0][2] = std::numeric_limits<double>::quiet_NaN();
    for (const LossForm form : kForms)
      EXPECT_EQ(BarlowTwinsLoss({x, Normal({2, 4}, 2)}, 1, form, group, 3).terms.nonfinite_term, "invariance");
  });
}

// ---------------------------------------------------------------------------------------------- cosine losses

// A predictor: the same small map on every rank.
at::Tensor Predict(const at::Tensor& z) {
  const at::Tensor q = Normal({z.size(1), z.size(1)}, 77).to(z.scalar_type());
  return z.mm(q).tanh() + 0.1;
}

// Equations 1 and 2 of SimSiam's paper, averaged over pairs; targets are the embeddings, held constant.
at::Tensor PlainCosine(const Views& views) {
  at::Tensor sum = at::zeros({}, views[0].options());
  for (std::size_t k = 0; k < views.size(); ++k) {
    for (std::size_t l = 0; l < views.size(); ++l) {
      if (k != l) sum = sum - at::cosine_similarity(Predict(views[k]), views[l].detach(), 1).mean();
    }
  }
  return sum / static_cast<double>(views.size() * (views.size() - 1));
}

ShardedLoss Cosine(double scale_of_w = 1) {
  return [=](const Views& views, Group& group) {
    Views predictions, targets;
    for (const at::Tensor& z : views) {
      predictions.push_back(Predict(z));
      targets.push_back(z);
    }
    return LossResult{NegativeCosine(predictions, targets, group, scale_of_w * group.size()).loss, {}};
  };
}

TEST(NegativeCosine, EqualsPlainAutogradOverAllRows) {
  for (const std::size_t views : {2, 3}) {
    for (const std::vector<int64_t>& rows : Splits(7)) {
      for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
        ExpectParity({7, 5, rows, dtype, views}, Cosine(), PlainCosine);
    }
  }
}

TEST(NegativeCosine, TargetsGetNoGradient) {
  Group alone;
  const at::Tensor p = Normal({4, 3}, 1).set_requires_grad(true), t = Normal({4, 3}, 2).set_requires_grad(true);
  NegativeCosine({p, p}, {t, t}, alone, 1).loss.backward();
  EXPECT_TRUE(p.grad().defined());
  EXPECT_FALSE(t.grad().defined());
}

TEST(NegativeCosine, IsTheHandComputedOne) {
  Group alone;
  const at::Tensor p = at::tensor({3., 4., 1., 0.}, at::kDouble).reshape({2, 2});
  const at::Tensor t = at::tensor({1., 0., 0., 2.}, at::kDouble).reshape({2, 2});
  // cos of rows: 3/5 and 0; with itself 1.
  EXPECT_NEAR(NegativeCosine({p, p}, {t, t}, alone, 1).cosine, 0.3, 1e-15);
  EXPECT_NEAR(NegativeCosine({p, p}, {t, p}, alone, 1).cosine, (0.3 + 1) / 2, 1e-15);
  EXPECT_NEAR(NegativeCosine({p, p}, {p, t}, alone, 1).loss.item<double>(), -(0.3 + 1) / 2, 1e-15);
}

TEST(NegativeCosine, RowOfZerosIsFinite) {
  Group alone;
  at::Tensor p = Normal({3, 4}, 1);
  p[1].zero_();
  p.set_requires_grad(true);
  NegativeCosine({p, p}, {Normal({3, 4}, 2), Normal({3, 4}, 3)}, alone, 1).loss.backward();
  EXPECT_TRUE(p.grad().isfinite().all().item<bool>());
}

// Negative controls: the factor W, and the mean of the ranks' means where ranks have unequal rows.
TEST(NegativeCosine, ShardedWrongTheComparisonFails) {
  EXPECT_NEAR(Compare({12, 5, {3, 3, 3, 3}}, Cosine(0.25), PlainCosine).embeddings, 0.75, 1e-10);
  const Error means = Compare(
      {12, 5, {2, 10}},
      [](const Views& views, Group&) {
        Group alone;
        LossResult result = Cosine()(views, alone);
        result.loss = result.loss - result.loss.detach();  // the value is not what this is about
        return result;
      },
      [](const Views& all) { return PlainCosine(all) * 1.0; });
  EXPECT_GT(means.embeddings, 0.1);
}

TEST(NegativeCosine, OneSmallCollectiveAndNoneInBackward) {
  RunRanks(3, [](Group& group) {
    const at::Tensor p = Normal({2, 4}, 1).set_requires_grad(true);
    const at::Tensor loss = NegativeCosine({p, p}, {Normal({2, 4}, 2), Normal({2, 4}, 3)}, group, 3).loss;
    EXPECT_EQ(group.collectives(), 1);
    EXPECT_EQ(group.bytes(), 16);
    loss.backward();
    EXPECT_EQ(group.collectives(), 1);
  });
}

TEST(Directions, HaveLengthOfRootD) {
  const at::Tensor z = Normal({5, 7}, 1) * 30;
  EXPECT_LE((Directions(z).square().sum(1) - 7).abs().max().item<double>(), 1e-12);
  EXPECT_EQ(Directions(z.to(at::kHalf)).scalar_type(), at::kFloat);
  EXPECT_TRUE(Directions(at::zeros({2, 3}, at::kDouble)).isfinite().all().item<bool>());
}

}  // namespace
}  // namespace vicreg::train
