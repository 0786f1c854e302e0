#pragma once

#include <chrono>
#include <cstdint>

namespace vicreg {

using TimePoint = std::chrono::steady_clock::time_point;

// Time as seen by the shells: steady for timeouts, wall for display only. Thread-safe. Decisions never see a clock,
// they are given `now`.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint SteadyNow() const = 0;
  // Unix microseconds.
  virtual std::int64_t WallMicros() const = 0;
};

// The machine's. Lives for ever.
const Clock& SystemClock();

}  // namespace vicreg
