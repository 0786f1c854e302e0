#pragma once

#include <chrono>
#include <cstdint>

namespace vicreg::simulation {

// Every draw of a run comes from one of these, so that a seed replays it. splitmix64: small, and no two standard
// libraries disagree about it.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t Next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 .. below-1
  int Draw(int below) { return static_cast<int>(Next() % static_cast<std::uint64_t>(below)); }
  bool Chance(int percent) { return Draw(100) < percent; }
  std::chrono::microseconds Between(std::chrono::microseconds least, std::chrono::microseconds most) {
    return least + std::chrono::microseconds(Next() % static_cast<std::uint64_t>((most - least).count() + 1));
  }

 private:
  std::uint64_t state_;
};

}  // namespace vicreg::simulation
