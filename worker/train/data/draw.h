#pragma once

// Every random number of the data path is a pure function of (seed, epoch, sample, view, operation, draw):
// Philox4x32-10 (Salmon et al., 2011) with key = seed. So no generator state exists, and threads, ranks and restarts
// cannot matter.

#include <array>
#include <cstdint>

namespace vicreg::train {

// Append-only: a number that changes its meaning changes every experiment.
enum class Operation : std::uint8_t {
  kOrder = 0,
  kCrop = 1,
  kFlip = 2,
  kBrightness = 3,
  kContrast = 4,
  kShift = 5,
  kSubstitute = 6,
  kStart = 7,
  kGain = 8,
  kNoiseLevel = 9,
  kNoise = 10,
  kMask = 11
};

struct DrawKey {
  std::uint64_t seed = 0;
  std::uint32_t epoch = 0;
  std::uint64_t sample = 0;
  std::uint8_t view = 0;
};

// Uniform in [0, 1), 32 bits fine.
double Uniform(const DrawKey& key, Operation operation, std::uint16_t draw);

// The four words of one draw, each uniform over 32 bits: where every value of a sample needs a draw of its own.
std::array<std::uint32_t, 4> Words(const DrawKey& key, Operation operation, std::uint16_t draw);
// So many values have words of their own, four in a draw.
inline constexpr std::int64_t kMostValues = std::int64_t{4} << 16;

// Uniform integer in [0, n), n >= 1.
std::uint64_t Below(const DrawKey& key, Operation operation, std::uint16_t draw, std::uint64_t n);

}  // namespace vicreg::train
