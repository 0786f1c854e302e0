#include "common/clock.h"

namespace vicreg {
namespace {

class RealClock : public Clock {
 public:
  TimePoint SteadyNow() const override { return std::chrono::steady_clock::now(); }
  std::int64_t WallMicros() const override {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace

const Clock& SystemClock() {
  static const RealClock clock;
  return clock;
}

}  // namespace vicreg
