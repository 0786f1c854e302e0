#include "worker/train/objective/cosine.h"

#include <ATen/ATen.h>

#include <cmath>
#include <stdexcept>

#include "worker/train/objective/forward_scope.h"
#include "worker/train/objective/known_gradient.h"

namespace vicreg::train {
namespace {

constexpr double kShortest = 1e-8;

at::ScalarType TypeOf(const at::Tensor& z) { return z.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

void Check(const std::vector<at::Tensor>& predictions, const std::vector<at::Tensor>& targets) {
  if (predictions.size() < 2 || targets.size() != predictions.size()) {
    throw std::invalid_argument("a cosine loss needs predictions and targets of at least 2 views; found " +
                                std::to_string(predictions.size()) + " and " + std::to_string(targets.size()));
  }
  for (const auto* side : {&predictions, &targets}) {
    for (const at::Tensor& z : *side) {
      if (z.dim() != 2 || z.sizes() != predictions[0].sizes() || z.scalar_type() != predictions[0].scalar_type() ||
          !z.is_floating_point() || z.size(1) == 0) {
        throw std::invalid_argument("a cosine loss needs [rows, D] tensors of one shape and floating dtype, D >= 1");
      }
    }
  }
}

// Rows divided by their lengths, and these; a length that was too short is set to kShortest, as a constant.
struct Units {
  at::Tensor rows, lengths, long_enough;  // [n, D]; [n, 1]; [n, 1] of 1 and 0
};

Units UnitsOf(const at::Tensor& z) {
  const at::Tensor rows = z.detach().to(TypeOf(z)), lengths = rows.norm(2, {1}, true);
  const at::Tensor bounded = lengths.clamp_min(kShortest);
  return {rows / bounded, bounded, (lengths > kShortest).to(rows.scalar_type())};
}

}  // namespace

CosineResult NegativeCosine(const std::vector<at::Tensor>& predictions, const std::vector<at::Tensor>& targets,
                            Group& group, double grad_scale) {
  Check(predictions, targets);
  const std::size_t views = predictions.size();
  const double pairs = static_cast<double>(views * (views - 1));
  CosineResult result;
  std::vector<at::Tensor> gradients;
  {
    const ForwardScope scope;
    std::vector<at::Tensor> units;
    for (const at::Tensor& t : targets) units.push_back(UnitsOf(t).rows);
    at::Tensor sum = at::zeros({}, units[0].options().dtype(at::kDouble));
    for (std::size_t k = 0; k < views; ++k) {
      const Units p = UnitsOf(predictions[k]);
      at::Tensor others = at::zeros_like(p.rows);  // sum of the targets it is compared with
      for (std::size_t l = 0; l < views; ++l) {
        if (l != k) others.add_(units[l]);
      }
      const at::Tensor cosine = (p.rows * others).sum(1, true);
      sum.add_(cosine.sum(at::kDouble));
      // d cos / dp = (t - cos p) / |p|, and t / |p| where the length is held.
      gradients.push_back(others.sub_(p.rows * (cosine * p.long_enough)).div_(p.lengths));
    }
    // Rows of this rank and the sum of their cosines, added in rank order.
    const at::Tensor own = at::stack({at::full({}, static_cast<double>(units[0].size(0)), sum.options()), sum});
    const at::Tensor records = group.AllGather(own).cpu();
    const auto record = records.accessor<double, 2>();
    double rows = 0, total = 0;
    for (std::int64_t r = 0; r < group.size(); ++r) {
      rows += record[r][0];
      total += record[r][1];
    }
    if (rows == 0) throw std::invalid_argument("a cosine loss needs at least 1 row over all ranks; found 0");
    result.cosine = total / (rows * pairs);
    for (at::Tensor& g : gradients) g.mul_(-grad_scale / (rows * pairs));
  }
  result.loss = WithKnownGradient(predictions, std::move(gradients), -result.cosine);
  return result;
}

at::Tensor Directions(const at::Tensor& z) {
  const at::Tensor wide = z.to(TypeOf(z));
  return wide * (std::sqrt(static_cast<double>(z.size(1))) / wide.norm(2, {1}, true).clamp_min(1e-12));
}

}  // namespace vicreg::train
