#include "worker/train/data/augment.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace vicreg::train {
namespace {

struct Box {
  int top = 0, left = 0, height = 0, width = 0;
};

// Ten tries of area and log-uniform aspect; else the largest centred crop within the aspect range.
Box DrawCrop(int height, int width, const ViewOptions& options, const DrawKey& key) {
  const double area = static_cast<double>(height) * width;
  for (std::uint16_t attempt = 0; attempt < 10; ++attempt) {
    const auto draw = [&](int which) {
      return Uniform(key, Operation::kCrop, static_cast<std::uint16_t>(attempt * 4 + which));
    };
    const double target = area * (options.least_area + draw(0) * (options.most_area - options.least_area));
    const double aspect = std::exp(std::log(3.0 / 4) + draw(1) * (std::log(4.0 / 3) - std::log(3.0 / 4)));
    const int w = static_cast<int>(std::lround(std::sqrt(target * aspect))),
              h = static_cast<int>(std::lround(std::sqrt(target / aspect)));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    return {static_cast<int>(draw(2) * (height - h + 1)), static_cast<int>(draw(3) * (width - w + 1)), h, w};
  }
  const double aspect = static_cast<double>(width) / height;
  Box box{0, 0, height, width};
  if (aspect < 3.0 / 4) box.height = static_cast<int>(std::lround(width * 4.0 / 3));
  if (aspect > 4.0 / 3) box.width = static_cast<int>(std::lround(height * 4.0 / 3));
  box.height = std::min(box.height, height);
  box.width = std::min(box.width, width);
  box.top = (height - box.height) / 2;
  box.left = (width - box.width) / 2;
  return box;
}

// Weights of a triangle filter per output position; when shrinking, the triangle widens with the scale (antialiased, as
// Pillow).
struct Taps {
  std::vector<int> first;
  std::vector<std::vector<float>> weights;
};

Taps Resampling(int from, int to) {
  Taps taps;
  const double scale = static_cast<double>(from) / to, support = std::max(scale, 1.0);
  for (int i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    const int begin = std::max(static_cast<int>(centre - support + 0.5), 0),
              end = std::min(static_cast<int>(centre + support + 0.5), from);
    std::vector<float> weights;
    double sum = 0;
    for (int j = begin; j < end; ++j) sum += std::max(0.0, 1 - std::abs((j + 0.5 - centre) / support));
    for (int j = begin; j < end; ++j)
      weights.push_back(static_cast<float>(std::max(0.0, 1 - std::abs((j + 0.5 - centre) / support)) / sum));
    taps.first.push_back(begin);
    taps.weights.push_back(std::move(weights));
  }
  return taps;
}

void CropAndResize(const std::uint8_t* pixels, int width, const Box& box, int size, float* out) {
  const Taps across = Resampling(box.width, size), down = Resampling(box.height, size);
  std::vector<float> rows(static_cast<std::size_t>(box.height) * size);
  for (int y = 0; y < box.height; ++y) {
    const std::uint8_t* row = pixels + static_cast<std::ptrdiff_t>(box.top + y) * width + box.left;
    for (int x = 0; x < size; ++x) {
      float sum = 0;
      const auto& weights = across.weights[static_cast<std::size_t>(x)];
      for (std::size_t k = 0; k < weights.size(); ++k)
        sum += weights[k] * row[across.first[static_cast<std::size_t>(x)] + static_cast<int>(k)];
      rows[static_cast<std::size_t>(y) * size + x] = sum;
    }
  }
  for (int y = 0; y < size; ++y) {
    const auto& weights = down.weights[static_cast<std::size_t>(y)];
    for (int x = 0; x < size; ++x) {
      float sum = 0;
      for (std::size_t k = 0; k < weights.size(); ++k)
        sum += weights[k] * rows[(static_cast<std::size_t>(down.first[static_cast<std::size_t>(y)]) + k) * size + x];
      out[y * size + x] = sum;
    }
  }
}

void ClampAll(float* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = std::clamp(values[i], 0.0f, 255.0f);
}

// Mean luma of planes of `plane` values.
double MeanLuma(const float* image, int channels, std::int64_t plane) {
  constexpr double kLuma[] = {0.299, 0.587, 0.114};
  double mean = 0;
  for (int c = 0; c < channels; ++c) {
    double sum = 0;
    for (std::int64_t i = 0; i < plane; ++i) sum += image[c * plane + i];
    mean += (channels == 3 ? kLuma[c] : 1.0 / channels) * (sum / static_cast<double>(plane));
  }
  return mean;
}

}  // namespace

ViewOptions OptionsFor(const std::string& preset, int size) {
  ViewOptions options;
  options.random = preset != "none";
  options.size = size;
  return options;
}

void MakeView(const std::uint8_t* pixels, int height, int width, const ViewOptions& options, const DrawKey& key,
              float* out) {
  const int size = options.size;
  const std::int64_t plane = std::int64_t{size} * size, count = options.channels * plane;
  const Box box = options.random ? DrawCrop(height, width, options, key) : Box{0, 0, height, width};
  for (int c = 0; c < options.channels; ++c)
    CropAndResize(pixels + std::int64_t{c} * height * width, width, box, size, out + c * plane);
  if (options.random) {
    if (Uniform(key, Operation::kFlip, 0) < options.flip) {
      for (std::int64_t y = 0; y < std::int64_t{options.channels} * size; ++y)
        std::reverse(out + y * size, out + (y + 1) * size);
    }
    if (Uniform(key, Operation::kBrightness, 0) < options.jitter) {
      const float factor =
          static_cast<float>(1 - options.brightness + 2 * options.brightness * Uniform(key, Operation::kBrightness, 1));
      for (std::int64_t i = 0; i < count; ++i) out[i] *= factor;
      ClampAll(out, count);
    }
    if (Uniform(key, Operation::kContrast, 0) < options.jitter) {
      const float factor =
          static_cast<float>(1 - options.contrast + 2 * options.contrast * Uniform(key, Operation::kContrast, 1));
      const float mean = static_cast<float>(MeanLuma(out, options.channels, plane));
      for (std::int64_t i = 0; i < count; ++i) out[i] = mean + factor * (out[i] - mean);
      ClampAll(out, count);
    }
  }
  for (int c = 0; c < options.channels; ++c) {
    const double mean = options.mean[static_cast<std::size_t>(c)],
                 deviation = options.deviation[static_cast<std::size_t>(c)];
    const float scale = static_cast<float>(1 / (255 * deviation)), shift = static_cast<float>(mean / deviation);
    for (std::int64_t i = c * plane; i < (c + 1) * plane; ++i) out[i] = out[i] * scale - shift;
  }
}

}  // namespace vicreg::train
