#include "bench/scheduler/cluster.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "coordinator/core/scheduler.h"
#include "coordinator/service/coordinator.h"

namespace vicreg::bench {
namespace {

constexpr Cluster::Milliseconds kTimerStep{250};

// Simulated time starts where a clock that has run for a while would be.
constexpr core::TimePoint kBegin{std::chrono::hours(24)};

void Check(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

}  // namespace

Cluster::Cluster(const std::string& folder, const core::Options& options)
    : options_(options), now_(kBegin), next_timers_(kBegin) {
  auto store = store::SqliteStore::Open(folder);
  Check(store.status());
  store_ = *std::move(store);
  auto state = store_->Load();
  Check(state.status());
  state_ = *std::move(state);
  state_.began = now_;
}

void Cluster::AddNodes(int count, int slots, int per_rack, Milliseconds heartbeat) {
  for (int i = 0; i < count; ++i) {
    core::Registration registration;
    core::Node& node = registration.node;
    node.name = "node-" + std::to_string(100000 + i);
    node.boot_id = "boot";
    node.cpu_slots = slots;
    node.data_roots = {"images"};
    node.labels = {"rack=" + std::to_string(i / per_rack)};
    At(now_, [registration](core::Transaction& tx) { Check(core::Register(tx, registration).status()); });
    // Not all at the same moment.
    ++beats_;
    At(now_ + heartbeat * (i + 1) / count, [this, name = node.name, heartbeat](core::Transaction& tx) {
      Check(core::Heartbeat(tx, name, tx.FindNode(name)->incarnation));
      Beat(name, heartbeat);
    });
  }
  Settle();
}

void Cluster::Beat(const std::string& node, Milliseconds every) {
  At(now_ + every, [=, this](core::Transaction& tx) {
    Check(core::Heartbeat(tx, node, tx.FindNode(node)->incarnation));
    Beat(node, every);
  });
}

void Cluster::At(core::TimePoint when, Command command) { timers_.push({when, order_++, std::move(command)}); }

void Cluster::Submit(core::TimePoint when, core::Job job, const std::string& id) {
  At(when, [job = std::move(job), id](core::Transaction& tx) {
    Check(core::Submit(tx, job, id, "request of " + id, "sha256").status());
  });
}

void Cluster::Complete(core::TimePoint when, const std::string& id) {
  for (const core::Rank& rank : state_.jobs.at(id).ranks) {
    core::Report report;
    report.job_id = id;
    report.attempt = state_.jobs.at(id).attempt;
    report.rank = rank.rank;
    report.sequence = 2;
    report.kind = core::Report::Kind::kExited;
    report.exit_reason = core::ExitReason::kCompleted;
    At(when, [report, node = rank.node, incarnation = rank.incarnation](core::Transaction& tx) {
      core::OnReport(tx, node, incarnation, report);
    });
  }
}

bool Cluster::Next() {
  if (due_.empty()) {
    // Heartbeats alone would go on for ever.
    if (static_cast<std::int64_t>(timers_.size()) <= beats_) return false;
    now_ = std::max(now_, std::min(timers_.top().when, next_timers_));
  }
  while (!timers_.empty() && timers_.top().when <= now_) {
    due_.push_back(timers_.top().command);
    timers_.pop();
  }
  return true;
}

void Cluster::Run(const std::function<bool()>& done) {
  while (!done() && Next()) RunBatch();
}

void Cluster::Settle() {
  do {
    while (!timers_.empty() && timers_.top().when <= now_) {
      due_.push_back(timers_.top().command);
      timers_.pop();
    }
    RunBatch();
  } while (!due_.empty());
}

void Cluster::RunBatch() {
  std::vector<Command> batch;
  while (!due_.empty() && batch.size() < service::kMaxBatch) {
    batch.push_back(std::move(due_.front()));
    due_.pop_front();
  }
  const auto begin = std::chrono::steady_clock::now();
  core::Transaction tx(state_, options_, now_,
                       std::chrono::duration_cast<std::chrono::microseconds>(now_.time_since_epoch()).count());
  for (const Command& command : batch) command(tx);
  if (now_ >= next_timers_) {
    core::OnTime(tx, std::chrono::duration_cast<Milliseconds>(now_ - kBegin));
    next_timers_ = now_ + kTimerStep;
  }
  if (tx.NeedsPass()) core::Schedule(tx);
  if (tx.changed()) Check(store_->Commit(tx));
  tx.ApplyTo(state_);
  if (tx.NeedsPass()) state_.next_pass = core::kAtOnce;
  const auto took = std::chrono::steady_clock::now() - begin;
  now_ += took;
  busy_ += std::chrono::duration<double>(took).count();
  ++batches_;
  commands_ += static_cast<std::int64_t>(batch.size());
  Answer(tx);
}

// Workers confirm and start at once: what they say is in the next batch, behind what came before.
void Cluster::Answer(const core::Transaction& tx) {
  for (const auto& [id, changed] : tx.jobs()) {
    const core::Job& job = state_.jobs.at(id);
    if (job.state == core::JobState::kReserved && job.prepared.empty()) on_placed(job);
    if (core::IsTerminal(job.state)) on_ended(job);
  }
  std::map<std::string, const core::Job*> launched;
  for (const core::Message& message : tx.messages()) {
    if (const auto* prepare = std::get_if<core::SendPrepare>(&message.what)) {
      due_.emplace_back([node = message.node, id = prepare->job_id](core::Transaction& next) {
        const core::Job& job = *next.FindJob(id);
        core::OnPrepared(next, node, next.FindNode(node)->incarnation, id, job.attempt, "");
      });
    } else if (const auto* launch = std::get_if<core::SendLaunch>(&message.what)) {
      launched[launch->job_id] = &state_.jobs.at(launch->job_id);
    } else if (const auto* probe = std::get_if<core::SendProbe>(&message.what)) {
      due_.emplace_back([node = message.node, number = probe->number](core::Transaction& next) {
        core::OnProbed(next, {node, next.FindNode(node)->incarnation, number, ""});
      });
    }
  }
  for (const auto& [id, job] : launched) {
    on_launch(*job);
    for (const core::Rank& rank : job->ranks) {
      core::Report report;
      report.job_id = id;
      report.attempt = job->attempt;
      report.rank = rank.rank;
      report.sequence = 1;
      report.kind = core::Report::Kind::kStepping;
      due_.emplace_back([report, node = rank.node, incarnation = rank.incarnation](core::Transaction& next) {
        core::OnReport(next, node, incarnation, report);
      });
    }
  }
}

}  // namespace vicreg::bench
