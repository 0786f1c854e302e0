// Goal: a rank that stands still is found in time, the guilty one is named, and slowness alone is nobody's fault.
// Method: the pure watch with made-up time, one table per rule.

#include "worker/core/hang.h"

#include <gtest/gtest.h>

namespace vicreg::worker {
namespace {

using std::chrono::milliseconds;
using TimePoint = ProgressWatch::TimePoint;
using Phase = v1::Progress;

const TimePoint kBegin{std::chrono::hours(1)};

v1::Progress At(v1::Progress::Phase phase, std::int64_t step, int slowest_ms = 0, bool waits = false,
                std::int64_t collectives = 0) {
  v1::Progress progress;
  progress.set_phase(phase);
  progress.set_step(step);
  progress.set_units(step);
  progress.set_slowest_ms(slowest_ms);
  progress.set_waits_for_peers(waits);
  progress.set_collectives(collectives);
  return progress;
}

// After `steps` reports, a step each, of `step_ms`; the newest at kBegin.
ProgressWatch Stepping(int step_ms, int steps = 100, bool waits = false, std::int64_t collectives = 0) {
  ProgressWatch watch;
  watch.Begin(kBegin - std::chrono::minutes(30));
  for (int i = 1; i <= steps; ++i)
    watch.OnProgress(kBegin - milliseconds(steps - i), At(Phase::PHASE_STEP, i, step_ms, waits, collectives));
  return watch;
}

TEST(ProgressWatch, LimitFollowsTheSlowestStepsBetweenItsBounds) {
  const struct {
    const char* rule;
    int p99_ms, limit_ms;
  } rows[] = {
      {"five times covers noise, but never less than 10 s", 100, 10'000},
      {"five times", 4'000, 20'000},
      {"not more than 300 s", 100'000, 300'000},
      {"but a slow-down to twice always passes", 200'000, 400'000},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.rule);
    EXPECT_EQ(Stepping(row.p99_ms).Limit(), milliseconds(row.limit_ms));
  }
}

TEST(ProgressWatch, UntilTwentyStepsAreKnownAStepHasABudget) {
  EXPECT_EQ(Stepping(100, 20).Limit(), milliseconds(180'000)) << "the first report says where it stands: 19 steps seen";
  EXPECT_EQ(Stepping(100, 21).Limit(), milliseconds(10'000));
}

TEST(ProgressWatch, EachPhaseHasItsOwnBudgetHoweverFastStepsAre) {
  ProgressWatch watch = Stepping(100);
  const struct {
    v1::Progress::Phase phase;
    milliseconds limit;
  } rows[] = {
      {Phase::PHASE_SETUP, milliseconds(600'000)},      {Phase::PHASE_STEP, milliseconds(10'000)},
      {Phase::PHASE_EVALUATION, milliseconds(180'000)}, {Phase::PHASE_CHECKPOINT, milliseconds(420'000)},
      {Phase::PHASE_LEAVING, milliseconds(180'000)},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.phase);
    watch.OnProgress(kBegin, At(row.phase, 100));
    EXPECT_EQ(watch.Limit(), row.limit);
  }
}

TEST(ProgressWatch, LifeAloneIsNoProgressAndEveryKindOfWorkIs) {
  const v1::Progress same = At(Phase::PHASE_STEP, 100);
  v1::Progress batch = same, collective = same, phase = same, bytes = same;
  bytes.set_written_bytes(1);
  batch.set_units(101);
  collective.set_collectives(1);
  phase.set_phase(Phase::PHASE_EVALUATION);
  for (const auto& [moved, progress] :
       {std::pair{false, same}, {true, batch}, {true, collective}, {true, phase}, {true, bytes}}) {
    ProgressWatch watch = Stepping(100);
    watch.OnProgress(kBegin + milliseconds(9000), progress);
    EXPECT_EQ(watch.StandsStill(kBegin + milliseconds(9000)), milliseconds(moved ? 0 : 9000));
  }
}

TEST(ProgressWatch, ForgivenTimeDoesNotCount) {
  ProgressWatch watch = Stepping(100);
  watch.Forgive(kBegin + milliseconds(60'000));
  EXPECT_EQ(watch.Deadline(), kBegin + milliseconds(70'000));
  EXPECT_FALSE(watch.Silent(kBegin + milliseconds(64'999)));
  EXPECT_TRUE(watch.Silent(kBegin + milliseconds(65'000)));
}

// `last` at which each reported last; all stand still since kBegin.
std::optional<std::size_t> Blamed(TimePoint now, std::vector<ProgressWatch> gang, const std::vector<int>& heard_ms) {
  std::vector<const ProgressWatch*> watches;
  for (std::size_t i = 0; i < gang.size(); ++i) {
    for (int ms = 1000; ms <= heard_ms[i]; ms += 1000) {
      v1::Progress again = gang[i].newest();
      again.set_slowest_ms(0);
      gang[i].OnProgress(kBegin + milliseconds(ms), again);
    }
    watches.push_back(&gang[i]);
  }
  return Culprit(now, watches);
}

TEST(Culprit, IsNobodyBeforeTheLimit) {
  EXPECT_EQ(Blamed(kBegin + milliseconds(9999), {Stepping(100), Stepping(100)}, {0, 0}), std::nullopt);
  EXPECT_NE(Blamed(kBegin + milliseconds(10'000), {Stepping(100), Stepping(100)}, {0, 0}), std::nullopt);
}

TEST(Culprit, IsTheOneOutsideTheCollectiveNotItsWaitingPeers) {
  const TimePoint later = kBegin + milliseconds(10'000);
  EXPECT_EQ(Blamed(later, {Stepping(100, 100, true), Stepping(100)}, {10'000, 10'000}), 1u);
  EXPECT_EQ(Blamed(later, {Stepping(100), Stepping(100, 100, true)}, {10'000, 10'000}), 0u);
}

TEST(Culprit, IsTheSilentOneWhenAllAreInsideACollective) {
  const TimePoint later = kBegin + milliseconds(10'000);
  EXPECT_EQ(Blamed(later, {Stepping(100, 100, true), Stepping(100, 100, true)}, {10'000, 0}), 1u);
  EXPECT_EQ(Blamed(later, {Stepping(100, 100, true), Stepping(100, 100, true)}, {10'000, 10'000}), std::nullopt)
      << "the guilty one is on another node";
}

TEST(Culprit, IsTheOneWithTheLowestStepAmongThoseThatStopped) {
  EXPECT_EQ(Blamed(kBegin + milliseconds(12'000), {Stepping(100, 100), Stepping(100, 99), Stepping(100, 100)},
                   {12'000, 12'000, 12'000}),
            1u);
}

TEST(Culprit, IsTheOneBehindInCollectivesWhereNothingElseTells) {
  EXPECT_EQ(Blamed(kBegin + milliseconds(12'000), {Stepping(100, 100, false, 7), Stepping(100, 100, false, 6)},
                   {12'000, 12'000}),
            1u);
}

TEST(Culprit, IsNotARankThatStillMoves) {
  ProgressWatch moves = Stepping(100);
  const TimePoint later = kBegin + milliseconds(12'000);
  moves.OnProgress(later, At(Phase::PHASE_STEP, 101));
  const ProgressWatch stands = Stepping(100);
  EXPECT_EQ(Culprit(later, {&moves, &stands}), 1u);
}

TEST(Culprit, MayTakeItsTimeToSetUp) {
  ProgressWatch watch;
  watch.Begin(kBegin);
  EXPECT_EQ(Culprit(kBegin + milliseconds(599'999), {&watch}), std::nullopt);
  EXPECT_EQ(Culprit(kBegin + milliseconds(600'000), {&watch}), 0u);
}

}  // namespace
}  // namespace vicreg::worker
