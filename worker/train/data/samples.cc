#include "worker/train/data/samples.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "common/recipe/networks.h"
#include "worker/train/data/files.h"
#include "worker/train/data/npy.h"
#include "worker/train/data/signal.h"

namespace vicreg::train {
namespace {

constexpr std::uint64_t kShiftSeed = 20220;  // one protocol for all: not the job's seed
constexpr std::int64_t kNormalisedBy = 1024;
constexpr std::int64_t kLongestSide = 20000;

std::int64_t Product(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t side : shape) product *= side;
  return product;
}

// -shift..shift.
int DrawShift(std::uint32_t sample, std::uint16_t which, int shift) {
  const DrawKey key{kShiftSeed, 0, sample, 0};
  return static_cast<int>(Below(key, Operation::kShift, which, static_cast<std::uint64_t>(2 * shift + 1))) - shift;
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

// What the array of a view must look like, N samples long.
void CheckPart(const NpyArray& array, const recipe::Branch& view) {
  const std::vector<std::int64_t>& shape = array.shape();
  const std::string channels = std::to_string(view.channels),
                    found = "found " + ShapeText(shape) + " of " + Name(array.type()) + "; expected ";
  const std::string size = std::to_string(view.augmentation.size);
  switch (recipe::InputOf(view)) {
    case recipe::Input::kImages: {
      const bool fits = array.type() == NpyType::kU8 &&
                        ((shape.size() == 3 && view.channels == 1) || (shape.size() == 4 && shape[1] == view.channels));
      if (!fits)
        RefuseFile(array.file(), found + "images of uint8, 0 to 255: " + (view.channels == 1 ? "(N, H, W) or " : "") +
                                     "(N, " + channels + ", H, W), channels first as in the job's channels");
      if (shape.back() > kLongestSide || shape[shape.size() - 2] > kLongestSide)
        RefuseFile(array.file(), found + "sides of at most " + std::to_string(kLongestSide) + " pixels");
      return;
    }
    case recipe::Input::kWaveforms: {
      const bool fits = (shape.size() == 2 && view.channels == 1) || (shape.size() == 3 && shape[1] == view.channels);
      if (!fits)
        RefuseFile(array.file(), found + "waveforms: " + (view.channels == 1 ? "(N, L) or " : "") + "(N, " + channels +
                                     ", L), channels first as in the job's channels");
      if (shape.back() < view.augmentation.size)
        RefuseFile(array.file(), found + "waveforms of at least " + size + " values, the size of a view");
      return;
    }
    case recipe::Input::kVectors:
      if (shape.size() != 2 || shape[1] != view.channels)
        RefuseFile(array.file(), found + "vectors: (N, " + channels + "), as many values as the job's channels");
      return;
  }
}

// Of `groups` runs of equal length in a row: mean and deviation over the first samples. A channel that never changes is
// only centred.
Normalisation Measure(const NpyArray& array, std::int64_t samples, std::int64_t groups, double unit) {
  const std::int64_t rows = std::min(samples, kNormalisedBy), run = array.row_values() / groups;
  std::vector<float> row(static_cast<std::size_t>(array.row_values()));
  const auto sum_over = [&](const auto& value) {
    std::vector<double> sums(static_cast<std::size_t>(groups));
    for (std::int64_t i = 0; i < rows; ++i) {
      array.Read(i, 0, array.row_values(), row.data());
      for (std::int64_t g = 0; g < groups; ++g) {
        for (std::int64_t k = g * run; k < (g + 1) * run; ++k)
          sums[static_cast<std::size_t>(g)] +=
              value(static_cast<double>(row[static_cast<std::size_t>(k)]) / unit, static_cast<std::size_t>(g));
      }
    }
    for (double& sum : sums) sum /= static_cast<double>(rows * run);
    return sums;
  };
  Normalisation n;
  n.mean = sum_over([](double x, std::size_t) { return x; });
  n.deviation = sum_over([&](double x, std::size_t g) { return (x - n.mean[g]) * (x - n.mean[g]); });
  for (double& d : n.deviation) d = d > 0 ? std::sqrt(d) : 1;
  return n;
}

std::unique_ptr<View> MakeNpyView(const std::shared_ptr<const NpyArray>& array, const recipe::Branch& view,
                                  std::int64_t samples, const View* like) {
  const bool random = view.augmentation.preset != "none";
  const recipe::Input input = recipe::InputOf(view);
  const Normalisation n = like != nullptr
                              ? like->normalisation()
                              : Measure(*array, samples, view.channels, input == recipe::Input::kImages ? 255 : 1);
  switch (input) {
    case recipe::Input::kImages: {
      ViewOptions options = OptionsFor(view.augmentation.preset, view.augmentation.size);
      options.channels = view.channels;
      options.mean = n.mean;
      options.deviation = n.deviation;
      const std::vector<std::int64_t>& shape = array->shape();
      return std::make_unique<ImageView>(array, array->row(0), static_cast<int>(shape[shape.size() - 2]),
                                         static_cast<int>(shape.back()), options);
    }
    case recipe::Input::kWaveforms:
      return std::make_unique<WaveView>(array, view.channels, view.augmentation.size, random, n);
    case recipe::Input::kVectors:
      break;
  }
  return std::make_unique<VectorView>(array, random, n);
}

std::vector<std::uint8_t> Labels(const NpyArray& array, std::int64_t samples) {
  if (array.shape().size() != 1 || !IsInteger(array.type()))
    RefuseFile(array.file(), "found " + ShapeText(array.shape()) + " of " + Name(array.type()) +
                                 "; expected one whole number for each sample, (N,)");
  std::vector<std::uint8_t> labels;
  for (std::int64_t i = 0; i < samples; ++i) {
    const std::int64_t label = array.Integer(i, 0);
    if (label < 0 || label > 255)
      RefuseFile(array.file(),
                 "row " + std::to_string(i) + " holds label " + std::to_string(label) + "; expected 0 to 255");
    labels.push_back(static_cast<std::uint8_t>(label));
  }
  return labels;
}

SampleSet OpenNpy(const std::string& root, const recipe::Recipe& recipe, const std::string& split, std::int64_t limit,
                  const SampleSet* like) {
  const std::string stem = (recipe.data.path.empty() ? "" : recipe.data.path + "/") + split + "-";
  const std::vector<recipe::Branch> views = recipe::Views(recipe);
  std::map<std::string, std::shared_ptr<const NpyArray>> arrays;  // by part
  const NpyArray* first = nullptr;
  // Every part has a row for each sample.
  const auto check_rows = [&](const NpyArray& array) {
    if (first == nullptr) first = &array;
    if (array.rows() == first->rows()) return;
    RefuseFile(array.file(), "found " + std::to_string(array.rows()) + " rows; expected " +
                                 std::to_string(first->rows()) + ", as many as " + first->file() +
                                 ": row i of every part is of sample i");
  };
  for (const recipe::Branch& view : views) {
    std::shared_ptr<const NpyArray>& array = arrays[view.part];
    if (array == nullptr) {
      array = NpyArray::Open(root, stem + view.part + ".npy");
      if (array == nullptr)
        RefuseFile(stem + view.part + ".npy",
                   "not found in the data root; expected part " + view.part + " of split " + split);
      check_rows(*array);
    }
    CheckPart(*array, view);
  }
  if (first->rows() > std::int64_t{0xffffffff})
    RefuseFile(first->file(), "found " + std::to_string(first->rows()) + " rows; expected at most 4294967295");
  SampleSet set;
  set.count = static_cast<std::uint32_t>(limit > 0 ? std::min(first->rows(), limit) : first->rows());
  if (const auto labels = NpyArray::Open(root, stem + "labels.npy"); labels != nullptr) {
    check_rows(*labels);
    set.labels = Labels(*labels, set.count);
  }
  for (std::size_t v = 0; v < views.size(); ++v) {
    const View* same = like != nullptr ? like->views.at(v).get() : nullptr;
    // Views of one part that are read alike need not be measured twice.
    for (std::size_t u = 0; u < v && same == nullptr; ++u) {
      if (views[u].part == views[v].part && views[u].channels == views[v].channels &&
          recipe::InputOf(views[u]) == recipe::InputOf(views[v]))
        same = set.views[u].get();
    }
    set.views.push_back(MakeNpyView(arrays.at(views[v].part), views[v], set.count, same));
  }
  return set;
}

}  // namespace

View::View(std::vector<std::int64_t> shape, Normalisation normalisation)
    : shape_(std::move(shape)), values_(Product(shape_)), normalisation_(std::move(normalisation)) {}

SampleSet ImageSamples(ImageSet images, const ViewOptions& options, int views) {
  const auto shared = std::make_shared<const ImageSet>(std::move(images));
  SampleSet set;
  set.count = shared->count;
  set.labels = shared->labels;
  for (int v = 0; v < views; ++v)
    set.views.push_back(
        std::make_unique<ImageView>(shared, shared->pixels.data(), shared->height, shared->width, options));
  return set;
}

SampleSet OpenSamples(const std::string& root, const recipe::Recipe& recipe, const std::string& split,
                      std::int64_t limit, const SampleSet* like) {
  if (recipe.data.format == recipe::DataFormat::kNpy) return OpenNpy(root, recipe, split, limit, like);
  const auto images = std::make_shared<const ImageSet>(ReadIdx(root, recipe.data.path, split, limit));
  SampleSet set;
  set.count = images->count;
  set.labels = images->labels;
  for (const recipe::Branch& view : recipe::Views(recipe)) {
    set.views.push_back(std::make_unique<ImageView>(images, images->pixels.data(), images->height, images->width,
                                                    OptionsFor(view.augmentation.preset, view.augmentation.size)));
  }
  return set;
}

}  // namespace vicreg::train
