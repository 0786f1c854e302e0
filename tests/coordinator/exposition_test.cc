// Goal: every scraper accepts /metrics, whatever jobs are called; series are few, end with their job, and are
// documented. Method: a busy cluster's page through a strict parser, which is itself shown to refuse bad pages; the
// reference page is compared with the metric table.

#include "coordinator/telemetry/exposition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <sstream>

#include "prometheus_text.h"

namespace vicreg::telemetry {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::IsEmpty;
using testing::ParsePrometheus;
using testing::PrometheusPage;
using ::testing::StartsWith;

constexpr std::int64_t kNow = 1'700'000'000'000'000;

JobView BusyJob(const std::string& id) {
  JobView job;
  job.id = id;
  job.name = "a job";
  job.project = "default";
  job.preset = "demo-cpu";
  job.state = "running";
  job.verdict = {"healthy", ""};
  job.total_steps = 500;
  v1::MetricRow row;
  row.set_step(120);
  row.set_epoch(1.5);
  row.set_loss(30);
  row.set_invariance(0.25);
  row.set_variance(0.5);
  row.set_covariance(2);
  row.set_invariance_weighted(6.25);
  row.set_variance_weighted(12.5);
  row.set_covariance_weighted(2);
  row.set_z_std_mean(0.3);
  row.set_z_std_min(0.1);
  row.set_time_us(kNow);
  job.last = row;
  for (int i = 1; i <= 100; ++i) job.step_seconds.push_back(i);
  job.slots_wanted = job.slots_running = 2;
  for (const char* cause : {"crash", "hang", "infra", "node_lost", "rollback", "preempt", "move"})
    job.restarts[cause] = 2;
  job.checkpoint_step = 100;
  job.knn = 0.75;
  return job;
}

ClusterView Busy() {
  ClusterView view;
  view.jobs = {BusyJob("job-1"), BusyJob("job-2")};
  view.workers = {{"n1", "ready", 1.7e9, {{"cpu", {4, 2}}, {"gpu", {1, 0}}}, 2},
                  {"n2", "lost", 1.6e9, {{"cpu", {8, 3}}}, 0}};
  view.jobs_by_state = {{{"running", "unspecified"}, 2}, {{"queued", "waiting_for_slots"}, 1}};
  view.commits = 7;
  view.backup_seconds = 1.7e9;
  view.preemption_lost_slot_seconds = 90;
  view.attempts = {{"completed", 5}, {"not_placed", 2}};
  view.ownerless_jobs = 3;
  view.fenced_messages = 2;
  view.refused_registrations = 1;
  view.rows = {.committed = 240, .duplicate = 3, .fenced = 1, .gap = 2};
  return view;
}

// "a, b" -> {a, b}
std::vector<std::string> LabelNames(std::string list) {
  std::replace(list.begin(), list.end(), ',', ' ');
  std::istringstream words(list);
  return {std::istream_iterator<std::string>(words), {}};
}

TEST(Exposition, PageOfABusyClusterIsValid) {
  const PrometheusPage page = ParsePrometheus(Expose(Busy(), kNow));
  EXPECT_THAT(page.problems, IsEmpty());
  const std::map<std::string, std::string> job = {{"job_id", "job-1"}};
  ASSERT_EQ(page.Find("vicreg_job_step", job).size(), 1u);
  EXPECT_EQ(page.Find("vicreg_job_step", job)[0].value, 120);
  EXPECT_EQ(page.Find("vicreg_job_loss_term", job).size(), 6u);
  EXPECT_EQ(
      page.Find("vicreg_job_loss_term", {{"job_id", "job-2"}, {"term", "variance"}, {"form", "weighted"}}).at(0).value,
      12.5);
  EXPECT_EQ(page.Find("vicreg_coordinator_metric_rows_total", {{"result", "duplicate"}}).at(0).value, 3);
  EXPECT_EQ(page.Find("vicreg_coordinator_fenced_messages_total", {{"kind", "stale"}}).at(0).value, 2);
  EXPECT_EQ(page.Find("vicreg_coordinator_fenced_messages_total", {{"kind", "inventory"}}).at(0).value, 1);
  EXPECT_EQ(page.Find("vicreg_coordinator_preemption_lost_slot_seconds_total", {}).at(0).value, 90);
  EXPECT_EQ(page.Find("vicreg_coordinator_attempts_total", {{"outcome", "not_placed"}}).at(0).value, 2);
  EXPECT_EQ(page.Find("vicreg_coordinator_queue_depth", {{"reason", "waiting_for_slots"}}).at(0).value, 1);
  EXPECT_EQ(page.Find("vicreg_coordinator_queue_depth").size(), 1u) << "of queued jobs alone";
  EXPECT_EQ(page.Find("vicreg_coordinator_ownerless_jobs").at(0).value, 3);
  EXPECT_EQ(page.Find("vicreg_coordinator_backup_timestamp_seconds", {}).at(0).value, 1.7e9);
  EXPECT_EQ(page.Find("vicreg_coordinator_slots", {{"kind", "cpu"}, {"state", "total"}}).at(0).value, 4)
      << "slots of ready workers alone";
  EXPECT_NEAR(page.Find("vicreg_job_step_seconds", {{"job_id", "job-1"}, {"stat", "p99"}}).at(0).value, 99, 1);
}

TEST(Exposition, PageOfAnEmptyClusterIsValid) {
  const PrometheusPage page = ParsePrometheus(Expose({}, kNow));
  EXPECT_THAT(page.problems, IsEmpty());
  EXPECT_EQ(page.Find("vicreg_build_info").size(), 1u);
}

TEST(Exposition, EverySampleIsInTheTableAndEveryEntryIsUsed) {
  const PrometheusPage page = ParsePrometheus(Expose(Busy(), kNow));
  std::map<std::string, std::set<std::string>> labels;
  for (const auto& sample : page.samples) {
    for (const auto& [name, value] : sample.labels) labels[sample.name].insert(name);
    labels[sample.name];
  }
  for (const MetricInfo& info : AllMetrics()) {
    SCOPED_TRACE(info.name);
    ASSERT_TRUE(labels.contains(info.name));
    const std::vector<std::string> documented = LabelNames(info.labels);
    EXPECT_EQ(labels[info.name], std::set<std::string>(documented.begin(), documented.end()));
    EXPECT_EQ(page.type.at(info.name), info.kind);
  }
  EXPECT_EQ(labels.size(), AllMetrics().size());
}

TEST(Exposition, NamesAndLabelsFollowTheRules) {
  static const std::set<std::string> kForbidden = {"step",     "attempt", "rank",      "path", "user",   "job",
                                                   "instance", "node",    "namespace", "pod",  "service"};
  for (const auto& sample : ParsePrometheus(Expose(Busy(), kNow)).samples) {
    EXPECT_THAT(sample.name, AnyOf(StartsWith("vicreg_job_"), StartsWith("vicreg_coordinator_"),
                                   StartsWith("vicreg_worker_"), Eq("vicreg_build_info"), StartsWith("process_")));
    EXPECT_EQ(sample.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string::npos) << sample.name;
    for (const auto& [name, value] : sample.labels)
      EXPECT_FALSE(kForbidden.contains(name)) << sample.name << " has label " << name;
  }
}

TEST(Exposition, AJobHasAtMost64Series) {
  const PrometheusPage page = ParsePrometheus(Expose(Busy(), kNow));
  std::size_t count = 0;
  for (const auto& sample : page.samples)
    count += sample.labels.contains("job_id") && sample.labels.at("job_id") == "job-1";
  EXPECT_LE(count, 64u);
  EXPECT_GT(count, 20u);
}

TEST(Exposition, AnyNameComesBackAsItWas) {
  const std::string name = "a \"quoted\" \\name\\n,\nwith=\"lines\"} and {ü}";
  ClusterView view = Busy();
  view.jobs[0].name = name;
  const PrometheusPage page = ParsePrometheus(Expose(view, kNow));
  EXPECT_THAT(page.problems, IsEmpty());
  EXPECT_EQ(page.Find("vicreg_job_info", {{"job_id", "job-1"}}).at(0).labels.at("name"), name);
}

TEST(Exposition, ValuesThatAreNotFiniteAreWrittenAsPrometheusReadsThem) {
  ClusterView view = Busy();
  view.jobs[0].last->set_loss(std::numeric_limits<double>::quiet_NaN());
  view.jobs[0].last->set_grad_norm(std::numeric_limits<double>::infinity());
  const std::string text = Expose(view, kNow);
  const PrometheusPage page = ParsePrometheus(text);
  EXPECT_THAT(page.problems, IsEmpty());
  EXPECT_TRUE(std::isnan(page.Find("vicreg_job_loss", {{"job_id", "job-1"}}).at(0).value));
  EXPECT_NE(text.find("} +Inf\n"), std::string::npos);
}

TEST(Exposition, SeriesEndSixtySecondsAfterTheirJob) {
  ClusterView view = Busy();
  view.jobs[0].ended_us = kNow;
  const auto series = [&](std::int64_t now) {
    return ParsePrometheus(Expose(view, now)).Find("vicreg_job_info", {{"job_id", "job-1"}}).size();
  };
  EXPECT_EQ(series(kNow), 1u);
  EXPECT_EQ(series(kNow + 60'000'000), 1u);
  EXPECT_EQ(series(kNow + 60'000'001), 0u);
}

TEST(Exposition, OfTooManyJobsTheNewestThousandAreShown) {
  ClusterView view;
  for (int i = 0; i < 1100; ++i) {
    JobView job;
    job.id = std::to_string(i);
    job.state = "queued";
    job.verdict.name = "warming_up";
    view.jobs.push_back(std::move(job));
  }
  const auto shown = ParsePrometheus(Expose(view, kNow)).Find("vicreg_job_info");
  EXPECT_EQ(shown.size(), 1000u);
  std::set<std::string> ids;
  for (const auto& sample : shown) ids.insert(sample.labels.at("job_id"));
  EXPECT_TRUE(ids.contains("1099"));
  EXPECT_FALSE(ids.contains("99"));
}

TEST(Exposition, HelpIsOneLineWithoutBackslash) {
  for (const MetricInfo& info : AllMetrics())
    EXPECT_EQ(std::string(info.help).find_first_of("\\\n"), std::string::npos)
        << info.name << ": the serializer does not escape HELP";
}

TEST(PrometheusText, ParserRefusesBadPages) {
  const std::string head = "# HELP a_b x\n# TYPE a_b gauge\n";
  const struct {
    const char* what;
    std::string page;
  } rows[] = {
      {"no HELP and TYPE", "a_b 1\n"},
      {"HELP twice", head + "# HELP a_b x\na_b 1\n"},
      {"bad metric name", "# HELP a-b x\n# TYPE a-b gauge\na-b 1\n"},
      {"bad label name", head + "a_b{l-x=\"1\"} 1\n"},
      {"unescaped quote", head + "a_b{l=\"a\"b\"} 1\n"},
      {"unknown escape", head + "a_b{l=\"\\x\"} 1\n"},
      {"label twice", head + "a_b{l=\"1\",l=\"2\"} 1\n"},
      {"series twice", head + "a_b{l=\"1\"} 1\na_b{l=\"1\"} 2\n"},
      {"value is no number", head + "a_b one\n"},
      {"counter without _total", "# HELP c x\n# TYPE c counter\nc 1\n"},
      {"no newline at the end", head + "a_b 1"},
      {"split group", head + "a_b{l=\"1\"} 1\n# HELP c x\n# TYPE c gauge\nc 1\na_b{l=\"2\"} 1\n"},
  };
  for (const auto& r : rows) EXPECT_FALSE(ParsePrometheus(r.page).problems.empty()) << r.what;
  EXPECT_THAT(ParsePrometheus(head + "a_b{l=\"\\\\ \\\" \\n\",} 1e-3\n").problems, IsEmpty());
}

TEST(MetricsReference, SaysWhatTheTableSays) {
  std::ifstream file(VICREG_SOURCE_DIR "/docs/reference/metrics.md");
  std::vector<std::string> found, wanted;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("| `", 0) == 0) found.push_back(line);
  }
  std::string expected;
  for (const MetricInfo& info : AllMetrics()) {
    std::string labels;
    for (const std::string& label : LabelNames(info.labels)) labels += (labels.empty() ? "`" : ", `") + label + "`";
    wanted.push_back("| `" + std::string(info.name) + "` | " + info.kind + " | " + labels + " | " + info.help + " |");
    expected += wanted.back() + "\n";
  }
  EXPECT_EQ(found, wanted) << "the rows of docs/reference/metrics.md must be:\n" << expected;
}

}  // namespace
}  // namespace vicreg::telemetry
