#include "worker/train/eval/knn.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "worker/train/data/augment.h"
#include "worker/train/data/draw.h"
#include "worker/train/data/order.h"

namespace vicreg::train {
namespace {

constexpr std::uint32_t kBlock = 256;
constexpr std::uint64_t kShiftSeed = 20220;  // one protocol for all: not the job's seed

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

// `image` moved by (dy, dx), zeros where nothing comes from.
std::vector<std::uint8_t> Shifted(const std::uint8_t* image, int height, int width, int dy, int dx) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(height) * width, 0);
  for (int y = std::max(0, dy); y < std::min(height, height + dy); ++y) {
    for (int x = std::max(0, dx); x < std::min(width, width + dx); ++x)
      out[static_cast<std::size_t>(y) * width + x] = image[(y - dy) * width + x - dx];
  }
  return out;
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

at::Tensor EvaluationImages(const ImageSet& images, std::uint32_t begin, std::uint32_t end, int size, int shift) {
  const ViewOptions options = OptionsFor("none", size);
  at::Tensor out = at::empty({static_cast<std::int64_t>(end - begin), 1, size, size}, at::kFloat);
  float* data = out.mutable_data_ptr<float>();
  for (std::uint32_t i = begin; i < end; ++i) {
    const DrawKey key{kShiftSeed, 0, i, 0};
    float* target = data + static_cast<std::ptrdiff_t>(i - begin) * size * size;
    if (shift == 0) {
      MakeView(images.image(i), images.height, images.width, options, key, target);
      continue;
    }
    const auto span = static_cast<std::uint64_t>(2 * shift + 1);
    const int dy = static_cast<int>(Below(key, Operation::kShift, 0, span)) - shift,
              dx = static_cast<int>(Below(key, Operation::kShift, 1, span)) - shift;
    MakeView(Shifted(images.image(i), images.height, images.width, dy, dx).data(), images.height, images.width, options,
             key, target);
  }
  return out;
}

at::Tensor Represent(const Network& network, const ImageSet& images, int size, Group& group, int shift) {
  const at::NoGradGuard no_grad;
  // Equal shares, the last ranks' padded: a gather wants one shape.
  const std::int64_t share = (images.count + group.size() - 1) / group.size();
  const std::int64_t begin = std::min<std::int64_t>(share * group.rank(), images.count),
                     end = std::min<std::int64_t>(begin + share, images.count);
  const auto represent = [&](std::int64_t first, std::int64_t last) {
    const at::Tensor samples =
        EvaluationImages(images, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last), size, shift);
    return network.Represent(samples.to(network.device()));
  };
  std::vector<at::Tensor> parts;
  for (std::int64_t i = begin; i < end; i += kBlock) {
    parts.push_back(represent(i, std::min<std::int64_t>(i + kBlock, end)));
    if (group.progress() != nullptr) group.progress()->Done();
  }
  const at::Tensor probe = parts.empty() ? represent(0, 1).narrow(0, 0, 0) : parts[0];
  at::Tensor own = at::zeros({share, probe.size(1)}, probe.options());
  if (!parts.empty()) own.narrow(0, 0, end - begin).copy_(at::cat(parts));
  return group.AllGather(own).reshape({-1, probe.size(1)}).narrow(0, 0, images.count);
}

}  // namespace vicreg::train
