#pragma once

// One view of one image: random resized crop, flip, brightness, contrast, normalisation. A function of its arguments.

#include <cstdint>
#include <string>
#include <vector>

#include "worker/train/data/draw.h"

namespace vicreg::train {

struct ViewOptions {
  bool random = true;  // false: the whole image, resized
  int size = 28;
  int channels = 1;
  double least_area = 0.3, most_area = 1;
  double flip = 0.5, jitter = 0.8;          // probabilities
  double brightness = 0.2, contrast = 0.2;  // factors are drawn from 1 - b .. 1 + b
  // Of each channel's pixels in 0..1; these are of Fashion-MNIST's training images.
  std::vector<double> mean{0.2860}, deviation{0.3530};
};

// "cifar" or "none".
ViewOptions OptionsFor(const std::string& preset, int size);

// pixels: channels x height x width, 0..255. out: channels x size x size floats. All channels have one geometry and one
// factor; contrast is towards the mean luma (.299 .587 .114 of three channels, else their mean).
void MakeView(const std::uint8_t* pixels, int height, int width, const ViewOptions& options, const DrawKey& key,
              float* out);

}  // namespace vicreg::train
