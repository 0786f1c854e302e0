#pragma once

// A loss computed by ranks, each from its own rows, held against plain autograd over all rows: the comparison that
// every objective's parity test makes. Its faults must fail it, so it takes any function for the ranks' side.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "tests/train/ranks.h"
#include "worker/train/distributed/gradient_reducer.h"
#include "worker/train/objective/terms.h"

namespace vicreg::train {

using Views = std::vector<at::Tensor>;

inline at::Tensor Normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kDouble).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(seed));
}

inline double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  return (got.to(at::kDouble) - want).norm().item<double>() / want.norm().item<double>();
}

// Over 1, 2, 3, 4 and 8 ranks: even, uneven, single-row and empty ranks.
inline std::vector<std::vector<int64_t>> Splits(int64_t n) {
  return {{n},
          {n / 2, n - n / 2},
          {1, n - 1},
          {n / 3, n / 3, n - 2 * (n / 3)},
          {2, 0, n - 2},
          {n / 4, n / 4, n / 4, n - 3 * (n / 4)},
          {1, n - 3, 0, 2},
          {1, 0, 1, 0, 1, n - 4, 1, 0}};
}

struct Shards {
  int64_t n, d;
  std::vector<int64_t> rows;  // of each rank
  at::ScalarType dtype = at::kDouble;
  std::size_t views = 2;
};

struct Error {
  double loss = 0, reported = 0, embeddings = 0,
         parameters = 0;  // relative, in Frobenius norm; the largest over the ranks.
  // `reported` is of the loss among the terms, `loss` of the one that backward is called on
};

// What a rank calls backward on, and the same of all rows in one process.
using ShardedLoss = std::function<LossResult(const Views& views, Group& group)>;
using WholeLoss = std::function<at::Tensor(const Views& all)>;

struct Comparison {
  Error error;
  std::vector<LossResult> ranks;
};

// Each rank embeds its rows by a shared matrix P, Z_k = A_k P, and the reducer averages dL/dP over the ranks. The other
// side is fp64 autograd over the same embeddings. The mean is not 0, the views are alike, and the spread of the columns
// lies on both sides of gamma.
inline Comparison CompareWithWhole(const Shards& s, const ShardedLoss& sharded, const WholeLoss& whole) {
  const int64_t features = s.d + 3;
  const std::size_t world = s.rows.size();
  Views a = {(Normal({s.n, features}, 11) + 0.5).to(s.dtype)};
  for (std::size_t k = 1; k < s.views; ++k)
    a.push_back((a[0].to(at::kDouble) + 0.4 * Normal({s.n, features}, 11 + k)).to(s.dtype));
  const at::Tensor scale = at::linspace(0.3, 2, s.d, at::kDouble) / std::sqrt(static_cast<double>(features));
  const at::Tensor p = (Normal({features, s.d}, 10) * scale).to(s.dtype);

  std::vector<Views> z(s.views, Views(world)), dz = z;
  Views dp(world);
  Comparison comparison{{}, std::vector<LossResult>(world)};
  RunRanks(static_cast<int>(world), [&](Group& group) {
    const auto rank = static_cast<std::size_t>(group.rank());
    int64_t first = 0;
    for (std::size_t r = 0; r < rank; ++r) first += s.rows[r];
    const at::Tensor own_p = p.clone().set_requires_grad(true);
    GradientReducer reducer({own_p}, group);
    Views own;
    for (std::size_t k = 0; k < s.views; ++k) {
      own.push_back(a[k].narrow(0, first, s.rows[rank]).mm(own_p));
      own[k].retain_grad();
    }
    LossResult result = sharded(own, group);
    reducer.Prepare(result.loss);
    result.loss.backward();
    for (std::size_t k = 0; k < s.views; ++k) {
      z[k][rank] = own[k].detach();
      dz[k][rank] = own[k].grad() / static_cast<double>(group.size());
    }
    dp[rank] = own_p.grad().clone();
    result.loss = result.loss.detach();
    comparison.ranks[rank] = std::move(result);
  });

  Views all, all_got, all_want;
  for (const Views& view : z) all.push_back(at::cat(view).to(at::kDouble).set_requires_grad(true));
  const at::Tensor want = whole(all);
  want.backward();
  at::Tensor want_p = at::zeros({features, s.d}, at::kDouble);
  for (std::size_t k = 0; k < s.views; ++k) {
    all_got.push_back(at::cat(dz[k]));
    all_want.push_back(all[k].grad());
    want_p += a[k].to(at::kDouble).t().mm(all[k].grad());
  }
  Error& error = comparison.error;
  error.embeddings = RelativeError(at::cat(all_got), at::cat(all_want));
  for (std::size_t r = 0; r < world; ++r) {
    error.reported = std::max(error.reported, std::abs(comparison.ranks[r].terms.loss / want.item<double>() - 1));
    error.loss = std::max(error.loss, std::abs(comparison.ranks[r].loss.item<double>() / want.item<double>() - 1));
    error.parameters = std::max(error.parameters, RelativeError(dp[r], want_p));
  }
  return comparison;
}

}  // namespace vicreg::train
