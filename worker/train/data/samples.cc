#include "worker/train/data/samples.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "common/recipe/networks.h"
#include "worker/train/data/files.h"
#include "worker/train/data/npy.h"
#include "worker/train/data/views.h"

namespace vicreg::train {
namespace {

constexpr std::int64_t kNormalisedBy = 1024;
constexpr std::int64_t kLongestSide = 20000;

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
      return MakeImageView(array, array->row(0), static_cast<int>(shape[shape.size() - 2]),
                           static_cast<int>(shape.back()), options);
    }
    case recipe::Input::kWaveforms:
      return MakeWaveView(array, view.channels, view.augmentation.size, random, n);
    case recipe::Input::kVectors:
      break;
  }
  return MakeVectorView(array, random, n);
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
  std::int64_t samples = 0;
  // Every part has a row for each sample.
  const auto check_rows = [&](const NpyArray& array) {
    if (samples == 0) samples = array.rows();
    if (array.rows() == samples) return;
    RefuseFile(array.file(), "found " + std::to_string(array.rows()) + " rows; expected " + std::to_string(samples) +
                                 ", as many as " + stem + views.front().part +
                                 ".npy: row i of every part is of sample i");
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
  if (samples > std::int64_t{0xffffffff})
    RefuseFile(stem + views.front().part + ".npy",
               "found " + std::to_string(samples) + " rows; expected at most 4294967295");
  SampleSet set;
  set.count = static_cast<std::uint32_t>(limit > 0 ? std::min(samples, limit) : samples);
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

SampleSet ImageSamples(ImageSet images, const ViewOptions& options, int views) {
  const auto shared = std::make_shared<const ImageSet>(std::move(images));
  SampleSet set;
  set.count = shared->count;
  set.labels = shared->labels;
  for (int v = 0; v < views; ++v)
    set.views.push_back(MakeImageView(shared, shared->pixels.data(), shared->height, shared->width, options));
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
    set.views.push_back(MakeImageView(images, images->pixels.data(), images->height, images->width,
                                      OptionsFor(view.augmentation.preset, view.augmentation.size)));
  }
  return set;
}

}  // namespace vicreg::train
