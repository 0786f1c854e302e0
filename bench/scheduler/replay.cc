#include <unordered_map>

#include "bench/scheduler/cluster.h"
#include "bench/scheduler/modes.h"
#include "bench/scheduler/workload.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;

// One class of workloads: each of its queues creates one every `every`.
struct Kind {
  std::string name;
  int count = 0;
  Cluster::Milliseconds every, runs;
  core::Job job;
  double waited = 0, longest = 0;
};

struct Arrival {
  Kind* kind;
  core::TimePoint when;
};

}  // namespace

json Replay(const json& settings, const std::string& folder) {
  const int cohorts = settings.at("cohorts"), queues = settings.at("queues"), nominal = settings.at("nominal");
  Cluster cluster(folder, {});
  // The cohorts' capacity together, a node for each queue's share.
  cluster.AddNodes(cohorts * queues, nominal, queues, std::chrono::seconds(2));
  std::vector<std::string> projects;
  for (int i = 0; i < cohorts * queues; ++i) {
    core::Project project;
    project.name = "queue-" + std::to_string(i);
    project.cpu_quota = nominal + settings.at("borrowing").get<int>();
    projects.push_back(project.name);
    cluster.At(cluster.now(), [project](core::Transaction& tx) { core::SetProject(tx, project).IgnoreError(); });
  }
  cluster.Settle();

  std::vector<Kind> kinds;
  for (const json& wanted : settings.at("classes")) {
    Kind kind{wanted.at("name"), wanted.at("count"), Cluster::Milliseconds(wanted.at("every_ms")),
              Cluster::Milliseconds(wanted.at("runs_ms")), JobOf(wanted.at("slots"))};
    kind.job.priority = wanted.at("priority");
    kind.job.topology = {core::Level::kAny, false};
    kinds.push_back(std::move(kind));
  }
  const core::TimePoint begin = cluster.now();
  std::unordered_map<std::string, Arrival> arrivals;
  for (Kind& kind : kinds) {
    for (int i = 1; i <= kind.count; ++i) {
      for (const std::string& project : projects) {
        const std::string id = IdOf(static_cast<int>(arrivals.size()));
        kind.job.project = project;
        arrivals[id] = {&kind, begin + kind.every * i};
        cluster.Submit(begin + kind.every * i, kind.job, id);
      }
    }
  }
  cluster.on_launch = [&](const core::Job& job) {
    const auto& [kind, when] = arrivals.at(job.id);
    const double waited = std::chrono::duration<double>(cluster.now() - when).count();
    kind->waited += waited;
    kind->longest = std::max(kind->longest, waited);
    cluster.Complete(cluster.now() + kind->runs, job.id);
  };
  std::size_t ended = 0;
  cluster.on_ended = [&](const core::Job&) { ++ended; };
  const double busy = cluster.busy_seconds();
  cluster.Run([&] { return ended == arrivals.size(); });
  json waits, longest;
  for (const Kind& kind : kinds) {
    waits[kind.name] = kind.waited / static_cast<double>(kind.count) / static_cast<double>(projects.size());
    longest[kind.name] = kind.longest;
  }
  return {{"jobs", ended},
          {"makespan", std::chrono::duration<double>(cluster.now() - begin).count()},
          {"busy", cluster.busy_seconds() - busy},
          {"batches", cluster.batches()},
          {"commands", cluster.commands()},
          {"waits", waits},
          {"longest", longest}};
}

}  // namespace vicreg::bench
