#pragma once

// Does a rank stand still, and which one is to blame? A rank proves that it moves by steps, evaluation batches,
// checkpoints, their bytes and collectives, never by mere life. Pure.
//
// How long it may stand still: until 20 steps are known, 600 s to set up, 180 s for a step or an evaluation batch,
// 420 s for a checkpoint, 180 s to leave once nothing it said waits for the coordinator; then, for steps, max(2 p99,
// min(300 s, max(10 s, 5 p99))) of the longest step of each report.
//
// Traps: a rank inside a collective waits for others, so it is to blame only when it has gone silent too (each second
// it says where it is); if none is, the guilty one is on another node, and the collective's own time limit is the
// bound. Time in which the worker itself did not run or did not read counts against nobody: Forgive.

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "vicreg/v1/rank_service.pb.h"

namespace vicreg::worker {

struct HangOptions {
  std::chrono::milliseconds setup{600'000}, step{180'000}, checkpoint{420'000};
  std::chrono::milliseconds floor{10'000}, ceiling{300'000};
  std::int64_t known_after = 20;           // steps
  std::size_t window = 128;                // reports whose longest step is remembered
  std::chrono::milliseconds silent{5000};  // without a report: not even its control thread runs
};

class ProgressWatch {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit ProgressWatch(const HangOptions& options = {}) : options_(options) {}

  // Of a process that has just been started or found.
  void Begin(TimePoint now);
  bool begun() const { return begun_; }
  void OnProgress(TimePoint now, const v1::Progress& progress);
  // As if it had moved just now.
  void Forgive(TimePoint now);

  // In its present phase.
  std::chrono::milliseconds Limit() const;
  TimePoint Deadline() const;
  // Of a checkpoint, within the last `while_ago`.
  bool Wrote(TimePoint now, std::chrono::milliseconds while_ago) const {
    return newest_.phase() == v1::Progress::PHASE_CHECKPOINT && wrote_ != TimePoint{} && now - wrote_ <= while_ago;
  }
  // Training is over, and how it ended is known to it.
  bool Leaves() const { return newest_.phase() == v1::Progress::PHASE_LEAVING; }
  bool Silent(TimePoint now) const { return now - heard_ >= options_.silent; }
  std::chrono::milliseconds StandsStill(TimePoint now) const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(now - moved_);
  }
  const v1::Progress& newest() const { return newest_; }
  // "no progress for 12 s after step 50, in a step (limit 10 s); it has gone silent"
  std::string Sentence(TimePoint now) const;

 private:
  HangOptions options_;
  bool begun_ = false;
  v1::Progress newest_;
  TimePoint moved_{}, heard_{}, wrote_{};
  std::int64_t steps_ = 0;                         // seen finished
  std::deque<std::chrono::milliseconds> longest_;  // of steps, one of each report, newest last
};

// Of the ranks of one attempt that a worker holds: the position of the one that hangs. Lowest step first, then the one
// outside the collective, then a silent one, then the one behind in collectives. nullopt: nobody, or the guilty one is
// elsewhere.
std::optional<std::size_t> Culprit(std::chrono::steady_clock::time_point now,
                                   const std::vector<const ProgressWatch*>& gang);

}  // namespace vicreg::worker
