// vicreg-simulate: whole clusters in simulated time, by seed; see docs/operations/simulation.md.

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <map>
#include <mutex>
#include <regex>
#include <thread>

#include "common/planted.h"
#include "tests/simulation/plants.h"
#include "tests/simulation/shrink.h"

namespace vicreg::simulation {
namespace {

struct Flags {
  std::string seeds = "1-100", plant;
  std::string keep_text;
  std::vector<std::size_t> keep;
  bool list_plants = false, verbose = false, keep_given = false;
  int threads = 0, most_failures = 1;
};

struct Sums {
  std::uint64_t seeds = 0;
  std::int64_t events = 0;
  double hours = 0;
};

void Explain(const Plan& plan, const Outcome& outcome, const Flags& flags) {
  const std::vector<std::size_t> steps = flags.keep_given ? flags.keep : Shrink(plan);
  const Plan smallest = flags.keep_given ? plan : Keep(plan, steps);
  const Outcome again = Run(smallest, true);
  std::printf("seed %llu broke: %s\n", static_cast<unsigned long long>(plan.seed), outcome.wrong.front().c_str());
  std::printf("trace of the %zu steps that are enough:\n", smallest.steps.size());
  for (const std::string& line : again.trace) std::printf("  %s\n", line.c_str());
  std::string kept;
  for (const std::size_t i : steps) kept += (kept.empty() ? "" : ",") + std::to_string(i);
  std::printf("trace hash %016llx; replay: vicreg-simulate --seeds %llu-%llu%s --keep \"%s\" --verbose\n",
              static_cast<unsigned long long>(again.hash), static_cast<unsigned long long>(plan.seed),
              static_cast<unsigned long long>(plan.seed),
              flags.plant.empty() ? "" : (" --plant " + flags.plant).c_str(), kept.c_str());
}

int Simulate(std::uint64_t first, std::uint64_t last, const Flags& flags) {
  std::atomic<std::uint64_t> next{first};
  std::mutex mutex;
  Sums sums;
  std::map<std::uint64_t, Outcome> failures;
  const auto work = [&] {
    while (true) {
      const std::uint64_t seed = next++;
      if (seed > last) return;
      {
        const std::lock_guard lock(mutex);
        if (static_cast<int>(failures.size()) >= flags.most_failures) return;
      }
      Plan plan = MakePlan(seed);
      if (flags.keep_given) plan = Keep(plan, flags.keep);
      Outcome outcome = Run(plan, false);
      const std::lock_guard lock(mutex);
      ++sums.seeds;
      sums.events += outcome.events;
      sums.hours += outcome.hours;
      if (flags.verbose) {
        std::printf("seed %llu: trace hash %016llx, %lld events, %s\n", static_cast<unsigned long long>(seed),
                    static_cast<unsigned long long>(outcome.hash), static_cast<long long>(outcome.events),
                    outcome.wrong.empty() ? "fine" : outcome.wrong.front().c_str());
      }
      if (!outcome.wrong.empty()) failures[seed] = std::move(outcome);
    }
  };
  std::vector<std::thread> threads;
  const int count = flags.threads > 0 ? flags.threads : static_cast<int>(std::thread::hardware_concurrency());
  for (int i = 1; i < count; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  for (const auto& [seed, outcome] : failures) {
    Plan plan = MakePlan(seed);
    if (flags.keep_given) plan = Keep(plan, flags.keep);
    Explain(plan, outcome, flags);
    break;  // one at a time; the others are named below
  }
  std::string named;
  for (const auto& [seed, outcome] : failures) named += " " + std::to_string(seed);
  std::printf("%llu seeds, %lld events, %.1f simulated hours, %zu violations%s%s\n",
              static_cast<unsigned long long>(sums.seeds), static_cast<long long>(sums.events), sums.hours,
              failures.size(), failures.empty() ? "" : ": seeds", named.c_str());
  return failures.empty() ? 0 : 1;
}

}  // namespace
}  // namespace vicreg::simulation

int main(int argc, char** argv) {
  using namespace vicreg::simulation;
  Flags flags;
  CLI::App app(
      "Runs whole clusters in simulated time and checks what must hold. A failing seed is printed as small as "
      "it was found, and replays.",
      "vicreg-simulate");
  app.add_option("--seeds", flags.seeds, "A-B: the seeds A to B")->capture_default_str();
  app.add_option("--plant", flags.plant, "Run with this bug planted (--list-plants)");
  app.add_flag("--list-plants", flags.list_plants, "Print the bugs that can be planted");
  app.add_flag("--verbose", flags.verbose, "A line for each seed, with its trace hash");
  app.add_option("--threads", flags.threads, "Default: one for each core");
  app.add_option("--failures", flags.most_failures, "Go on until this many seeds have failed")->capture_default_str();
  const CLI::Option* keep = app.add_option("--keep", flags.keep_text, "Only these steps of the plan: A,B,C");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  flags.keep_given = keep->count() > 0;
  if (!std::regex_match(flags.keep_text, std::regex("([0-9]{1,6}(,[0-9]{1,6})*)?"))) {
    std::fprintf(stderr, "vicreg-simulate: --keep: found \"%s\"; expected numbers with commas\n",
                 flags.keep_text.c_str());
    return 2;
  }
  for (std::size_t at = 0; at < flags.keep_text.size(); at = flags.keep_text.find(',', at) + 1) {
    flags.keep.push_back(std::stoul(flags.keep_text.substr(at)));
    if (flags.keep_text.find(',', at) == std::string::npos) break;
  }
  if (flags.list_plants) {
    for (const PlantInfo& plant : Plants()) std::printf("%-28s %s\n", plant.name, plant.what);
    return 0;
  }
  if (!flags.plant.empty()) {
    const auto plant = FindPlant(flags.plant);
    if (!plant) {
      std::fprintf(stderr, "vicreg-simulate: --plant: no bug \"%s\"; --list-plants shows all\n", flags.plant.c_str());
      return 2;
    }
    vicreg::planted = *plant;
  }
  std::smatch range;
  if (!std::regex_match(flags.seeds, range, std::regex("([0-9]{1,18})-([0-9]{1,18})")) ||
      std::stoull(range[1]) > std::stoull(range[2])) {
    std::fprintf(stderr, "vicreg-simulate: --seeds: found \"%s\"; expected A-B with A <= B\n", flags.seeds.c_str());
    return 2;
  }
  return Simulate(std::stoull(range[1]), std::stoull(range[2]), flags);
}
