#pragma once

// Views of waveforms and vectors whose channels (a vector's columns) are normalised: mean 0, deviation 1. Functions of
// their arguments; every value that is drawn for has words of its own (draw.h), and no function of the C library is
// called, whose last bit depends on the processor.

#include <cstdint>

#include "worker/train/data/draw.h"

namespace vicreg::train {

// "wave": a window at a uniform place, then loudness, then noise.
struct WaveOptions {
  double gain = 0.2, gain_probability = 0.8;    // the factor is drawn from 1 - gain .. 1 + gain
  double noise = 0.1, noise_probability = 0.5;  // the deviation is drawn from 0 .. noise
};

// "vector": values are masked (set to 0, their column's mean), then there is noise on all of them.
struct VectorOptions {
  double mask = 0.2;   // probability, for each value
  double noise = 0.1;  // deviation
};

// Where the window of `size` begins in a waveform of `length` >= size.
std::int64_t DrawStart(std::int64_t length, std::int64_t size, const DrawKey& key);
// In place; wave: channels x size values, at most kMostValues.
void AugmentWave(float* wave, std::int64_t count, const WaveOptions& options, const DrawKey& key);
// In place; at most kMostValues.
void AugmentVector(float* vector, std::int64_t count, const VectorOptions& options, const DrawKey& key);

}  // namespace vicreg::train
