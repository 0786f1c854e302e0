// Goal: the loss is VICReg's, term by term; and computed by many ranks, each from its own rows, it is the loss and the
// gradient of one process that holds all rows. Method: numbers worked out by hand; finite differences; plain autograd
// over all rows, written from the paper, against ranks as threads. The same comparison must fail when the sharding is
// done wrong in the known ways.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/train/ranks.h"
#include "worker/train/distributed/gradient_reducer.h"
#include "worker/train/objective/vicreg.h"

namespace vicreg::train {
namespace {

using recipe::LossForm;
using ::testing::HasSubstr;

constexpr LossForm kForms[] = {LossForm::kGram, LossForm::kCovariance};
const char* NameOf(LossForm form) {
  return form == LossForm::kGram ? "gram" : form == LossForm::kCovariance ? "covariance" : "auto";
}

// Coefficients 25, 25, 1 in each convention: `authors` halves mu over the two views, `paper` nothing, `vicregl` mu and
// nu.
constexpr VicregWeights kAuthors{25, 12.5, 1}, kPaper{25, 25, 1}, kVicregl{25, 12.5, 0.5};

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
      const VicregTerms t = VicregLoss(GoldenX() + shift, GoldenY() + shift, kAuthors, form, alone, 1).terms;
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
      const VicregResult result = VicregLoss(GoldenX(), GoldenY(), row.weights, form, alone, 1);
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
    VicregLoss(x, y, kAuthors, form, alone, 1).loss.backward();
    EXPECT_LT((x.grad()[0] - want_x).abs().max().item<double>(), 1e-12);
    EXPECT_LT((y.grad()[0] - want_y).abs().max().item<double>(), 1e-12);
  }
}

at::Tensor Normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kDouble).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(seed));
}

TEST(VicregLoss, GradientIsTheSlopeOfTheValue) {
  constexpr double kStep = 1e-5;
  for (const auto& [n, d] : {std::pair{6, 3}, {3, 5}, {4, 4}}) {
    for (const LossForm form : kForms) {
      SCOPED_TRACE(std::string(NameOf(form)) + ", N " + std::to_string(n) + ", D " + std::to_string(d));
      Group alone;
      at::Tensor views[2] = {Normal({n, d}, 1) + 0.3, Normal({n, d}, 2) * 0.7};
      const auto value = [&] { return VicregLoss(views[0], views[1], kAuthors, form, alone, 1).terms.loss; };
      for (at::Tensor& z : views) {
        const at::Tensor x = views[0].clone().set_requires_grad(true), y = views[1].clone().set_requires_grad(true);
        VicregLoss(x, y, kAuthors, form, alone, 1).loss.backward();
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

// The definition (paper, section 4.2), for autograd, on all rows.
at::Tensor PlainLoss(const at::Tensor& x, const at::Tensor& y, const VicregWeights& weights) {
  const double n = static_cast<double>(x.size(0)), d = static_cast<double>(x.size(1));
  at::Tensor loss = weights.lambda_ * (x - y).square().mean();
  for (const at::Tensor& z : {x, y}) {
    const at::Tensor centred = z - z.mean(0, /*keepdim=*/true);
    const at::Tensor c = centred.t().mm(centred) / (n - 1);
    const at::Tensor off_diagonal = c * (1 - at::eye(x.size(1), x.options()));
    loss = loss + weights.mu_per_view * (1 - (c.diagonal() + 1e-4).sqrt()).relu().mean();
    loss = loss + weights.nu_per_view * off_diagonal.square().sum() / d;
  }
  return loss;
}

// A job: each rank embeds its rows by a shared matrix P, X = A P and Y = B P, and the reducer averages dL/dP over the
// ranks.
struct Case {
  int64_t n, d;
  std::vector<int64_t> rows;  // of each rank
  at::ScalarType dtype = at::kDouble;
  VicregWeights weights = kAuthors;
};

struct Error {
  double loss = 0, embeddings = 0, parameters = 0;  // relative, in Frobenius norm
};

// What a rank calls backward on.
using ShardedLoss = std::function<VicregResult(const at::Tensor& x, const at::Tensor& y, Group& group)>;

double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  return (got.to(at::kDouble) - want).norm().item<double>() / want.norm().item<double>();
}

// Largest errors over the ranks, against fp64 autograd over the same embeddings in one process.
Error Compare(const Case& c, const ShardedLoss& sharded) {
  const int64_t features = c.d + 3;
  // The mean is not 0, the views are alike, and the spread of the columns lies on both sides of gamma.
  const at::Tensor a = (Normal({c.n, features}, 11) + 0.5).to(c.dtype);
  const at::Tensor b = (a.to(at::kDouble) + 0.4 * Normal({c.n, features}, 12)).to(c.dtype);
  const at::Tensor scale = at::linspace(0.3, 2, c.d, at::kDouble) / std::sqrt(static_cast<double>(features));
  const at::Tensor p = (Normal({features, c.d}, 13) * scale).to(c.dtype);

  const std::size_t world = c.rows.size();
  std::vector<at::Tensor> x(world), y(world), dx(world), dy(world), dp(world);
  std::vector<double> loss(world);
  RunRanks(static_cast<int>(world), [&](Group& group) {
    const auto rank = static_cast<std::size_t>(group.rank());
    int64_t first = 0;
    for (std::size_t r = 0; r < rank; ++r) first += c.rows[r];
    const at::Tensor own_p = p.clone().set_requires_grad(true);
    GradientReducer reducer({own_p}, group);
    const at::Tensor own_x = a.narrow(0, first, c.rows[rank]).mm(own_p),
                     own_y = b.narrow(0, first, c.rows[rank]).mm(own_p);
    own_x.retain_grad();
    own_y.retain_grad();
    const VicregResult result = sharded(own_x, own_y, group);
    reducer.Prepare(result.loss);
    result.loss.backward();
    const double averages = group.size();
    x[rank] = own_x.detach(), y[rank] = own_y.detach();
    dx[rank] = own_x.grad() / averages, dy[rank] = own_y.grad() / averages;
    dp[rank] = own_p.grad().clone();
    loss[rank] = result.terms.loss;
  });

  const at::Tensor all_x = at::cat(x).to(at::kDouble).set_requires_grad(true),
                   all_y = at::cat(y).to(at::kDouble).set_requires_grad(true);
  const at::Tensor want = PlainLoss(all_x, all_y, c.weights);
  want.backward();
  const at::Tensor want_p = a.to(at::kDouble).t().mm(all_x.grad()) + b.to(at::kDouble).t().mm(all_y.grad());

  Error error;
  error.embeddings = RelativeError(at::cat({at::cat(dx), at::cat(dy)}), at::cat({all_x.grad(), all_y.grad()}));
  for (std::size_t r = 0; r < world; ++r) {
    error.loss = std::max(error.loss, std::abs(loss[r] / want.item<double>() - 1));
    error.parameters = std::max(error.parameters, RelativeError(dp[r], want_p));
    EXPECT_EQ(loss[r], loss[0]) << "rank " << r << " reports another loss than rank 0";
  }
  return error;
}

ShardedLoss Ours(const VicregWeights& weights, LossForm form) {
  return [=](const at::Tensor& x, const at::Tensor& y, Group& group) {
    return VicregLoss(x, y, weights, form, group, group.size());
  };
}

std::string Describe(const Case& c) {
  std::string text = "N " + std::to_string(c.n) + ", D " + std::to_string(c.d) + ", rows";
  for (const int64_t n : c.rows) text += " " + std::to_string(n);
  return text + (c.dtype == at::kFloat ? ", fp32" : ", fp64");
}

// Even, uneven, single-row and empty ranks.
std::vector<std::vector<int64_t>> Splits(int64_t n) {
  return {{n},
          {n / 2, n - n / 2},
          {1, n - 1},
          {n / 3, n / 3, n - 2 * (n / 3)},
          {2, 0, n - 2},
          {n / 4, n / 4, n / 4, n - 3 * (n / 4)},
          {1, n - 3, 0, 2}};
}

TEST(ShardedLoss, EqualsPlainAutogradOverAllRows) {
  for (const auto& [n, d] : {std::pair{7, 19}, {40, 5}, {12, 12}}) {
    for (const std::vector<int64_t>& rows : Splits(n)) {
      for (const LossForm form : kForms) {
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
          const Case c{n, d, rows, dtype};
          SCOPED_TRACE(Describe(c) + ", " + NameOf(form));
          const Error error = Compare(c, Ours(c.weights, form));
          EXPECT_LE(error.loss, dtype == at::kDouble ? 1e-12 : 1e-6);
          EXPECT_LE(error.embeddings, dtype == at::kDouble ? 1e-10 : 1e-5);
          EXPECT_LE(error.parameters, dtype == at::kDouble ? 1e-10 : 1e-5);
        }
      }
    }
  }
}

TEST(ShardedLoss, EachTermAloneEqualsPlainAutograd) {
  for (const VicregWeights& weights : {VicregWeights{25, 0, 0}, {0, 12.5, 0}, {0, 0, 1}}) {
    for (const auto& [n, d] : {std::pair{9, 14}, {14, 9}}) {
      for (const LossForm form : {LossForm::kGram, LossForm::kCovariance, LossForm::kAuto}) {
        const Case c{n, d, {4, 1, n - 5}, at::kDouble, weights};
        SCOPED_TRACE(Describe(c) + ", " + NameOf(form) + ", lambda " + std::to_string(weights.lambda_) + ", mu " +
                     std::to_string(weights.mu_per_view));
        const Error error = Compare(c, Ours(weights, form));
        EXPECT_LE(error.loss, 1e-12);
        EXPECT_LE(error.embeddings, 1e-10);
      }
    }
  }
}

// The Gram form walks the gathered rows in blocks of 1024; here there are three, the last one short.
TEST(ShardedLoss, MoreRowsThanOneBlockEqualPlainAutograd) {
  const Case c{2100, 6, {1000, 1100}, at::kDouble, {0, 0, 1}};
  const Error error = Compare(c, Ours(c.weights, LossForm::kGram));
  EXPECT_LE(error.loss, 1e-12);
  EXPECT_LE(error.embeddings, 1e-10);
}

// Negative control. An averaging reducer divides by W; without grad_scale = W, 1/W of the gradient is left.
TEST(ShardedLoss, WithoutTheFactorWTheComparisonFails) {
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    const Case c{12, 16, {3, 3, 3, 3}};
    const Error error = Compare(
        c, [&](const at::Tensor& x, const at::Tensor& y, Group& g) { return VicregLoss(x, y, c.weights, form, g, 1); });
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
  const Case c{12, 16, {3, 3, 3, 3}, at::kDouble, {0, 0, 1}};
  for (const bool attached : {true, false}) {
    const Error error = Compare(c, [&](const at::Tensor& x, const at::Tensor& y, Group& group) {
      return VicregResult{(BlockRow(x, group, attached) + BlockRow(y, group, attached)) * group.size(), {}};
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
  const Error error = Compare(c, [&](const at::Tensor& x, const at::Tensor& y, Group&) {
    Group alone;
    VicregResult result = VicregLoss(x, y, c.weights, LossForm::kAuto, alone, 1);
    result.terms.loss = 0;  // differs between ranks
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
      const at::Tensor want = PlainLoss(want_x, want_y, kAuthors);
      want.backward();
      RunRanks(2, [&](Group& group) {
        const at::Tensor own_x = x.narrow(0, 12 * group.rank(), 12).clone().set_requires_grad(true);
        const at::Tensor own_y = y.narrow(0, 12 * group.rank(), 12).clone().set_requires_grad(true);
        const VicregResult result = VicregLoss(own_x, own_y, kAuthors, form, group, 1);
        result.loss.backward();
        EXPECT_LE(std::abs(result.terms.loss / want.item<double>() - 1), 1e-6);
        EXPECT_LE(RelativeError(own_x.grad(), want_x.grad().narrow(0, 12 * group.rank(), 12)), 1e-5);
        EXPECT_LE(RelativeError(own_y.grad(), want_y.grad().narrow(0, 12 * group.rank(), 12)), 1e-5);
      });
    }
  }
}

TEST(ShardedLoss, AutoLooksAtRowsOfAllRanksAndWidthOnly) {
  // Gram gathers twice more than the covariance form, which reduces once: 4 collectives against 3; backward has none.
  const struct {
    int64_t n, d;
    LossForm form;
    std::int64_t collectives;
  } rows[] = {
      {8, 9, LossForm::kAuto, 4}, {8, 8, LossForm::kAuto, 3}, {8, 4, LossForm::kAuto, 3}, {8, 4, LossForm::kGram, 4}};
  for (const auto& row : rows) {
    RunRanks(2, [&](Group& group) {
      const at::Tensor x = Normal({row.n / 2, row.d}, 1).set_requires_grad(true), y = Normal({row.n / 2, row.d}, 2);
      const VicregResult result = VicregLoss(x, y, kAuthors, row.form, group, 1);
      EXPECT_EQ(group.collectives(), row.collectives) << NameOf(row.form) << " N " << row.n << " D " << row.d;
      result.loss.backward();
      EXPECT_EQ(group.collectives(), row.collectives) << "backward waited for other ranks";
    });
  }
}

TEST(VicregLoss, ConstantColumnHasFiniteLossAndNoGradient) {
  for (const LossForm form : kForms) {
    SCOPED_TRACE(NameOf(form));
    Group alone;
    at::Tensor x = Normal({5, 3}, 1);
    x.select(1, 1).fill_(7);
    x.set_requires_grad(true);
    const VicregResult result = VicregLoss(x, Normal({5, 3}, 2), {0, 12.5, 1}, form, alone, 1);
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
    const VicregResult result = VicregLoss(x, Normal({5, 1}, 2), {0, 0, 1}, form, alone, 1);
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
        EXPECT_EQ(VicregLoss(x, y, kAuthors, form, group, 3).terms.nonfinite_term, row.term) << "rank " << group.rank();
      });
    }
  }
}

TEST(VicregLoss, RefusesFewerThanTwoRowsAndUnlikeViews) {
  const auto refusal = [](const at::Tensor& x, const at::Tensor& y) -> std::string {
    Group alone;
    try {
      VicregLoss(x, y, kAuthors, LossForm::kAuto, alone, 1);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(Normal({1, 3}, 1), Normal({1, 3}, 2)), HasSubstr("at least 2 rows over all ranks; found 1"));
  EXPECT_THAT(refusal(Normal({4, 3}, 1), Normal({4, 2}, 2)), HasSubstr("one shape"));
  EXPECT_THAT(refusal(Normal({4, 3}, 1), Normal({4, 3}, 2).to(at::kFloat)), HasSubstr("dtype"));
  EXPECT_EQ(refusal(Normal({2, 3}, 1), Normal({2, 3}, 2)), "");
  // One row on each of two ranks is two rows.
  RunRanks(2, [](Group& group) {
    EXPECT_NO_THROW(VicregLoss(Normal({1, 3}, 1), Normal({1, 3}, 2), kAuthors, LossForm::kAuto, group, 2));
  });
}

TEST(VicregLoss, SecondDerivativeIsRefused) {
  Group alone;
  const at::Tensor x = Normal({4, 3}, 1).set_requires_grad(true);
  const at::Tensor loss = VicregLoss(x, Normal({4, 3}, 2), kAuthors, LossForm::kAuto, alone, 1).loss;
  EXPECT_THROW(loss.backward({}, /*retain_graph=*/true, /*create_graph=*/true), std::logic_error);
}

}  // namespace
}  // namespace vicreg::train
