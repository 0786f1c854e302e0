#pragma once

// /metrics: Prometheus text made from an immutable view of the cluster. Labels are enum names in lower case, job_id and
// worker; never step, attempt, rank, path or user.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/telemetry/history.h"
#include "coordinator/telemetry/verdict.h"

namespace vicreg::telemetry {

struct JobView {
  std::string id, name, project, preset, state;  // state in lower case
  Verdict verdict;
  std::int64_t total_steps = 0;
  std::optional<v1::MetricRow> last;
  std::vector<double> step_seconds;  // of the last 100 steps
  int slots_wanted = 0, slots_running = 0;
  std::map<std::string, std::int64_t> restarts;
  std::int64_t checkpoint_step = 0;
  std::optional<double> knn;
  std::int64_t ended_us = 0;  // 0: live
};

struct WorkerView {
  std::string name, state;
  double heartbeat_seconds = 0;                      // Unix time
  std::map<std::string, std::pair<int, int>> slots;  // kind -> total, used
  int ranks = 0;
};

struct ClusterView {
  std::vector<JobView> jobs;
  std::vector<WorkerView> workers;
  std::map<std::pair<std::string, std::string>, int> jobs_by_state;  // (state, reason)
  std::int64_t fenced_messages = 0, commits = 0, store_errors = 0;
  double commit_seconds = 0;
  bool store_degraded = false;
  std::int64_t refused_registrations = 0;
  double preemption_lost_slot_seconds = 0;
  std::map<std::string, std::int64_t> attempts;  // that ended, by outcome
  int ownerless_jobs = 0;
  double backup_seconds = 0;  // Unix time of the newest copy of the store; 0: none yet
  History::Counts rows;
  int watchers = 0;
};

// What a metric is, for the page and for docs/reference/metrics.md.
struct MetricInfo {
  const char* name;
  const char* kind;  // gauge or counter
  const char* labels;
  const char* help;
};
const std::vector<MetricInfo>& AllMetrics();

// Prometheus text format 0.0.4. Of ended jobs only those that ended less than 60 s before `now_us`; at most 1000 jobs,
// the newest.
std::string Expose(const ClusterView& view, std::int64_t now_us);

}  // namespace vicreg::telemetry
