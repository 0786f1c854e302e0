#pragma once

// Simulated time: what is to happen, in order. One thread; equal times keep the order in which they were said.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace vicreg::simulation {

using TimePoint = std::chrono::steady_clock::time_point;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

class Events {
 public:
  TimePoint now() const { return now_; }
  std::int64_t count() const { return count_; }

  void At(TimePoint when, std::function<void()> act) {
    heap_.push_back({std::max(when, now_), next_++, std::move(act)});
    std::push_heap(heap_.begin(), heap_.end());
  }
  void After(std::chrono::nanoseconds delay, std::function<void()> act) { At(now_ + delay, std::move(act)); }

  // Lets the next thing happen; false: there is none.
  bool Next() {
    if (heap_.empty()) return false;
    std::pop_heap(heap_.begin(), heap_.end());
    const Event event = std::move(heap_.back());
    heap_.pop_back();
    now_ = event.when;
    ++count_;
    event.act();
    return true;
  }

 private:
  struct Event {
    TimePoint when;
    std::uint64_t order;
    std::function<void()> act;
    // The heap's top is the largest.
    bool operator<(const Event& other) const { return when != other.when ? when > other.when : order > other.order; }
  };
  TimePoint now_{seconds(1000)};
  std::uint64_t next_ = 0;
  std::int64_t count_ = 0;
  std::vector<Event> heap_;
};

// What happened, as lines; always hashed, kept when somebody will read them.
class Trace {
 public:
  explicit Trace(bool keep) : keep_(keep) {}
  void Add(TimePoint now, const std::string& line) {
    Mix(static_cast<std::uint64_t>(now.time_since_epoch().count()));
    for (const char c : line) Mix(static_cast<unsigned char>(c));
    if (!keep_) return;
    const auto ms = std::chrono::duration_cast<milliseconds>(now.time_since_epoch()).count() - 1'000'000;
    const std::string fraction = std::to_string(1000 + ms % 1000).substr(1);
    lines_.push_back(std::to_string(ms / 1000) + "." + fraction + "  " + line);
  }
  std::uint64_t hash() const { return hash_; }
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  // FNV-1a.
  void Mix(std::uint64_t value) { hash_ = (hash_ ^ value) * 0x100000001b3; }
  const bool keep_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::vector<std::string> lines_;
};

}  // namespace vicreg::simulation
