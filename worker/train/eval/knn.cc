#include "worker/train/eval/knn.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace vicreg::train {
namespace {

constexpr std::uint32_t kBlock = 256;

at::Tensor Normalised(const at::Tensor& x) { return x / x.norm(2, {1}, true).clamp_min(1e-12); }

std::uint8_t Vote(const float* similarity, std::int64_t bank, const std::vector<std::uint8_t>& labels, int k,
                  double temperature, std::vector<std::int64_t>& scratch) {
  scratch.resize(static_cast<std::size_t>(bank));
  std::iota(scratch.begin(), scratch.end(), 0);
  const auto nearer = [&](std::int64_t a, std::int64_t b) {
    return similarity[a] != similarity[b] ? similarity[a] > similarity[b] : a < b;
  };
  const std::int64_t count = std::min<std::int64_t>(k, bank);
  std::partial_sort(scratch.begin(), scratch.begin() + count, scratch.end(), nearer);
  double votes[256] = {};
  for (std::int64_t i = 0; i < count; ++i) {
    votes[labels[static_cast<std::size_t>(scratch[static_cast<std::size_t>(i)])]] +=
        std::exp(similarity[scratch[static_cast<std::size_t>(i)]] / temperature);
  }
  return static_cast<std::uint8_t>(std::max_element(votes, votes + 256) - votes);
}

}  // namespace

double KnnAccuracy(const at::Tensor& bank, const std::vector<std::uint8_t>& bank_labels, const at::Tensor& queries,
                   const std::vector<std::uint8_t>& query_labels, int k, double temperature) {
  const at::NoGradGuard no_grad;
  const at::Tensor b = Normalised(bank).t().contiguous(), q = Normalised(queries);
  std::int64_t right = 0;
  std::vector<std::int64_t> scratch;
  for (std::int64_t start = 0; start < q.size(0); start += kBlock) {
    const at::Tensor similarity = q.narrow(0, start, std::min<std::int64_t>(kBlock, q.size(0) - start))
                                      .mm(b)
                                      .to(at::kCPU, at::kFloat)
                                      .contiguous();
    for (std::int64_t i = 0; i < similarity.size(0); ++i) {
      const float* row = similarity.const_data_ptr<float>() + i * similarity.size(1);
      right += Vote(row, similarity.size(1), bank_labels, k, temperature, scratch) ==
               query_labels[static_cast<std::size_t>(start + i)];
    }
  }
  return static_cast<double>(right) / static_cast<double>(std::max<std::int64_t>(q.size(0), 1));
}

at::Tensor EvaluationSamples(const View& view, std::uint32_t begin, std::uint32_t end, int shift) {
  std::vector<std::int64_t> shape = view.shape();
  shape.insert(shape.begin(), static_cast<std::int64_t>(end - begin));
  at::Tensor out = at::empty(shape, at::kFloat);
  float* data = out.mutable_data_ptr<float>();
  for (std::uint32_t i = begin; i < end; ++i)
    view.Whole(i, shift, data + static_cast<std::ptrdiff_t>(i - begin) * view.values());
  return out;
}

at::Tensor Represent(const Network& network, const SampleSet& samples, int view, Group& group, int shift) {
  const at::NoGradGuard no_grad;
  // Equal shares, the last ranks' padded: a gather wants one shape.
  const std::int64_t share = (samples.count + group.size() - 1) / group.size();
  const std::int64_t begin = std::min<std::int64_t>(share * group.rank(), samples.count),
                     end = std::min<std::int64_t>(begin + share, samples.count);
  const auto represent = [&](std::int64_t first, std::int64_t last) {
    const at::Tensor block =
        EvaluationSamples(*samples.views.at(static_cast<std::size_t>(view)), static_cast<std::uint32_t>(first),
                          static_cast<std::uint32_t>(last), shift);
    return network.Represent(block.to(network.device()), view);
  };
  std::vector<at::Tensor> parts;
  for (std::int64_t i = begin; i < end; i += kBlock) {
    parts.push_back(represent(i, std::min<std::int64_t>(i + kBlock, end)));
    if (group.progress() != nullptr) group.progress()->Done();
  }
  const at::Tensor probe = parts.empty() ? represent(0, 1).narrow(0, 0, 0) : parts[0];
  at::Tensor own = at::zeros({share, probe.size(1)}, probe.options());
  if (!parts.empty()) own.narrow(0, 0, end - begin).copy_(at::cat(parts));
  return group.AllGather(own).reshape({-1, probe.size(1)}).narrow(0, 0, samples.count);
}

}  // namespace vicreg::train
