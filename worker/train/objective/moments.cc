#include "worker/train/objective/moments.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace vicreg::train {
namespace {

// Of one rank's rows. m2: sum of (z - mean)^2, in the type of the rows.
struct OwnMoments {
  at::Tensor mean, m2;  // [V, D]; the mean in fp64
};

// Two passes; leaves `rows` less the mean.
OwnMoments CentreOnOwnMean(at::Tensor& rows) {
  if (rows.size(0) == 0) {
    const at::Tensor zero = at::zeros({rows.size(1), rows.size(2)}, rows.options());
    return {zero.to(at::kDouble), zero};
  }
  const at::Tensor rounded = rows.mean(0);
  rows.sub_(rounded);
  const at::Tensor rest = rows.mean(0);
  rows.sub_(rest);
  return {rounded.to(at::kDouble) + rest, rows.square().sum(0)};
}

// The bits of `t` as fp64 numbers, so that one record holds both types.
at::Tensor AsDoubles(const at::Tensor& t) {
  const at::Tensor flat = t.view(-1);
  const bool odd = t.scalar_type() != at::kDouble && t.numel() % 2 != 0;
  return (odd ? at::cat({flat, at::zeros({1}, t.options())}) : flat).view(at::kDouble);
}

}  // namespace

at::Tensor SumOfSquares(const at::Tensor& t) { return t.square().sum(-1).sum(at::kDouble); }

Moments GatherMoments(const std::vector<at::Tensor>& views, const at::Tensor& own_sum, Group& group) {
  const auto v = static_cast<std::int64_t>(views.size());
  const std::int64_t own_rows = views[0].size(0), d = views[0].size(1);
  const at::ScalarType type = views[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Moments all;
  all.centred = at::empty({own_rows, v, d}, views[0].options().dtype(type));
  for (std::int64_t k = 0; k < v; ++k) all.centred.select(1, k).copy_(views[static_cast<std::size_t>(k)]);
  const OwnMoments own = CentreOnOwnMean(all.centred);

  // A rank's record: rows, sum; means; M2.
  const at::Tensor head = at::stack({at::full({}, static_cast<double>(own_rows), own_sum.options()), own_sum});
  const at::Tensor records = group.AllGather(at::cat({head, AsDoubles(own.mean), AsDoubles(own.m2)}));
  const at::Tensor heads = records.narrow(1, 0, 2).cpu();
  const auto facts = heads.accessor<double, 2>();
  const std::int64_t columns = v * d, means_end = 2 + columns;
  at::Tensor mean = at::zeros_like(own.mean), m2 = at::zeros_like(own.mean);
  double k = 0;
  for (std::int64_t r = 0; r < group.size(); ++r) {
    const double n = facts[r][0];
    all.own_sums += facts[r][1];
    all.most_rows = std::max(all.most_rows, static_cast<std::int64_t>(n));
    if (n == 0) continue;
    const at::Tensor of_rank = records[r];
    const at::Tensor delta = of_rank.slice(0, 2, means_end).view({v, d}) - mean;
    const double t = k + n;
    mean.add_(delta, n / t);
    m2.add_(of_rank.slice(0, means_end).view(type).slice(0, 0, columns).view({v, d})).addcmul_(delta, delta, k * n / t);
    k = t;
  }
  all.rows = static_cast<std::int64_t>(k);
  all.variance = m2.div_(std::max(k - 1, 1.0));
  all.centred.add_((own.mean - mean).to(type));
  return all;
}

}  // namespace vicreg::train
