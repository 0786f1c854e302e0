#include "worker/train/data/draw.h"

#include <Random123/philox.h>

namespace vicreg::train {
namespace {

// Counter: sample 64 bits, epoch 32, view 8, operation 8, draw 16.
r123::Philox4x32::ctr_type Philox(const DrawKey& key, Operation operation, std::uint16_t draw) {
  const r123::Philox4x32::ctr_type counter = {
      {static_cast<std::uint32_t>(key.sample), static_cast<std::uint32_t>(key.sample >> 32), key.epoch,
       (std::uint32_t{key.view} << 24) | (static_cast<std::uint32_t>(operation) << 16) | draw}};
  const r123::Philox4x32::key_type philox_key = {
      {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)}};
  return r123::Philox4x32()(counter, philox_key);
}

}  // namespace

double Uniform(const DrawKey& key, Operation operation, std::uint16_t draw) {
  return static_cast<double>(Philox(key, operation, draw)[0]) * 0x1p-32;
}

std::array<std::uint32_t, 4> Words(const DrawKey& key, Operation operation, std::uint16_t draw) {
  const auto words = Philox(key, operation, draw);
  return {words[0], words[1], words[2], words[3]};
}

std::uint64_t Below(const DrawKey& key, Operation operation, std::uint16_t draw, std::uint64_t n) {
  const auto words = Philox(key, operation, draw);
  const std::uint64_t bits = (std::uint64_t{words[1]} << 32) | words[0];
  // Multiply-shift: a bias of n / 2^64 at most.
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits) * n) >> 64);
}

}  // namespace vicreg::train
