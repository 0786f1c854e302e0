#include "worker/core/hang.h"

#include <algorithm>
#include <tuple>

namespace vicreg::worker {
namespace {

using std::chrono::milliseconds;
// Ranks of a gang that stopped within so long of each other stopped together.
constexpr milliseconds kTogether{3000};

const char* Name(v1::Progress::Phase phase) {
  switch (phase) {
    case v1::Progress::PHASE_STEP:
      return "a step";
    case v1::Progress::PHASE_EVALUATION:
      return "evaluation";
    case v1::Progress::PHASE_CHECKPOINT:
      return "a checkpoint";
    case v1::Progress::PHASE_LEAVING:
      return "its leaving";
    default:
      return "setting up";
  }
}

std::string Seconds(milliseconds time) { return std::to_string(time.count() / 1000) + " s"; }

}  // namespace

void ProgressWatch::Begin(TimePoint now) {
  begun_ = true;
  moved_ = heard_ = now;
}

void ProgressWatch::OnProgress(TimePoint now, const v1::Progress& progress) {
  heard_ = now;
  if (progress.written_bytes() > newest_.written_bytes()) moved_ = wrote_ = now;
  if (progress.phase() != newest_.phase() || progress.step() != newest_.step() || progress.units() != newest_.units() ||
      progress.collectives() != newest_.collectives())
    moved_ = now;
  if (progress.phase() == v1::Progress::PHASE_STEP && progress.slowest_ms() > 0) {
    longest_.emplace_back(progress.slowest_ms());
    if (longest_.size() > options_.window) longest_.pop_front();
  }
  // A resumed rank begins at the step it resumed from.
  if (newest_.step() > 0) steps_ += std::max<std::int64_t>(progress.step() - newest_.step(), 0);
  newest_ = progress;
}

void ProgressWatch::Forgive(TimePoint now) {
  if (begun_) moved_ = heard_ = now;
}

milliseconds ProgressWatch::Limit() const {
  switch (newest_.phase()) {
    case v1::Progress::PHASE_CHECKPOINT:
      return options_.checkpoint;
    case v1::Progress::PHASE_EVALUATION:
    case v1::Progress::PHASE_LEAVING:
      return options_.step;
    case v1::Progress::PHASE_STEP:
      break;
    default:
      return options_.setup;
  }
  if (steps_ < options_.known_after || longest_.empty()) return options_.step;
  std::vector<milliseconds> sorted(longest_.begin(), longest_.end());
  std::sort(sorted.begin(), sorted.end());
  const milliseconds p99 = sorted[(sorted.size() * 99 + 99) / 100 - 1];
  return std::max(2 * p99, std::min(options_.ceiling, std::max(options_.floor, 5 * p99)));
}

ProgressWatch::TimePoint ProgressWatch::Deadline() const { return begun_ ? moved_ + Limit() : TimePoint::max(); }

std::string ProgressWatch::Sentence(TimePoint now) const {
  return "no progress for " + Seconds(StandsStill(now)) + " after step " + std::to_string(newest_.step()) + ", in " +
         Name(newest_.phase()) + " (limit " + Seconds(Limit()) + ")" +
         (Silent(now) ? "; it has gone silent" : "; it still answers");
}

std::optional<std::size_t> Culprit(std::chrono::steady_clock::time_point now,
                                   const std::vector<const ProgressWatch*>& gang) {
  const auto to_blame = [&](const ProgressWatch& watch) {
    return !watch.newest().waits_for_peers() || watch.Silent(now);
  };
  if (std::none_of(gang.begin(), gang.end(),
                   [&](const ProgressWatch* w) { return w->Deadline() <= now && to_blame(*w); }))
    return std::nullopt;
  std::optional<std::size_t> worst;
  const auto rank = [&](const ProgressWatch& watch) {
    const v1::Progress& at = watch.newest();
    return std::tuple(at.step(), at.waits_for_peers(), !watch.Silent(now), at.collectives());
  };
  for (std::size_t i = 0; i < gang.size(); ++i) {
    const ProgressWatch& watch = *gang[i];
    if (!watch.begun() || watch.StandsStill(now) + kTogether < watch.Limit() || !to_blame(watch)) continue;
    if (!worst || rank(watch) < rank(*gang[*worst])) worst = i;
  }
  return worst;
}

}  // namespace vicreg::worker
