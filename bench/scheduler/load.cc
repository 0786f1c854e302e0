#include <random>
#include <stdexcept>

#include "bench/scheduler/cluster.h"
#include "bench/scheduler/modes.h"
#include "bench/scheduler/workload.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;

constexpr std::uint32_t kSeed = 20260101;
constexpr int kNodesOfARack = 20;

double Since(core::TimePoint begin, core::TimePoint end) { return std::chrono::duration<double>(end - begin).count(); }

// Beyond 1,000 nodes the timers of nodes stretch.
core::Options OptionsFor(int nodes) {
  core::Options options;
  if (nodes > 1000) {
    options.suspect *= 5;
    options.lost *= 5;
  }
  return options;
}
Cluster::Milliseconds HeartbeatFor(int nodes) { return std::chrono::seconds(nodes > 1000 ? 10 : 2); }

// One of `sizes` by their weights.
class Mix {
 public:
  Mix(std::vector<int> sizes, const std::vector<double>& weights)
      : sizes_(std::move(sizes)), which_(weights.begin(), weights.end()) {}
  int operator()(std::mt19937& draw) { return sizes_[static_cast<std::size_t>(which_(draw))]; }

 private:
  std::vector<int> sizes_;
  std::discrete_distribution<int> which_;
};

}  // namespace

json Gangs(const json& settings, const std::string& folder) {
  const int nodes = settings.at("nodes"), gangs = settings.at("gangs");
  Cluster cluster(folder, OptionsFor(nodes));
  cluster.AddNodes(nodes, 8, kNodesOfARack, HeartbeatFor(nodes));
  std::mt19937 draw(kSeed);
  Mix mix({4, 8, 16, 64}, {2, 5, 2, 1});
  const core::TimePoint begin = cluster.now();
  int ranks = 0, placed = 0, launched = 0;
  for (int i = 0; i < gangs; ++i) {
    const int world = mix(draw);
    ranks += world;
    cluster.Submit(begin, JobOf(world), IdOf(i));
  }
  if (ranks > nodes * 8) throw std::runtime_error("more ranks than slots: lower gangs");
  core::TimePoint all_placed = begin;
  cluster.on_placed = [&](const core::Job&) {
    if (++placed == gangs) all_placed = cluster.now();
  };
  cluster.on_launch = [&](const core::Job&) { ++launched; };
  cluster.Run([&] { return launched == gangs; });
  return {{"gangs", gangs},
          {"ranks", ranks},
          {"placed_per_second", gangs / Since(begin, all_placed)},
          {"launched_per_second", gangs / Since(begin, cluster.now())}};
}

json Latency(const json& settings, const std::string& folder) {
  const int nodes = settings.at("nodes"), queued = settings.at("queued"), samples = settings.at("samples");
  Cluster cluster(folder, OptionsFor(nodes));
  cluster.AddNodes(nodes, 8, kNodesOfARack, HeartbeatFor(nodes));
  std::mt19937 draw(kSeed);
  Mix mix({1, 2, 4, 8, 16}, {3, 2, 2, 2, 1});
  int submitted = 0;
  const auto submit = [&] {
    core::Job job = JobOf(mix(draw));
    job.project = "project-" + std::to_string(draw() % 20);
    job.priority = static_cast<int>(draw() % 5);
    cluster.Submit(cluster.now(), job, IdOf(submitted++));
  };
  std::vector<std::string> running;
  cluster.on_launch = [&](const core::Job& job) { running.push_back(job.id); };
  int ended = 0;
  const auto waiting = [&] { return submitted - ended - static_cast<int>(running.size()); };
  const auto fill = [&] {
    while (waiting() < queued) submit();
    cluster.Settle();
  };
  // Until what is submitted finds no slot any more.
  while (waiting() < queued) fill();
  std::vector<double> times;
  double busy = 0;
  while (static_cast<int>(times.size()) < samples) {
    std::swap(running[draw() % running.size()], running.back());
    const std::string id = running.back();
    running.pop_back();
    ++ended;
    const core::TimePoint begin = cluster.now();
    const double before = cluster.busy_seconds();
    const std::size_t others = running.size();
    core::TimePoint launched{};
    cluster.on_launch = [&](const core::Job& job) {
      if (running.size() == others) launched = cluster.now();
      running.push_back(job.id);
    };
    cluster.Complete(begin, id);
    cluster.Settle();
    // What it leaves may be kept for a wider gang: then nobody starts yet.
    if (running.size() > others) times.push_back(Since(begin, launched));
    busy += cluster.busy_seconds() - before;
    fill();
  }
  json answer = Quantiles(times);
  answer["queued"] = waiting();
  answer["running"] = running.size();
  answer["decisions_per_second"] = static_cast<double>(times.size()) / busy;
  return answer;
}

json Misfits(const json& settings, const std::string& folder) {
  const int nodes = settings.at("nodes"), queued = settings.at("queued"), samples = settings.at("samples");
  Cluster cluster(folder, OptionsFor(nodes));
  cluster.AddNodes(nodes, 8, kNodesOfARack, HeartbeatFor(nodes));
  int submitted = 0;
  for (int i = 0; i < queued; ++i) cluster.Submit(cluster.now(), JobOf(nodes * 8 + 1 + i), IdOf(submitted++));
  cluster.Settle();
  std::vector<double> times;
  bool launched = false;
  cluster.on_launch = [&](const core::Job&) { launched = true; };
  while (static_cast<int>(times.size()) < samples) {
    launched = false;
    const std::string id = IdOf(submitted++);
    const core::TimePoint begin = cluster.now();
    cluster.Submit(begin, JobOf(8), id);
    cluster.Run([&] { return launched; });
    times.push_back(Since(begin, cluster.now()));
    cluster.Settle();
    cluster.Complete(cluster.now(), id);
    cluster.Settle();
  }
  return Quantiles(times);
}

}  // namespace vicreg::bench
