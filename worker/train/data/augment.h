#pragma once

// One view of one gray image: random resized crop, flip, brightness, contrast, normalisation. A function of its
// arguments.

#include <cstdint>
#include <string>

#include "worker/train/data/draw.h"

namespace vicreg::train {

struct ViewOptions {
  bool random = true;  // false: the whole image, resized
  int size = 28;
  double least_area = 0.3, most_area = 1;
  double flip = 0.5, jitter = 0.8;           // probabilities
  double brightness = 0.2, contrast = 0.2;   // factors are drawn from 1 - b .. 1 + b
  double mean = 0.2860, deviation = 0.3530;  // of Fashion-MNIST's training pixels in 0..1
};

// "cifar" or "none".
ViewOptions OptionsFor(const std::string& preset, int size);

// pixels: height x width, 0..255. out: size x size floats.
void MakeView(const std::uint8_t* pixels, int height, int width, const ViewOptions& options, const DrawKey& key,
              float* out);

}  // namespace vicreg::train
