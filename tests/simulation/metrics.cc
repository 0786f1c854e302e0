#include "tests/simulation/metrics.h"

#include <utility>

namespace vicreg::simulation {

void Metrics::Append(const std::string& job_id, int attempt, std::vector<std::int64_t> steps, Done done) {
  Add({job_id, attempt, std::move(steps), std::nullopt, false, std::move(done)});
}
void Metrics::BeginAttempt(const std::string& job_id, int attempt, std::int64_t resume_step) {
  Add({job_id, attempt, {}, resume_step, false, [](const absl::Status&) {}});
}
void Metrics::Barrier(Done done) { Add({"", 0, {}, std::nullopt, true, std::move(done)}); }

void Metrics::Add(Item item) {
  queue_.push_back(std::move(item));
  if (std::exchange(writing_, true)) return;
  events_.After(random_.Between(microseconds(100), milliseconds(random_.Chance(2) ? 2000 : 5)), [this, alive = alive_] {
    if (*alive) Write();
  });
}

absl::Status Metrics::Apply(Rows& rows, const Item& item) {
  if (item.begin_at) {
    if (item.attempt == rows.head.attempt) return absl::OkStatus();
    if (item.attempt < rows.head.attempt) return telemetry::Fenced(rows.head, item.job_id, item.attempt);
    rows.head = {item.attempt, *item.begin_at};
    rows.begun = item.attempt;
    while (!rows.curve.empty() && rows.curve.back() > *item.begin_at) rows.curve.pop_back();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(telemetry::CheckAttempt(rows.head, item.job_id, item.attempt));
  for (const std::int64_t step : item.steps) {
    const telemetry::RowFate fate = telemetry::FateOf(rows.head, step);
    if (fate == telemetry::RowFate::kDuplicate) continue;
    if (fate == telemetry::RowFate::kGap) return absl::OutOfRangeError("row " + std::to_string(step) + " leaves a gap");
    rows.head.step = step;
    rows.stale = rows.stale || item.attempt != rows.begun;
    rows.written.emplace_back(item.attempt, step);
    rows.curve.push_back(step);
  }
  return absl::OkStatus();
}

void Metrics::Write() {
  std::deque<Item> batch = std::exchange(owed_, {});
  batch.insert(batch.end(), std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
  queue_.clear();
  writing_ = false;
  std::map<std::string, Rows> changed;
  std::vector<absl::Status> results;
  for (const Item& item : batch) {
    if (item.barrier) {
      results.emplace_back();
      continue;
    }
    const auto [entry, added] = changed.try_emplace(item.job_id);
    if (added) entry->second = disk_.jobs[item.job_id];
    results.push_back(Apply(entry->second, item));
  }
  absl::Status committed;
  if (disk_.failing || (disk_.fail_next > 0 && disk_.fail_next-- > 0))
    committed = absl::ResourceExhaustedError("simulated: the disk is full");
  if (committed.ok()) {
    for (auto& [id, rows] : changed) disk_.jobs[id] = std::move(rows);
  }
  const std::shared_ptr<bool> alive = alive_;
  for (std::size_t i = 0; i < batch.size() && *alive; ++i) batch[i].done(committed.ok() ? results[i] : committed);
  if (!*alive || committed.ok()) return;
  for (Item& item : batch) {
    if (!item.begin_at) continue;
    owed_.push_back(std::move(item));
  }
  if (!owed_.empty() && !std::exchange(writing_, true)) {
    events_.After(seconds(1), [this, alive = alive_] {
      if (*alive) Write();
    });
  }
}

}  // namespace vicreg::simulation
