#pragma once

#include <atomic>
#include <chrono>

#include "common/clock.h"

namespace vicreg::testing {

// A clock that moves only when told to. Thread-safe.
class FakeClock : public Clock {
 public:
  TimePoint SteadyNow() const override { return TimePoint(std::chrono::nanoseconds(nanos_.load())); }
  std::int64_t WallMicros() const override { return 1'700'000'000'000'000 + nanos_.load() / 1000; }
  void Advance(std::chrono::nanoseconds by) { nanos_ += by.count(); }

 private:
  std::atomic<std::int64_t> nanos_{1'000'000'000};
};

}  // namespace vicreg::testing
