// Goal: the simulation tells the truth: a seed replays, a failure shrinks to something that fails alike, and a bug in
// the decisions does not get past it. Method: runs by seed; every bug of plants.h planted in turn.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "tests/simulation/plants.h"
#include "tests/simulation/shrink.h"

namespace vicreg::simulation {
namespace {

// With the bug in place while it lives.
struct Planting {
  explicit Planting(Plant plant) { planted = plant; }
  ~Planting() { planted = Plant::kNone; }
};

constexpr std::uint64_t kPlantSeeds = 8000;

std::optional<std::uint64_t> FirstCaught() {
  for (std::uint64_t seed = 1; seed <= kPlantSeeds; ++seed) {
    if (!simulation::Run(MakePlan(seed), false).wrong.empty()) return seed;
  }
  return std::nullopt;
}

TEST(Simulation, SameSeedGivesTheSameTrace) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const Outcome first = simulation::Run(MakePlan(seed), true), second = simulation::Run(MakePlan(seed), true);
    ASSERT_EQ(first.hash, second.hash) << "seed " << seed;
    EXPECT_EQ(first.trace, second.trace);
    EXPECT_EQ(first.events, second.events);
    // Keeping the lines changes nothing.
    EXPECT_EQ(simulation::Run(MakePlan(seed), false).hash, first.hash);
  }
}

TEST(Simulation, OtherSeedsGiveOtherTraces) {
  EXPECT_NE(simulation::Run(MakePlan(1), false).hash, simulation::Run(MakePlan(2), false).hash);
}

TEST(Simulation, FailingSeedShrinksAndReplays) {
  const Planting planting(Plant::kAnswerBeforeCommit);
  const auto seed = FirstCaught();
  ASSERT_TRUE(seed);
  const Plan plan = MakePlan(*seed);
  const std::vector<std::size_t> steps = Shrink(plan);
  EXPECT_LT(steps.size(), plan.steps.size());
  const Plan smallest = Keep(plan, steps);
  const Outcome first = simulation::Run(smallest, true), second = simulation::Run(smallest, true);
  ASSERT_FALSE(first.wrong.empty());
  EXPECT_EQ(first.wrong, second.wrong);
  EXPECT_EQ(first.hash, second.hash);
  EXPECT_EQ(first.trace, second.trace);
}

class PlantedBug : public ::testing::TestWithParam<PlantInfo> {};

TEST_P(PlantedBug, IsCaught) {
  const Planting planting(GetParam().plant);
  const auto seed = FirstCaught();
  ASSERT_TRUE(seed) << GetParam().what << ": not found in " << kPlantSeeds << " seeds";
  const Outcome outcome = simulation::Run(MakePlan(*seed), false);
  std::cout << GetParam().name << ": seed " << *seed << ": " << outcome.wrong.front() << "\n";
}

INSTANTIATE_TEST_SUITE_P(Simulation, PlantedBug, ::testing::ValuesIn(Plants().begin(), Plants().end()),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace vicreg::simulation
