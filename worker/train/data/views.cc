#include "worker/train/data/views.h"

#include <algorithm>
#include <utility>

#include "worker/train/data/signal.h"

namespace vicreg::train {
namespace {

constexpr std::uint64_t kShiftSeed = 20220;  // one protocol for all: not the job's seed

std::int64_t Product(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t side : shape) product *= side;
  return product;
}

// -shift..shift.
int DrawShift(std::uint32_t sample, std::uint16_t which, int shift) {
  const DrawKey key{kShiftSeed, 0, sample, 0};
  return static_cast<int>(Below(key, Operation::kShift, which, 2 * static_cast<std::uint64_t>(shift) + 1)) - shift;
}

// `image` moved by (dy, dx), zeros where nothing comes from.
std::vector<std::uint8_t> Shifted(const std::uint8_t* image, int channels, int height, int width, int dy, int dx) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(channels) * height * width, 0);
  for (int c = 0; c < channels; ++c) {
    const std::int64_t plane = std::int64_t{c} * height * width;
    for (int y = std::max(0, dy); y < std::min(height, height + dy); ++y) {
      for (int x = std::max(0, dx); x < std::min(width, width + dx); ++x)
        out[static_cast<std::size_t>(plane + std::int64_t{y} * width + x)] =
            image[plane + std::int64_t{y - dy} * width + x - dx];
    }
  }
  return out;
}

// Images of one size, wherever their pixels lie.
class ImageView : public View {
 public:
  // `owner` keeps `pixels`.
  ImageView(std::shared_ptr<const void> owner, const std::uint8_t* pixels, int height, int width,
            const ViewOptions& options)
      : View({options.channels, options.size, options.size}, {options.mean, options.deviation}),
        owner_(std::move(owner)),
        pixels_(pixels),
        height_(height),
        width_(width),
        options_(options),
        whole_(options) {
    whole_.random = false;
  }

  void Draw(std::uint32_t sample, const DrawKey& key, float* out) const override {
    MakeView(Image(sample), height_, width_, options_, key, out);
  }
  void Whole(std::uint32_t sample, int shift, float* out) const override {
    if (shift == 0) return MakeView(Image(sample), height_, width_, whole_, {}, out);
    const std::vector<std::uint8_t> moved = Shifted(Image(sample), options_.channels, height_, width_,
                                                    DrawShift(sample, 0, shift), DrawShift(sample, 1, shift));
    MakeView(moved.data(), height_, width_, whole_, {}, out);
  }

 private:
  const std::uint8_t* Image(std::uint32_t i) const {
    return pixels_ + static_cast<std::size_t>(i) * static_cast<std::size_t>(options_.channels) *
                         static_cast<std::size_t>(height_) * static_cast<std::size_t>(width_);
  }

  const std::shared_ptr<const void> owner_;
  const std::uint8_t* const pixels_;
  const int height_, width_;
  const ViewOptions options_;
  ViewOptions whole_;
};

void Normalise(float* values, std::int64_t count, double mean, double deviation) {
  const auto centre = static_cast<float>(mean), scale = static_cast<float>(1 / deviation);
  for (std::int64_t i = 0; i < count; ++i) values[i] = (values[i] - centre) * scale;
}

class WaveView : public View {
 public:
  WaveView(std::shared_ptr<const NpyArray> array, int channels, std::int64_t size, bool random, Normalisation n)
      : View({channels, size}, std::move(n)),
        array_(std::move(array)),
        channels_(channels),
        size_(size),
        length_(array_->row_values() / channels),
        random_(random) {}

  void Draw(std::uint32_t sample, const DrawKey& key, float* out) const override {
    Window(sample, random_ ? DrawStart(length_, size_, key) : Middle(), out);
    if (random_) AugmentWave(out, values(), WaveOptions{}, key);
  }
  void Whole(std::uint32_t sample, int shift, float* out) const override {
    Window(sample, Middle() - (shift == 0 ? 0 : DrawShift(sample, 0, shift)), out);
  }

 private:
  std::int64_t Middle() const { return (length_ - size_) / 2; }

  // Values start .. start + size - 1 of each channel, zeros beyond either end.
  void Window(std::uint32_t sample, std::int64_t start, float* out) const {
    const std::int64_t from = std::max<std::int64_t>(start, 0), to = std::min(start + size_, length_);
    for (int c = 0; c < channels_; ++c) {
      float* channel = out + c * size_;
      std::fill(channel, channel + size_, 0.0f);
      if (to <= from) continue;
      array_->Read(sample, c * length_ + from, to - from, channel + (from - start));
      Normalise(channel + (from - start), to - from, normalisation().mean[static_cast<std::size_t>(c)],
                normalisation().deviation[static_cast<std::size_t>(c)]);
    }
  }

  const std::shared_ptr<const NpyArray> array_;
  const int channels_;
  const std::int64_t size_, length_;
  const bool random_;
};

class VectorView : public View {
 public:
  VectorView(std::shared_ptr<const NpyArray> array, bool random, Normalisation n)
      : View({array->row_values()}, std::move(n)), array_(std::move(array)), random_(random) {}

  void Draw(std::uint32_t sample, const DrawKey& key, float* out) const override {
    Whole(sample, 0, out);
    if (random_) AugmentVector(out, values(), VectorOptions{}, key);
  }
  void Whole(std::uint32_t sample, int, float* out) const override {
    array_->Read(sample, 0, values(), out);
    for (std::int64_t i = 0; i < values(); ++i)
      Normalise(out + i, 1, normalisation().mean[static_cast<std::size_t>(i)],
                normalisation().deviation[static_cast<std::size_t>(i)]);
  }

 private:
  const std::shared_ptr<const NpyArray> array_;
  const bool random_;
};

}  // namespace

View::View(std::vector<std::int64_t> shape, Normalisation normalisation)
    : shape_(std::move(shape)), values_(Product(shape_)), normalisation_(std::move(normalisation)) {}

std::unique_ptr<View> MakeImageView(std::shared_ptr<const void> owner, const std::uint8_t* pixels, int height,
                                    int width, const ViewOptions& options) {
  return std::make_unique<ImageView>(std::move(owner), pixels, height, width, options);
}

std::unique_ptr<View> MakeWaveView(std::shared_ptr<const NpyArray> array, int channels, std::int64_t size, bool random,
                                   Normalisation normalisation) {
  return std::make_unique<WaveView>(std::move(array), channels, size, random, std::move(normalisation));
}

std::unique_ptr<View> MakeVectorView(std::shared_ptr<const NpyArray> array, bool random, Normalisation normalisation) {
  return std::make_unique<VectorView>(std::move(array), random, std::move(normalisation));
}

}  // namespace vicreg::train
