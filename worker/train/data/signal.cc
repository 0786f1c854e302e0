#include "worker/train/data/signal.h"

#include <algorithm>

namespace vicreg::train {
namespace {

// Calls visit(i, word) for every value, with a word of its own.
template <typename Visit>
void ForEachWord(std::int64_t count, Operation operation, const DrawKey& key, const Visit& visit) {
  for (std::int64_t i = 0; i < count; i += 4) {
    const auto words = Words(key, operation, static_cast<std::uint16_t>(i / 4));
    for (std::int64_t k = i; k < std::min(count, i + 4); ++k) visit(k, words[static_cast<std::size_t>(k - i)]);
  }
}

// Noise of mean 0 and deviation 1: the sum of a word's four bytes, uniform each, has a mean of 4 * 255 / 2 and a
// variance of 4 * (256^2 - 1) / 12.
float Noise(std::uint32_t word) {
  const std::uint32_t sum = (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24);
  return (static_cast<float>(sum) - 510.0f) * (1 / 147.80054f);
}

void AddNoise(float* values, std::int64_t count, float deviation, const DrawKey& key) {
  ForEachWord(count, Operation::kNoise, key,
              [&](std::int64_t i, std::uint32_t word) { values[i] += deviation * Noise(word); });
}

}  // namespace

std::int64_t DrawStart(std::int64_t length, std::int64_t size, const DrawKey& key) {
  return static_cast<std::int64_t>(Below(key, Operation::kStart, 0, static_cast<std::uint64_t>(length - size + 1)));
}

void AugmentWave(float* wave, std::int64_t count, const WaveOptions& options, const DrawKey& key) {
  if (Uniform(key, Operation::kGain, 0) < options.gain_probability) {
    const auto factor = static_cast<float>(1 - options.gain + 2 * options.gain * Uniform(key, Operation::kGain, 1));
    for (std::int64_t i = 0; i < count; ++i) wave[i] *= factor;
  }
  // Words of kNoise are the values'.
  if (Uniform(key, Operation::kNoiseLevel, 0) < options.noise_probability)
    AddNoise(wave, count, static_cast<float>(options.noise * Uniform(key, Operation::kNoiseLevel, 1)), key);
}

void AugmentVector(float* vector, std::int64_t count, const VectorOptions& options, const DrawKey& key) {
  const auto below = static_cast<std::uint64_t>(options.mask * 0x1p32);
  ForEachWord(count, Operation::kMask, key, [&](std::int64_t i, std::uint32_t word) {
    if (word < below) vector[i] = 0;
  });
  AddNoise(vector, count, static_cast<float>(options.noise), key);
}

}  // namespace vicreg::train
