#pragma once

// One split of a data set as the views of a job see it: what the loader and evaluation read, whatever the format.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/data/augment.h"
#include "worker/train/data/draw.h"
#include "worker/train/data/idx.h"

namespace vicreg::train {

// How values become numbers of order 1: (x - mean) / deviation for each channel (of a vector: each column). Images: of
// pixels in 0..1.
struct Normalisation {
  std::vector<double> mean, deviation;
};

// How one view is made of a sample. Immutable; any thread.
class View {
 public:
  virtual ~View() = default;
  // Of one view: {C, H, W}, {C, L} or {F}; recipe::SampleShape.
  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::int64_t values() const { return values_; }
  const Normalisation& normalisation() const { return normalisation_; }

  // values() floats of `sample` as training sees them, drawn with `key`. RankError(kData) for a value that is no
  // number.
  virtual void Draw(std::uint32_t sample, const DrawKey& key, float* out) const = 0;
  // As evaluation sees them, without a draw: the whole image resized, the middle of a waveform, all of a vector.
  // `shift` > 0 moves the sample by a fixed draw of up to that many pixels (values) each way and fills with zeros; a
  // vector has no place to move to and stays.
  virtual void Whole(std::uint32_t sample, int shift, float* out) const = 0;

 protected:
  View(std::vector<std::int64_t> shape, Normalisation normalisation);

 private:
  const std::vector<std::int64_t> shape_;
  const std::int64_t values_;
  const Normalisation normalisation_;
};

struct SampleSet {
  std::uint32_t count = 0;
  std::vector<std::uint8_t> labels;          // count, or empty where the set has none
  std::vector<std::unique_ptr<View>> views;  // in view order
};

// Opens `split` of the recipe's data beneath `root`, its first `limit` samples (0: all). Files of a format:
//
//   idx  idx.h; pixels are normalised as Fashion-MNIST's
//   npy  <split>-<part>.npy for every part that the recipe's views name: images (N, H, W) or (N, C, H, W) of uint8,
//        waveforms (N, L) or (N, C, L), vectors (N, F); and <split>-labels.npy (N,) of whole numbers 0..255 where there
//        are labels. Normalised by the first 1,024 of these samples, or as `like` is.
//
// Throws RankError(kData) naming file, expected and found: missing, unreadable or damaged files, another type or shape,
// parts of different lengths.
SampleSet OpenSamples(const std::string& root, const recipe::Recipe& recipe, const std::string& split,
                      std::int64_t limit, const SampleSet* like = nullptr);

// `views` views of images that are at hand.
SampleSet ImageSamples(ImageSet images, const ViewOptions& options, int views);

}  // namespace vicreg::train
