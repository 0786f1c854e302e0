#include "coordinator/telemetry/exposition.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

#include "common/version.h"

namespace vicreg::telemetry {
namespace {

constexpr std::size_t kMaxJobs = 1000;
constexpr std::int64_t kKeepEndedUs = 60'000'000;

using Labels = std::vector<std::pair<std::string, std::string>>;

// Families in the order of AllMetrics, each once, so that no name prints its HELP twice.
class Page {
 public:
  Page() {
    for (const MetricInfo& info : AllMetrics()) {
      prometheus::MetricFamily family;
      family.name = info.name;
      family.help = info.help;
      family.type =
          std::string(info.kind) == "counter" ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
      index_[info.name] = families_.size();
      families_.push_back(std::move(family));
    }
  }

  void Set(const std::string& name, const Labels& labels, double value) {
    prometheus::MetricFamily& family = families_.at(index_.at(name));
    prometheus::ClientMetric metric;
    for (const auto& [key, text] : labels) metric.label.push_back({key, text});
    if (family.type == prometheus::MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family.metric.push_back(std::move(metric));
  }

  std::string Text() {
    std::erase_if(families_, [](const prometheus::MetricFamily& f) { return f.metric.empty(); });
    return prometheus::TextSerializer().Serialize(families_);
  }

 private:
  std::vector<prometheus::MetricFamily> families_;
  std::map<std::string, std::size_t> index_;
};

void ExposeRow(Page& page, const JobView& job, const std::string& id) {
  const v1::MetricRow& row = *job.last;
  const auto gauge = [&](const char* name, double value) {
    page.Set(std::string("vicreg_job_") + name, {{"job_id", id}}, value);
  };
  gauge("step", static_cast<double>(row.step()));
  gauge("epoch", row.epoch());
  gauge("loss", row.loss());
  const auto term = [&](const char* name, const char* form, double value) {
    page.Set("vicreg_job_loss_term", {{"job_id", id}, {"term", name}, {"form", form}}, value);
  };
  term("invariance", "raw", row.invariance());
  term("variance", "raw", row.variance());
  term("covariance", "raw", row.covariance());
  term("invariance", "weighted", row.invariance_weighted());
  term("variance", "weighted", row.variance_weighted());
  term("covariance", "weighted", row.covariance_weighted());
  gauge("covariance_noise_floor", row.covariance_noise_floor());
  page.Set("vicreg_job_embedding_std", {{"job_id", id}, {"stat", "mean"}}, row.z_std_mean());
  page.Set("vicreg_job_embedding_std", {{"job_id", id}, {"stat", "min"}}, row.z_std_min());
  gauge("embedding_below_target_ratio", row.z_std_below());
  gauge("grad_norm", row.grad_norm());
  gauge("learning_rate", row.learning_rate());
  gauge("images_per_second", row.images_per_second());
  gauge("progress_timestamp_seconds", static_cast<double>(row.time_us()) / 1e6);
}

void ExposeJob(Page& page, const JobView& job) {
  const Labels id = {{"job_id", job.id}};
  page.Set("vicreg_job_info",
           {{"job_id", job.id}, {"name", job.name}, {"project", job.project}, {"preset", job.preset}}, 1);
  page.Set("vicreg_job_state", {{"job_id", job.id}, {"state", job.state}}, 1);
  page.Set("vicreg_job_health", {{"job_id", job.id}, {"verdict", job.verdict.name}}, 1);
  if (job.total_steps > 0) page.Set("vicreg_job_target_step", id, static_cast<double>(job.total_steps));
  if (job.last) ExposeRow(page, job, job.id);
  if (!job.step_seconds.empty()) {
    std::vector<double> sorted = job.step_seconds;
    std::sort(sorted.begin(), sorted.end());
    page.Set("vicreg_job_step_seconds", {{"job_id", job.id}, {"stat", "median"}}, sorted[sorted.size() / 2]);
    page.Set("vicreg_job_step_seconds", {{"job_id", job.id}, {"stat", "p99"}}, sorted[(sorted.size() - 1) * 99 / 100]);
  }
  page.Set("vicreg_job_slots", {{"job_id", job.id}, {"kind", "wanted"}}, job.slots_wanted);
  page.Set("vicreg_job_slots", {{"job_id", job.id}, {"kind", "running"}}, job.slots_running);
  for (const auto& [cause, count] : job.restarts)
    page.Set("vicreg_job_restarts_total", {{"job_id", job.id}, {"cause", cause}}, static_cast<double>(count));
  if (job.checkpoint_step > 0) page.Set("vicreg_job_checkpoint_step", id, static_cast<double>(job.checkpoint_step));
  if (job.knn) page.Set("vicreg_job_eval_ratio", {{"job_id", job.id}, {"metric", "knn"}}, *job.knn);
}

void ExposeProcess(Page& page) {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  if (statm >> total >> resident)
    page.Set("process_resident_memory_bytes", {}, resident * static_cast<double>(sysconf(_SC_PAGESIZE)));
}

}  // namespace

const std::vector<MetricInfo>& AllMetrics() {
  static const std::vector<MetricInfo> metrics = {
      {"vicreg_build_info", "gauge", "version", "Always 1; the version of the coordinator."},
      {"vicreg_job_info", "gauge", "job_id, name, project, preset", "Always 1; what the job is called."},
      {"vicreg_job_state", "gauge", "job_id, state", "Always 1, for the job's current state."},
      {"vicreg_job_health", "gauge", "job_id, verdict",
       "Always 1, for the current verdict: warming_up, healthy, collapsed, not_invariant, redundant, diverging."},
      {"vicreg_job_step", "gauge", "job_id",
       "Newest finished step. Falls when a restart resumes from an older checkpoint."},
      {"vicreg_job_target_step", "gauge", "job_id", "Steps of the whole job."},
      {"vicreg_job_epoch", "gauge", "job_id", "Passes over the samples so far."},
      {"vicreg_job_loss", "gauge", "job_id", "Total loss of the newest step."},
      {"vicreg_job_loss_term", "gauge", "job_id, term, form",
       "Invariance, variance and covariance, raw and times their coefficients, summed over views."},
      {"vicreg_job_covariance_noise_floor", "gauge", "job_id",
       "Raw covariance that sampling alone gives at this batch size."},
      {"vicreg_job_embedding_std", "gauge", "job_id, stat",
       "Standard deviation per embedding dimension over the global batch, worse view; the target is 1. Near 0: "
       "collapse."},
      {"vicreg_job_embedding_below_target_ratio", "gauge", "job_id",
       "Share of embedding dimensions whose deviation is below the target."},
      {"vicreg_job_grad_norm", "gauge", "job_id", "Norm of the gradient after reduction."},
      {"vicreg_job_learning_rate", "gauge", "job_id", "Learning rate of the newest step."},
      {"vicreg_job_images_per_second", "gauge", "job_id", "Global-batch images per second of the newest step."},
      {"vicreg_job_step_seconds", "gauge", "job_id, stat", "Median and 99th percentile of the last 100 steps."},
      {"vicreg_job_slots", "gauge", "job_id, kind", "Slots wanted and running."},
      {"vicreg_job_restarts_total", "counter", "job_id, cause",
       "Attempts that ended and were followed by another, by cause."},
      {"vicreg_job_checkpoint_step", "gauge", "job_id", "Step of the newest committed checkpoint."},
      {"vicreg_job_progress_timestamp_seconds", "gauge", "job_id", "When the newest step finished (Unix time)."},
      {"vicreg_job_eval_ratio", "gauge", "job_id, metric", "Newest online accuracy, 0 to 1."},
      {"vicreg_coordinator_jobs", "gauge", "state, reason", "Jobs by state and reason, ended ones too."},
      {"vicreg_coordinator_queue_depth", "gauge", "reason", "Jobs that are queued, by what they wait for."},
      {"vicreg_coordinator_attempts_total", "counter", "outcome",
       "Attempts that ended since this coordinator began: completed, not_placed (a worker refused, or did not answer), "
       "or "
       "the reason of what came of it, such as crash, hang, node_lost, infra, preempted, cancel_requested, "
       "crash_loop."},
      {"vicreg_coordinator_ownerless_jobs", "gauge", "",
       "Live jobs that nothing is bound to end, as seen each 30 s. Not 0: a bug of ours; the log names them."},
      {"vicreg_coordinator_workers", "gauge", "state", "Registered workers by state."},
      {"vicreg_coordinator_slots", "gauge", "kind, state", "Slots of ready workers: total and used."},
      {"vicreg_coordinator_fenced_messages_total", "counter", "kind",
       "Messages of workers that were refused: stale (attempt or incarnation is not current; rising: look for a "
       "cut-off "
       "worker), inventory (it makes no sense)."},
      {"vicreg_coordinator_preemption_lost_slot_seconds_total", "counter", "",
       "Work of preempted gangs since their newest checkpoints, in seconds of a slot, since this coordinator began."},
      {"vicreg_coordinator_store_commits_total", "counter", "", "Transactions committed to the control store."},
      {"vicreg_coordinator_store_commit_seconds_total", "counter", "", "Time spent committing them."},
      {"vicreg_coordinator_store_errors_total", "counter", "", "Commits that failed. Rising: disk full or failing."},
      {"vicreg_coordinator_store_degraded", "gauge", "", "1 while the newest commit failed: nothing new is admitted."},
      {"vicreg_coordinator_backup_timestamp_seconds", "gauge", "",
       "When the store was copied last by this coordinator (Unix time); every 15 minutes."},
      {"vicreg_coordinator_metric_rows_total", "counter", "result",
       "Metric rows by result: committed, duplicate, fenced, gap."},
      {"vicreg_coordinator_watchers", "gauge", "", "Open streams of metrics, events, progress and logs."},
      {"vicreg_worker_up", "gauge", "worker", "1 while the worker is ready."},
      {"vicreg_worker_heartbeat_timestamp_seconds", "gauge", "worker", "When the worker was heard last (Unix time)."},
      {"vicreg_worker_slots", "gauge", "worker, kind, state", "Slots of the worker: total and used."},
      {"vicreg_worker_ranks", "gauge", "worker", "Ranks placed on the worker."},
      {"process_resident_memory_bytes", "gauge", "", "Resident memory of the coordinator."},
  };
  return metrics;
}

std::string Expose(const ClusterView& view, std::int64_t now_us) {
  Page page;
  page.Set("vicreg_build_info", {{"version", kVersion}}, 1);
  std::size_t exposed = 0;
  for (auto job = view.jobs.rbegin(); job != view.jobs.rend() && exposed < kMaxJobs; ++job) {
    if (job->ended_us != 0 && now_us - job->ended_us > kKeepEndedUs) continue;
    ExposeJob(page, *job);
    ++exposed;
  }
  for (const auto& [key, count] : view.jobs_by_state) {
    page.Set("vicreg_coordinator_jobs", {{"state", key.first}, {"reason", key.second}}, count);
    if (key.first == "queued") page.Set("vicreg_coordinator_queue_depth", {{"reason", key.second}}, count);
  }
  for (const auto& [outcome, count] : view.attempts)
    page.Set("vicreg_coordinator_attempts_total", {{"outcome", outcome}}, static_cast<double>(count));
  page.Set("vicreg_coordinator_ownerless_jobs", {}, view.ownerless_jobs);
  std::map<std::string, int> workers;
  std::map<std::pair<std::string, std::string>, int> slots;
  for (const WorkerView& worker : view.workers) {
    ++workers[worker.state];
    page.Set("vicreg_worker_up", {{"worker", worker.name}}, worker.state == "ready" ? 1 : 0);
    page.Set("vicreg_worker_heartbeat_timestamp_seconds", {{"worker", worker.name}}, worker.heartbeat_seconds);
    page.Set("vicreg_worker_ranks", {{"worker", worker.name}}, worker.ranks);
    for (const auto& [kind, count] : worker.slots) {
      page.Set("vicreg_worker_slots", {{"worker", worker.name}, {"kind", kind}, {"state", "total"}}, count.first);
      page.Set("vicreg_worker_slots", {{"worker", worker.name}, {"kind", kind}, {"state", "used"}}, count.second);
      if (worker.state != "ready") continue;
      slots[{kind, "total"}] += count.first;
      slots[{kind, "used"}] += count.second;
    }
  }
  for (const auto& [state, count] : workers) page.Set("vicreg_coordinator_workers", {{"state", state}}, count);
  for (const auto& [key, count] : slots)
    page.Set("vicreg_coordinator_slots", {{"kind", key.first}, {"state", key.second}}, count);
  page.Set("vicreg_coordinator_fenced_messages_total", {{"kind", "stale"}}, static_cast<double>(view.fenced_messages));
  page.Set("vicreg_coordinator_fenced_messages_total", {{"kind", "inventory"}},
           static_cast<double>(view.refused_registrations));
  page.Set("vicreg_coordinator_preemption_lost_slot_seconds_total", {}, view.preemption_lost_slot_seconds);
  page.Set("vicreg_coordinator_store_commits_total", {}, static_cast<double>(view.commits));
  page.Set("vicreg_coordinator_store_commit_seconds_total", {}, view.commit_seconds);
  page.Set("vicreg_coordinator_store_errors_total", {}, static_cast<double>(view.store_errors));
  page.Set("vicreg_coordinator_store_degraded", {}, view.store_degraded ? 1 : 0);
  if (view.backup_seconds > 0) page.Set("vicreg_coordinator_backup_timestamp_seconds", {}, view.backup_seconds);
  page.Set("vicreg_coordinator_metric_rows_total", {{"result", "committed"}}, static_cast<double>(view.rows.committed));
  page.Set("vicreg_coordinator_metric_rows_total", {{"result", "duplicate"}}, static_cast<double>(view.rows.duplicate));
  page.Set("vicreg_coordinator_metric_rows_total", {{"result", "fenced"}}, static_cast<double>(view.rows.fenced));
  page.Set("vicreg_coordinator_metric_rows_total", {{"result", "gap"}}, static_cast<double>(view.rows.gap));
  page.Set("vicreg_coordinator_watchers", {}, view.watchers);
  ExposeProcess(page);
  return page.Text();
}

}  // namespace vicreg::telemetry
