// Goal: the loss is VICReg's, term by term; and computed by many ranks, each from its own rows, it is the loss and the
// gradient of one process that holds all rows. Method: numbers worked out by hand; finite differences; plain autograd
// over all rows, written from the paper, against ranks as threads. The same comparison must fail when the sharding is
// done wrong in the known ways.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <tuple>
#include <vector>

#include "tests/train/sharded_loss.h"
#include "worker/train/distributed/process_group_handle.h"
#include "worker/train/objective/covariance.h"
#include "worker/train/objective/moments.h"
#include "worker/train/objective/vicreg.h"

namespace vicreg::train {
namespace {

using recipe::LossForm;
using ::testing::HasSubstr;

constexpr LossForm kForms[] = {LossForm::kGram, LossForm::kCovariance};
const char* NameOf(LossForm form) {
  return form == LossForm::kGram ? "gram" : form == LossForm::kCovariance ? "covariance" : "auto";
}

VicregWeights Each(double lambda, double mu, double nu, std::size_t views = 2) {
  return {lambda, std::vector<ViewWeights>(views, {mu, nu})};
}

// Coefficients 25, 25, 1 in each convention: `authors` halves mu over the two views, `paper` nothing, `vicregl` mu and
// nu.
const VicregWeights kAuthors = Each(25, 12.5, 1), kPaper = Each(25, 25, 1), kVicregl = Each(25, 12.5, 0.5);

at::Tensor Matrix(std::initializer_list<double> values, int64_t columns) {
  return at::tensor(std::vector<double>(values), at::kDouble).reshape({-1, columns});
}

// 2X and 2Y; every column sums to 0, so halving is all there is to do. With N = 4, N - 1 = 3, D = 3:
//
//   variances (sum of squares of 2X's column / 4 / 3)   X: 2, 6, 8 -> 1/6, 1/2, 2/3      Y: 2, 2, 4 -> 1/6, 1/6, 1/3
//   covariances 12, 13, 23 (products / 4 / 3)           X: -1, 4, -2 -> -1/12, 1/3, -1/6  Y: 1, 2, 0 -> 1/12, 1/6, 0
//   inv = |2X - 2Y|^2 / 4 / (N D) = 8/4/12 = 1/6
//   cov = 2/3 * sum over the three squares              X: 2/3 * 21/144 = 7/72           Y: 2/3 * 5/144 = 5/216
//   var = mean of 1 - sqrt(v + 1e-4)                    X: mean(0.591629, 0.292823, 0.183442) = 0.355965
//                                                       Y: mean(0.591629, 0.591629, 0.422563) = 0.535274
const at::Tensor& GoldenX() {
  static const at::Tensor x = Matrix({1, 0, 2, 0, 1, 0, -1, 1, -2, 0, -2, 0}, 3) / 2;
  return x;
}
const at::Tensor& GoldenY() {
  static const at::Tensor y = Matrix({1, 1, 1, 0, 0, -1, -1, 0, -1, 0, -1, 1}, 3) / 2;
  return y;
}
constexpr double kVarianceX = 0.355964649736702, kVarianceY = 0.535273880531179;

TEST(VicregLoss, TermsAreTheHandComputedOnes) {
  for (const LossForm form : kForms) {
    // Moving every sample by the same amount changes no term: columns are centred before they are squared.
    for (const double shift : {0.0, 3.0}) {
      SCOPED_TRACE(std::string(NameOf(form)) + ", shift " + std::to_string(shift));
      Group alone;
      const LossTerms t = VicregLoss({GoldenX() + shift, GoldenY() + shift}, kAuthors, form, alone, 1).terms;
      EXPECT_NEAR(t.invariance, 1.0 / 6, 1e-13);
      EXPECT_NEAR(t.variance, kVarianceX + kVarianceY, 1e-13);
      EXPECT_NEAR(t.covariance, 7.0 / 72 + 5.0 / 216, 1e-13);
      EXPECT_NEAR(t.invariance_weighted, 25.0 / 6, 1e-12);
      EXPECT_NEAR(t.variance_weighted, 12.5 * (kVarianceX + kVarianceY), 1e-12);
      EXPECT_NEAR(t.covariance_weighted, 7.0 / 72 + 5.0 / 216, 1e-12);
      // Standard deviations: X sqrt(1/6 + 1e-4), sqrt(1/2 + 1e-4), sqrt(2/3 + 1e-4), mean 0.644; Y has the lower mean.
      EXPECT_NEAR(t.z_std_mean, 1 - kVarianceY, 1e-13);
      EXPECT_NEAR(t.z_std_min, std::sqrt(1.0 / 6 + 1e-4), 1e-13);
      EXPECT_EQ(t.z_std_below, 1);
      // ((sum v)^2 - sum v^2) / (D (N - 1)) = X: (16/9 - 13/18)/9 = 19/162, Y: (4/9 - 1/6)/9 = 5/162.
      EXPECT_NEAR(t.covariance_noise_floor, 24.0 / 162, 1e-13);
      // inv / (mean v of X + of Y) = 1/6 / (4/9 + 2/9).
      EXPECT_NEAR(t.mismatch, 0.25, 1e-13);
      // cov / (floor (N - 1)) = X: 7/72 / (19/162 * 3) = 21/76, Y: 5/216 / (5/162 * 3) = 1/4.
      EXPECT_NEAR(t.redundancy, 21.0 / 76, 1e-13);
      EXPECT_EQ(t.nonfinite_term, "");
    }
  }
}

TEST(VicregLoss, EachConventionHasItsTotal) {
  const struct {
    const char* convention;
    VicregWeights weights;
    double total;  // 25/6 + mu_k * 0.891238530267881 + nu_k * 0.120370370370370
  } rows[] = {
      {"authors", kAuthors, 15.4275186653855},
      {"paper", kPaper, 26.5680002937340},
      {"vicregl", kVicregl, 15.3673334802004},
  };
  for (const auto& row : rows) {
    for (const LossForm form : kForms) {
      SCOPED_TRACE(std::string(row.convention) + ", " + NameOf(form));
      Group alone;
      const LossResult result = VicregLoss({GoldenX(), GoldenY()}, row.weights, form, alone, 1);
      EXPECT_NEAR(result.terms.loss, row.total, 1e-12);
      EXPECT_EQ(result.loss.item<double>(), result.terms.loss);
    }
  }
}

// dL/dX of row 1, column 1, in `authors`: inv 25 * 2/12 * 0 = 0; var -12.5/(3*3) * 0.5/0.408370 = -1.700525;
// cov 4/(3*3) * (0 * -1/12 + 1 * 1/3) = 0.148148; together -1.552376. The other five likewise.
TEST(VicregLoss, GradientIsTheHandComputedOne) {
  const at::Tensor want_x = at::tensor({-1.55237631461311, -2.17592592592593, 0.456500427048063}, at::kDouble);
  const at::Tensor want_y = at::tensor({-1.64496890720570, 0.401327389090599, -3.24892897573369}, at::kDouble);
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    Group alone;
    const at::Tensor x = GoldenX().clone().set_requires_grad(true), y = GoldenY().clone().set_requires_grad(true);
    VicregLoss({x, y}, kAuthors, form, alone, 1).loss.backward();
    EXPECT_LT((x.grad()[0] - want_x).abs().max().item<double>(), 1e-12);
    EXPECT_LT((y.grad()[0] - want_y).abs().max().item<double>(), 1e-12);
  }
}

TEST(VicregLoss, GradientIsTheSlopeOfTheValue) {
  constexpr double kStep = 1e-5;
  for (const auto& [n, d] : {std::pair{6, 3}, {3, 5}, {4, 4}}) {
    for (const LossForm form : kForms) {
      SCOPED_TRACE(std::string(NameOf(form)) + ", N " + std::to_string(n) + ", D " + std::to_string(d));
      Group alone;
      at::Tensor views[2] = {Normal({n, d}, 1) + 0.3, Normal({n, d}, 2) * 0.7};
      const auto value = [&] { return VicregLoss({views[0], views[1]}, kAuthors, form, alone, 1).terms.loss; };
      for (at::Tensor& z : views) {
        const at::Tensor x = views[0].clone().set_requires_grad(true), y = views[1].clone().set_requires_grad(true);
        VicregLoss({x, y}, kAuthors, form, alone, 1).loss.backward();
        const at::Tensor gradient = (&z == &views[0] ? x : y).grad();
        at::Tensor slope = at::zeros_like(gradient);
        for (int64_t i = 0; i < z.numel(); ++i) {
          double& element = z.mutable_data_ptr<double>()[i];
          const double at_rest = element;
          element = at_rest + kStep;
          const double above = value();
          element = at_rest - kStep;
          slope.view(-1)[i] = (above - value()) / (2 * kStep);
          element = at_rest;
        }
        EXPECT_LT((gradient - slope).norm().item<double>() / slope.norm().item<double>(), 1e-7);
      }
    }
  }
}

// The definition (paper, section 4.2; the invariance averaged over pairs of views), for autograd, on all rows.
at::Tensor PlainLoss(const std::vector<at::Tensor>& views, const VicregWeights& weights) {
  const double n = static_cast<double>(views[0].size(0)), d = static_cast<double>(views[0].size(1));
  at::Tensor pairs = at::zeros({}, views[0].options());
  for (const at::Tensor& z : views) {
    for (const at::Tensor& other : views) pairs = pairs + (z - other).square().mean();  // each pair twice, itself as 0
  }
  at::Tensor loss = weights.lambda_ * pairs / static_cast<double>(views.size() * (views.size() - 1));
  for (std::size_t k = 0; k < views.size(); ++k) {
    const at::Tensor centred = views[k] - views[k].mean(0, /*keepdim=*/true);
    const at::Tensor c = centred.t().mm(centred) / (n - 1);
    const at::Tensor off_diagonal = c * (1 - at::eye(c.size(0), c.options()));
    loss = loss + weights.views[k].mu * (1 - (c.diagonal() + 1e-4).sqrt()).relu().mean();
    loss = loss + weights.views[k].nu * off_diagonal.square().sum() / d;
  }
  return loss;
}

// As many views as weights.
struct Case {
  int64_t n, d;
  std::vector<int64_t> rows;  // of each rank
  at::ScalarType dtype = at::kDouble;
  VicregWeights weights = kAuthors;
};

// Every number of the terms.
std::vector<double> Numbers(const LossTerms& t) {
  return {t.loss,
          t.invariance,
          t.variance,
          t.covariance,
          t.invariance_weighted,
          t.variance_weighted,
          t.covariance_weighted,
          t.z_std_mean,
          t.z_std_min,
          t.z_std_below,
          t.covariance_noise_floor,
          t.mismatch,
          t.redundancy};
}

// Against plain autograd over all rows; statistics are the same bits on every rank.
Error Compare(const Case& c, const ShardedLoss& sharded) {
  const Comparison comparison = CompareWithWhole({c.n, c.d, c.rows, c.dtype, c.weights.views.size()}, sharded,
                                                 [&](const Views& all) { return PlainLoss(all, c.weights); });
  for (const LossResult& rank : comparison.ranks)
    EXPECT_EQ(Numbers(rank.terms), Numbers(comparison.ranks[0].terms)) << "a rank reports other numbers than rank 0";
  return comparison.error;
}

ShardedLoss Ours(const VicregWeights& weights, LossForm form) {
  return [=](const std::vector<at::Tensor>& views, Group& group) {
    return VicregLoss(views, weights, form, group, group.size());
  };
}

std::string Describe(const Case& c) {
  std::string text = std::to_string(c.weights.views.size()) + " views, N " + std::to_string(c.n) + ", D " +
                     std::to_string(c.d) + ", rows";
  for (const int64_t n : c.rows) text += " " + std::to_string(n);
  return text + (c.dtype == at::kFloat ? ", fp32" : ", fp64");
}

// The gates of both precisions.
void ExpectParity(const Case& c, LossForm form) {
  SCOPED_TRACE(Describe(c) + ", " + NameOf(form));
  const Error error = Compare(c, Ours(c.weights, form));
  EXPECT_LE(error.loss, c.dtype == at::kDouble ? 1e-12 : 1e-6);
  EXPECT_LE(error.reported, c.dtype == at::kDouble ? 1e-12 : 1e-6);
  EXPECT_LE(error.embeddings, c.dtype == at::kDouble ? 1e-12 : 1e-5);
  EXPECT_LE(error.parameters, c.dtype == at::kDouble ? 1e-12 : 1e-5);
}

TEST(ShardedLoss, EqualsPlainAutogradOverAllRows) {
  for (const auto& [n, d] : {std::pair{7, 19}, {40, 5}, {12, 12}}) {
    for (const std::vector<int64_t>& rows : Splits(n)) {
      for (const LossForm form : kForms) {
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) ExpectParity({n, d, rows, dtype}, form);
      }
    }
  }
}

TEST(ShardedLoss, TwoRowsEqualPlainAutograd) {
  for (const std::vector<int64_t>& rows : {std::vector<int64_t>{2}, {1, 1}, {0, 1, 0, 1}}) {
    for (const LossForm form : kForms) ExpectParity({2, 5, rows}, form);
  }
}

TEST(ShardedLoss, MoreViewsWithOwnCoefficientsEqualPlainAutograd) {
  const VicregWeights three{25, {{12.5, 1}, {7, 0.25}, {0, 3}}}, four{10, {{1, 1}, {2, 0}, {3, 2}, {4, 0.5}}};
  for (const auto& [n, d] : {std::pair{7, 19}, {40, 5}}) {
    for (const std::vector<int64_t>& rows : Splits(n)) {
      for (const LossForm form : kForms) {
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) ExpectParity({n, d, rows, dtype, three}, form);
        ExpectParity({n, d, rows, at::kDouble, four}, form);
      }
    }
  }
}

TEST(ShardedLoss, CoefficientsBelongToTheirView) {
  for (const VicregWeights& weights :
       {VicregWeights{25, {{30, 0.5}, {5, 2}}}, {0, {{1, 0}, {0, 0}}}, {0, {{0, 0}, {0, 1}}}}) {
    for (const LossForm form : kForms) ExpectParity({14, 9, {4, 1, 9}, at::kDouble, weights}, form);
  }
}

TEST(ShardedLoss, EachTermAloneEqualsPlainAutograd) {
  for (const VicregWeights& weights : {Each(25, 0, 0), Each(0, 12.5, 0), Each(0, 0, 1)}) {
    for (const auto& [n, d] : {std::pair{9, 14}, {14, 9}}) {
      for (const LossForm form : {LossForm::kGram, LossForm::kCovariance, LossForm::kAuto}) {
        SCOPED_TRACE("lambda " + std::to_string(weights.lambda_) + ", mu " + std::to_string(weights.views[0].mu));
        ExpectParity({n, d, {4, 1, n - 5}, at::kDouble, weights}, form);
      }
    }
  }
}

// The Gram form walks the gathered rows in blocks, here three, the last one short; the covariance form the columns,
// here two.
TEST(ShardedLoss, MoreThanOneBlockEqualsPlainAutograd) {
  ExpectParity({2100, 6, {1000, 1100}, at::kDouble, Each(0, 0, 1)}, LossForm::kGram);
  ExpectParity({40, 600, {15, 25}, at::kDouble, kAuthors}, LossForm::kCovariance);
  ExpectParity({640, 600, {300, 0, 340}, at::kFloat, kAuthors}, LossForm::kCovariance);
  ASSERT_EQ(CovarianceBlockColumns(2, 600), 512);
}

// Negative control. An averaging reducer divides by W; without grad_scale = W, 1/W of the gradient is left.
TEST(ShardedLoss, WithoutTheFactorWTheComparisonFails) {
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    const Case c{12, 16, {3, 3, 3, 3}};
    const Error error = Compare(
        c, [&](const std::vector<at::Tensor>& views, Group& g) { return VicregLoss(views, c.weights, form, g, 1); });
    EXPECT_LE(error.loss, 1e-12);
    EXPECT_NEAR(error.embeddings, 0.75, 1e-10);
    EXPECT_NEAR(error.parameters, 0.75, 1e-10);
  }
}

// Covariance term of autograd on the own block row of G, sum_s |Zc_r Zc_s^T|^2, less the diagonal. `attached`: the
// blocks of the other ranks count twice in the gradient, as G is symmetric and Zc_r stands in their block rows too.
at::Tensor BlockRow(const at::Tensor& z, Group& group, bool attached) {
  const at::Tensor all = group.AllGather(z.detach()).reshape({-1, z.size(1)});
  const double n = static_cast<double>(all.size(0)), d = static_cast<double>(z.size(1));
  const at::Tensor own = z - all.mean(0),
                   others = (all - all.mean(0)).index_fill(0, at::arange(z.size(0)) + group.rank() * z.size(0), 0);
  const at::Tensor variance = (own.square().sum(0) + others.square().sum(0)) / (n - 1);
  const at::Tensor squares = own.mm(own.t()).square().sum() + (attached ? 2 : 1) * own.mm(others.t()).square().sum();
  return (squares / ((n - 1) * (n - 1)) - variance.square().sum()) / d;
}

// Negative control. With the other ranks' rows detached, half of every cross term is lost.
TEST(ShardedLoss, WithOtherRanksDetachedTheComparisonFails) {
  const Case c{12, 16, {3, 3, 3, 3}, at::kDouble, Each(0, 0, 1)};
  for (const bool attached : {true, false}) {
    const Error error = Compare(c, [&](const std::vector<at::Tensor>& views, Group& group) {
      return LossResult{(BlockRow(views[0], group, attached) + BlockRow(views[1], group, attached)) * group.size(), {}};
    });
    if (attached) {
      EXPECT_LE(error.embeddings, 1e-10) << "the control differs by more than the fault it is about";
    } else {
      EXPECT_GT(error.embeddings, 0.1);
      EXPECT_GT(error.parameters, 0.1);
    }
  }
}

// Negative control. Statistics of the own rows are another objective: what data parallelism does when nobody gathers.
TEST(ShardedLoss, WithStatisticsOfOwnRowsTheComparisonFails) {
  const Case c{12, 16, {6, 6}};
  const Error error = Compare(c, [&](const std::vector<at::Tensor>& views, Group&) {
    Group alone;
    LossResult result = VicregLoss(views, c.weights, LossForm::kAuto, alone, 1);
    result.terms = {};  // differ between ranks
    return result;
  });
  EXPECT_GT(error.embeddings, 0.01);
  EXPECT_GT(error.parameters, 0.01);
}

// Embeddings far from 0 or from unit scale keep the fp32 tolerance: moments are fp64, rows are centred before they are
// multiplied.
TEST(ShardedLoss, ScaleAndOffsetKeepTheTolerance) {
  for (const auto& [scale, offset] : {std::pair{100.0, 0.0}, {0.01, 0.0}, {1.0, 1000.0}}) {
    for (const LossForm form : kForms) {
      SCOPED_TRACE(std::string(NameOf(form)) + ", scale " + std::to_string(scale) + ", offset " +
                   std::to_string(offset));
      const at::Tensor x = (Normal({24, 32}, 21) * scale + offset).to(at::kFloat);
      const at::Tensor y = (Normal({24, 32}, 22) * scale + offset).to(at::kFloat);
      const at::Tensor want_x = x.to(at::kDouble).set_requires_grad(true),
                       want_y = y.to(at::kDouble).set_requires_grad(true);
      const at::Tensor want = PlainLoss({want_x, want_y}, kAuthors);
      want.backward();
      RunRanks(2, [&](Group& group) {
        const at::Tensor own_x = x.narrow(0, 12 * group.rank(), 12).clone().set_requires_grad(true);
        const at::Tensor own_y = y.narrow(0, 12 * group.rank(), 12).clone().set_requires_grad(true);
        const LossResult result = VicregLoss({own_x, own_y}, kAuthors, form, group, 1);
        result.loss.backward();
        EXPECT_LE(std::abs(result.terms.loss / want.item<double>() - 1), 1e-6);
        EXPECT_LE(RelativeError(own_x.grad(), want_x.grad().narrow(0, 12 * group.rank(), 12)), 1e-5);
        EXPECT_LE(RelativeError(own_y.grad(), want_y.grad().narrow(0, 12 * group.rank(), 12)), 1e-5);
      });
    }
  }
}

// The tolerances above are of sums, where a column's error may hide. An fp32 mean of 1000 is 3e-5 off.
TEST(GatherMoments, MeanOf1000SpreadsCostsNoColumnItsPrecision) {
  const at::Tensor z = (Normal({24, 64}, 21) + 1000).to(at::kFloat), exact = z.to(at::kDouble);
  const at::Tensor want = exact.var(0), centred = exact - exact.mean(0);
  for (const int world : {1, 2, 3}) {
    RunRanks(world, [&](Group& group) {
      const int64_t own = 24 / group.size();
      const at::Tensor rows = z.narrow(0, own * group.rank(), own);
      const Moments moments = GatherMoments({rows, rows}, at::zeros({}, at::kDouble), group);
      EXPECT_LE((moments.variance[1] / want - 1).abs().max().item<double>(), 1e-6);
      const at::Tensor error = moments.centred.select(1, 1) - centred.narrow(0, own * group.rank(), own);
      EXPECT_LE(error.abs().max().item<double>(), 1e-6);
    });
  }
}

TEST(ShardedLoss, AutoLooksAtRowsOfAllRanksAndWidthOnly) {
  for (const auto& [n, d, form] :
       {std::tuple{8, 9, LossForm::kGram}, {8, 8, LossForm::kCovariance}, {8, 4, LossForm::kCovariance}}) {
    for (const int world : {1, 2, 4}) {
      RunRanks(world, [&](Group& group) {
        const at::Tensor x = Normal({n / group.size(), d}, 1), y = Normal({n / group.size(), d}, 2);
        EXPECT_EQ(VicregLoss({x, y}, kAuthors, LossForm::kAuto, group, 1).form, form) << "N " << n << ", D " << d;
      });
    }
  }
}

// Statistics travel as 2 fp64 numbers and, for each column of each view, an fp64 mean and M2 (padded to 8 bytes);
// centred rows padded to the longest rank; the upper triangle of C by blocks of columns.
TEST(ShardedLoss, CollectivesAndBytesAreThePredictedOnes) {
  const struct {
    int64_t n, d;
    std::size_t views;
    at::ScalarType dtype;
    LossForm form;
    std::vector<int64_t> rows;
    std::int64_t collectives, bytes;
  } rows[] = {
      {8, 9, 2, at::kFloat, LossForm::kGram, {4, 4}, 3, 16 + 2 * 9 * (8 + 4) + 2 * 4 * 9 * 4 + 2 * 8},
      {8, 9, 2, at::kDouble, LossForm::kGram, {4, 4}, 3, 16 + 2 * 9 * (8 + 8) + 2 * 4 * 9 * 8 + 2 * 8},
      {8, 9, 3, at::kFloat, LossForm::kGram, {1, 0, 7}, 3, 16 + 3 * 9 * (8 + 4) + 4 + 3 * 7 * 9 * 4 + 3 * 8},
      {8, 5, 2, at::kFloat, LossForm::kCovariance, {4, 4}, 2, 16 + 2 * 5 * (8 + 4) + 2 * 5 * 5 * 4},
      {8,
       600,
       2,
       at::kFloat,
       LossForm::kCovariance,
       {4, 4},
       3,
       16 + 2 * 600 * (8 + 4) + 2 * (512 * 512 + 600 * 88) * 4},
      {8, 9, 2, at::kFloat, LossForm::kGram, {8}, 0, 0},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(std::string(NameOf(row.form)) + ", " + Describe({row.n, row.d, row.rows, row.dtype}));
    RunRanks(static_cast<int>(row.rows.size()), [&](Group& group) {
      std::vector<at::Tensor> views;
      const int64_t own = row.rows[static_cast<std::size_t>(group.rank())];
      for (std::size_t k = 0; k < row.views; ++k)
        views.push_back(Normal({own, row.d}, k).to(row.dtype).set_requires_grad(true));
      const LossResult result = VicregLoss(views, Each(25, 12.5, 1, row.views), row.form, group, 1);
      EXPECT_EQ(group.collectives(), row.collectives);
      EXPECT_EQ(group.bytes(), row.bytes);
      result.loss.backward();
      EXPECT_EQ(group.collectives(), row.collectives) << "backward waited for other ranks";
      EXPECT_TRUE(views.back().grad().defined());
    });
  }
}

// The published computation gathers both views, and its backward all-reduces their gradient: twice the gathered bytes
// in a ring.
TEST(ShardedLoss, SendsAThirdOfGatherAndAllReduce) {
  constexpr int64_t kRanks = 4, kOwn = 64, kColumns = 1024;
  RunRanks(kRanks, [&](Group& group) {
    const at::Tensor x = Normal({kOwn, kColumns}, 1).to(at::kFloat), y = Normal({kOwn, kColumns}, 2).to(at::kFloat);
    VicregLoss({x, y}, kAuthors, LossForm::kAuto, group, 1);
    const double received = static_cast<double>(group.bytes() * (kRanks - 1)),
                 rows = 2 * kOwn * kColumns * 4 * (kRanks - 1);
    EXPECT_LE(received / (3 * rows), 0.36);
    EXPECT_GE(received / (3 * rows), 1.0 / 3);
  });
}

// Half-precision embeddings are upcast first: their statistics are those of the same numbers in fp32, at any scale.
TEST(ShardedLoss, HalfPrecisionLosesNothingInTheStatistics) {
  // So small that a gradient is 0 in fp16 before the loss scale is applied.
  const VicregWeights weights = Each(25e-9, 12.5e-9, 1e-9);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    for (const double scale : {0.01, 1.0, 100.0}) {
      for (const LossForm form : kForms) {
        SCOPED_TRACE(std::string(at::toString(dtype)) + ", " + NameOf(form) + ", scale " + std::to_string(scale));
        const at::Tensor x = (Normal({48, 40}, 21) * scale + scale).to(dtype),
                         y = (Normal({48, 40}, 22) * scale).to(dtype);
        const at::Tensor want_x = x.to(at::kDouble).set_requires_grad(true),
                         want_y = y.to(at::kDouble).set_requires_grad(true);
        const at::Tensor want = PlainLoss({want_x, want_y}, weights);
        want.backward();
        RunRanks(2, [&](Group& group) {
          const int64_t first = 24 * group.rank();
          const at::Tensor own_x = x.narrow(0, first, 24).clone().set_requires_grad(true),
                           own_y = y.narrow(0, first, 24).clone();
          const LossResult half = VicregLoss({own_x, own_y}, weights, form, group, 1);
          const LossResult single =
              VicregLoss({own_x.detach().to(at::kFloat), own_y.to(at::kFloat)}, weights, form, group, 1);
          EXPECT_EQ(Numbers(half.terms), Numbers(single.terms));
          EXPECT_LE(std::abs(half.terms.loss / want.item<double>() - 1), 1e-6);
          EXPECT_EQ(half.loss.scalar_type(), at::kFloat);
          // Only the finished gradient is rounded, after a loss scale has brought it into fp16's range.
          const double loss_scale = 1 / want_x.grad().abs().max().item<double>();
          (half.loss * loss_scale).backward();
          EXPECT_EQ(own_x.grad().scalar_type(), dtype);
          EXPECT_LE(RelativeError(own_x.grad().to(at::kDouble) / loss_scale, want_x.grad().narrow(0, first, 24)),
                    dtype == at::kHalf ? 5e-4 : 4e-3);
        });
      }
    }
  }
}

TEST(ShardedLoss, AutocastAroundItChangesNothing) {
  RunRanks(2, [&](Group& group) {
    for (const LossForm form : kForms) {
      const at::Tensor x = Normal({12, 20}, 21).to(at::kFloat).set_requires_grad(true),
                       y = Normal({12, 20}, 22).to(at::kFloat);
      const LossResult plain = VicregLoss({x, y}, kAuthors, form, group, 1);
      plain.loss.backward();
      const at::Tensor want = x.grad().clone();
      x.mutable_grad() = at::Tensor();
      at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
      at::autocast::set_autocast_enabled(at::kCPU, true);
      EXPECT_EQ(x.detach().mm(y.t()).scalar_type(), at::kBFloat16) << "autocast is not on";
      const LossResult inside = VicregLoss({x, y}, kAuthors, form, group, 1);
      inside.loss.backward();
      at::autocast::set_autocast_enabled(at::kCPU, false);
      at::autocast::clear_cache();
      EXPECT_EQ(Numbers(inside.terms), Numbers(plain.terms)) << NameOf(form);
      EXPECT_TRUE(at::equal(x.grad(), want)) << NameOf(form);
    }
  });
}

// One rank of 32 with 64 rows of 2048 x 8192: its peers are pretended, each sends what this one sends.
class Echo : public c10d::Backend {
 public:
  Echo(int rank, int size) : Backend(rank, size) {}
  const std::string getBackendName() const override { return "echo"; }
  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& output, at::Tensor& input,
                                                 const c10d::AllgatherOptions&) override {
    gathered_bytes = std::max(gathered_bytes, output.numel() * output.element_size());
    output.view({getSize(), -1}).copy_(input.view({1, -1}).expand({getSize(), -1}));
    return c10::make_intrusive<Done>();
  }
  int64_t gathered_bytes = 0;

 private:
  struct Done : c10d::Work {
    bool wait(std::chrono::milliseconds) override { return true; }
  };
};

int64_t StatusBytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return -1;
}

TEST(ShardedLoss, MemoryBeyondInputsAndGatheredRowsStaysUnder40Megabytes) {
  const auto echo = c10::make_intrusive<Echo>(0, 32);
  const auto handle = std::make_shared<ProcessGroupHandle>();
  handle->backend = handle->host = echo;
  Group group(handle, 0, 32);
  at::set_num_threads(1);
  const at::Tensor x = Normal({64, 8192}, 1).to(at::kFloat).set_requires_grad(true),
                   y = Normal({64, 8192}, 2).to(at::kFloat).set_requires_grad(true);
  x.mutable_grad() = at::ones_like(x);  // the gradients that every side must produce
  y.mutable_grad() = at::ones_like(y);
  malloc_trim(0);  // what earlier tests freed must not be reused unseen
  const int64_t before = StatusBytes("VmRSS");
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts anew
  VicregLoss({x, y}, kAuthors, LossForm::kAuto, group, 1).loss.backward();
  EXPECT_EQ(echo->gathered_bytes, int64_t{2} * 2048 * 8192 * 4);
  const int64_t beyond = StatusBytes("VmHWM") - before - echo->gathered_bytes;
  RecordProperty("megabytes", std::to_string(static_cast<double>(beyond) / 1e6));
  std::printf("beyond inputs and gathered rows: %.1f MB\n", static_cast<double>(beyond) / 1e6);
  EXPECT_LE(beyond, 40'000'000);
}

// 19998 numbers of size 1 and three zeros: v = 19998/20000, and v + 1e-4 is 1 in fp64.
TEST(VicregLoss, SpreadOfExactlyGammaHasNoVarianceGradient) {
  for (const int64_t zeros : {3, 5}) {
    SCOPED_TRACE("zeros " + std::to_string(zeros));
    RunRanks(3, [&](Group& group) {
      const int64_t own = group.rank() == 2 ? 20001 - 2 * 4000 : 4000;
      at::Tensor x = at::ones({own, 1}, at::kFloat);
      x.slice(0, 1, own, 2).neg_();
      if (group.rank() == 2) x.narrow(0, own - zeros, zeros).zero_();
      x.set_requires_grad(true);
      const LossResult result = VicregLoss({x, x.detach()}, {0, {{1, 0}, {0, 0}}}, LossForm::kAuto, group, 1);
      result.loss.backward();
      EXPECT_EQ(result.terms.z_std_below, zeros == 3 ? 0 : 1);
      EXPECT_EQ(result.terms.variance == 0, zeros == 3);
      EXPECT_EQ(x.grad().abs().max().item<double>() == 0, zeros == 3);
    });
  }
}

TEST(VicregLoss, ConventionsKeepTheirSumForAnyNumberOfViews) {
  using recipe::Convention;
  const struct {
    Convention convention;
    int views;
    double mu, nu;  // of 25 and 1
  } rows[] = {{Convention::kAuthors, 2, 12.5, 1},   {Convention::kPaper, 2, 25, 1},
              {Convention::kVicregl, 2, 12.5, 0.5}, {Convention::kAuthors, 4, 6.25, 0.5},
              {Convention::kPaper, 4, 12.5, 0.5},   {Convention::kVicregl, 4, 6.25, 0.25}};
  for (const auto& row : rows) {
    const VicregWeights weights = WeightsFor(row.convention, 25, 25, 1, row.views);
    EXPECT_EQ(weights.lambda_, 25);
    ASSERT_EQ(weights.views.size(), static_cast<std::size_t>(row.views));
    for (const ViewWeights& view : weights.views) {
      EXPECT_EQ(view.mu, row.mu);
      EXPECT_EQ(view.nu, row.nu);
    }
  }
}

TEST(VicregLoss, ConstantColumnHasFiniteLossAndNoGradient) {
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    Group alone;
    at::Tensor x = Normal({5, 3}, 1);
    x.select(1, 1).fill_(7);
    x.set_requires_grad(true);
    const LossResult result = VicregLoss({x, Normal({5, 3}, 2)}, Each(0, 12.5, 1), form, alone, 1);
    result.loss.backward();
    EXPECT_TRUE(std::isfinite(result.terms.loss));
    EXPECT_DOUBLE_EQ(result.terms.z_std_min, 0.01);  // sqrt(eps)
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
    EXPECT_LT(x.grad().select(1, 1).abs().max().item<double>(), 1e-13);
    EXPECT_GT(x.grad().select(1, 0).abs().max().item<double>(), 1e-3);
  }
}

TEST(VicregLoss, OneDimensionHasNoCovariance) {
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    Group alone;
    const at::Tensor x = Normal({5, 1}, 1).set_requires_grad(true);
    const LossResult result = VicregLoss({x, Normal({5, 1}, 2)}, Each(0, 0, 1), form, alone, 1);
    result.loss.backward();
    EXPECT_NEAR(result.terms.covariance, 0, 1e-14);
    EXPECT_LT(x.grad().abs().max().item<double>(), 1e-14);
  }
}

TEST(VicregLoss, FirstTermThatIsNotFiniteIsNamedOnEveryRank) {
  const struct {
    double x, y;  // two elements of rank 1's row in either view
    const char* term;
  } rows[] = {
      {std::numeric_limits<double>::quiet_NaN(), 0, "invariance"},
      {std::numeric_limits<double>::infinity(), 0, "invariance"},
      {1e200, 1e200, "variance"},  // its square overflows
      {1e80, 1e80, "covariance"},  // the square of its covariance does
      {1e30, 1e30, ""},
  };
  for (const auto& row : rows) {
    for (const LossForm form : kForms) {
      SCOPED_TRACE(std::string(NameOf(form)) + ", element " + std::to_string(row.x));
      RunRanks(3, [&](Group& group) {
        at::Tensor x = Normal({2, 4}, 1), y = Normal({2, 4}, 2);
        if (group.rank() == 1) x[0].narrow(0, 2, 2).fill_(row.x), y[0].narrow(0, 2, 2).fill_(row.y);
        EXPECT_EQ(VicregLoss({x, y}, kAuthors, form, group, 3).terms.nonfinite_term, row.term)
            << "rank " << group.rank();
      });
    }
  }
}

TEST(VicregLoss, RefusesFewerThanTwoRowsAndUnlikeViews) {
  const auto refusal = [](const at::Tensor& x, const at::Tensor& y) -> std::string {
    Group alone;
    try {
      VicregLoss({x, y}, kAuthors, LossForm::kAuto, alone, 1);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(Normal({1, 3}, 1), Normal({1, 3}, 2)), HasSubstr("at least 2 rows over all ranks; found 1"));
  EXPECT_THAT(refusal(Normal({4, 3}, 1), Normal({4, 2}, 2)), HasSubstr("one shape"));
  EXPECT_THAT(refusal(Normal({4, 3}, 1), Normal({4, 3}, 2).to(at::kFloat)), HasSubstr("dtype"));
  EXPECT_THAT(refusal(Normal({4, 0}, 1), Normal({4, 0}, 2)), HasSubstr("D >= 1"));
  EXPECT_EQ(refusal(Normal({2, 3}, 1), Normal({2, 3}, 2)), "");
  Group alone;
  EXPECT_THROW(VicregLoss({Normal({4, 3}, 1)}, Each(25, 12.5, 1, 1), LossForm::kAuto, alone, 1), std::invalid_argument);
  EXPECT_THROW(VicregLoss({Normal({4, 3}, 1), Normal({4, 3}, 2)}, Each(25, 12.5, 1, 3), LossForm::kAuto, alone, 1),
               std::invalid_argument);
  // One row on each of two ranks is two rows.
  RunRanks(2, [](Group& group) {
    EXPECT_NO_THROW(VicregLoss({Normal({1, 3}, 1), Normal({1, 3}, 2)}, kAuthors, LossForm::kAuto, group, 2));
  });
}

TEST(VicregLoss, SecondDerivativeIsRefused) {
  Group alone;
  const at::Tensor x = Normal({4, 3}, 1).set_requires_grad(true);
  const at::Tensor loss = VicregLoss({x, Normal({4, 3}, 2)}, kAuthors, LossForm::kAuto, alone, 1).loss;
  EXPECT_THROW(loss.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::logic_error);
}

}  // namespace
}  // namespace vicreg::train
