#include "coordinator/service/coordinator.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>

#include "common/enum_names.h"
#include "coordinator/core/attempt.h"
#include "coordinator/core/invariants.h"
#include "coordinator/core/node_timers.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/service/worker_wire.h"

namespace vicreg::service {
namespace {

constexpr std::size_t kMaxQueue = 10'000;
constexpr auto kIdle = std::chrono::milliseconds(250);
constexpr std::chrono::seconds kCount{1};
// How often jobs are looked for that nothing is bound to end, and how late something may be until then.
constexpr std::chrono::seconds kLook{30}, kLate{60};

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

core::Job Explained(core::Job job, const core::State& state) {
  core::Explanation why = core::Explain(job, state.waiting);
  job.reason = why.reason;
  job.message = std::move(why.message);
  return job;
}

}  // namespace

Coordinator::Coordinator(std::unique_ptr<store::SqliteStore> store, std::unique_ptr<telemetry::History> history,
                         const Clock& clock, std::string artifact_root)
    : store_(std::move(store)),
      history_(std::move(history)),
      clock_(clock),
      artifact_root_(std::move(artifact_root)),
      leader_(*store_, options_),
      state_(leader_.state()) {}

Coordinator::~Coordinator() {
  {
    const std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

absl::Status Coordinator::Start(std::function<void()> deposed) {
  deposed_ = std::move(deposed);
  RETURN_IF_ERROR(leader_.Start(clock_.SteadyNow(), clock_.WallMicros()));
  // The history may have missed an attempt that was committed right before a crash; it ignores what it knows.
  for (const core::Job* job : leader_.BegunAttempts())
    history_->BeginAttempt(job->id, job->attempt, job->resumed_step, [](const absl::Status&) {});
  spdlog::info("term {}: {} jobs, {} of them live, {} nodes", state_.term, state_.jobs.size(), state_.live.size(),
               state_.nodes.size());
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void Coordinator::Post(Decide decide, Done done) {
  {
    std::unique_lock lock(queue_mutex_);
    if (stopping_ || queue_.size() >= kMaxQueue) {
      const bool stopping = stopping_;
      lock.unlock();
      done(stopping ? absl::UnavailableError("the coordinator is stopping: retry")
                    : absl::ResourceExhaustedError("10000 commands wait: retry later"));
      return;
    }
    queue_.push_back({std::move(decide), std::move(done)});
  }
  wake_.notify_one();
}

void Coordinator::Run() {
  while (true) {
    std::vector<core::Command> batch;
    {
      std::unique_lock lock(queue_mutex_);
      wake_.wait_for(lock, kIdle, [&] { return stopping_ || !queue_.empty(); });
      while (!queue_.empty() && batch.size() < kMaxBatch) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
      if (stopping_ && batch.empty()) return;
    }
    RunBatch(std::move(batch));
  }
}

// Only this thread writes state_, so reading it here needs no lock.
void Coordinator::RunBatch(std::vector<core::Command> commands) {
  const TimePoint now = clock_.SteadyNow();
  core::Batch batch = leader_.Decide(now, clock_.WallMicros(), std::move(commands));
  const core::Transaction& transaction = batch.transaction;
  const double seconds = std::chrono::duration<double>(clock_.SteadyNow() - now).count();
  {
    const std::lock_guard lock(state_mutex_);
    const absl::Status before = leader_.degraded();
    leader_.Apply(batch);
    fenced_ += transaction.fenced;
    if (now >= next_count_) {
      next_count_ = now + kCount;
      const auto there = std::count_if(state_.nodes.begin(), state_.nodes.end(),
                                       [](const auto& n) { return n.second.state != core::NodeState::kLost; });
      heartbeat_ms_ = static_cast<int>(core::TimersFor(static_cast<std::size_t>(there), options_).heartbeat.count());
    }
    if (transaction.changed()) {
      ++commits_;
      commit_seconds_ += seconds;
      if (!batch.saved.ok()) ++store_errors_;
    }
    if (leader_.degraded() != before)
      spdlog::log(batch.works.ok() ? spdlog::level::info : spdlog::level::err,
                  batch.works.ok() ? "store works again" : std::string(batch.works.message()));
  }
  if (now >= next_look_) {
    next_look_ = now + kLook;
    LookForOwnerless(now);
  }
  if (leader_.deposed() && deposed_) std::exchange(deposed_, nullptr)();
  if (!transaction.refusal.empty() && transaction.refusal != refusal_)
    spdlog::warn("{}", refusal_ = transaction.refusal);
  if (batch.saved.ok()) {
    for (const core::Event& event : transaction.events())
      spdlog::info("job {} {}: {}", event.job_id, event.kind, event.message);
    for (const std::string& id : transaction.begun()) {
      const core::Job& job = state_.jobs.at(id);
      history_->BeginAttempt(job.id, job.attempt, job.resumed_step, [](const absl::Status& status) {
        if (!status.ok()) spdlog::error("metric history: {}", std::string(status.message()));
      });
    }
  }
  core::Leader::Answer(batch);
  if (batch.saved.ok()) SendAll(transaction);
}

void Coordinator::LookForOwnerless(TimePoint now) {
  // While nothing can be stored no timer acts, and afterwards they have to catch up.
  std::vector<std::string> found;
  if (leader_.degraded().ok() && now - leader_.uninterrupted_since() >= kLate)
    found = core::Overdue(state_, now - kLate);
  for (const std::string& sentence : found) {
    if (std::find(ownerless_.begin(), ownerless_.end(), sentence) == ownerless_.end())
      spdlog::error("job {}, and nothing is bound to happen to it: report this, and end it with `vicreg cancel`",
                    sentence);
  }
  const std::lock_guard lock(state_mutex_);
  ownerless_ = std::move(found);
}

void Coordinator::SendAll(const core::Transaction& transaction) {
  for (const core::Message& message : transaction.messages()) {
    // A node without a stream is told when it registers again.
    if (auto wire = ToWire(message, state_)) SendTo(message.node, *std::move(wire));
  }
}

std::optional<core::Job> Coordinator::FindJob(const std::string& id) const {
  const std::lock_guard lock(state_mutex_);
  const auto found = state_.jobs.find(id);
  return found == state_.jobs.end() ? std::nullopt : std::optional(Explained(found->second, state_));
}

std::vector<core::Job> Coordinator::Jobs() const { return Jobs(0, std::numeric_limits<std::size_t>::max(), {}); }

std::vector<core::Job> Coordinator::Jobs(std::int64_t after, std::size_t most,
                                         const std::set<core::JobState>& states) const {
  const std::lock_guard lock(state_mutex_);
  std::vector<const core::Job*> wanted;
  for (const auto& [id, job] : state_.jobs) {
    if (job.queue_seq > after && (states.empty() || states.count(job.state) != 0)) wanted.push_back(&job);
  }
  const auto end = wanted.begin() + static_cast<std::ptrdiff_t>(std::min(most, wanted.size()));
  std::partial_sort(wanted.begin(), end, wanted.end(),
                    [](const core::Job* a, const core::Job* b) { return a->queue_seq < b->queue_seq; });
  std::vector<core::Job> jobs;
  for (auto job = wanted.begin(); job != end; ++job) jobs.push_back(Explained(**job, state_));
  return jobs;
}

std::vector<core::Node> Coordinator::Nodes() const {
  const std::lock_guard lock(state_mutex_);
  std::vector<core::Node> nodes;
  for (const auto& [name, node] : state_.nodes) nodes.push_back(node);
  return nodes;
}

std::vector<core::Queue> Coordinator::Queues() const {
  const std::lock_guard lock(state_mutex_);
  std::vector<core::Queue> queues;
  for (const auto& [key, queue] : state_.queues) queues.push_back(queue);
  return queues;
}

std::vector<core::Project> Coordinator::Projects() const {
  const std::lock_guard lock(state_mutex_);
  std::vector<core::Project> projects;
  for (const auto& [name, project] : state_.projects) projects.push_back(project);
  return projects;
}

absl::Status Coordinator::Ready() const {
  const std::lock_guard lock(state_mutex_);
  const absl::Status& degraded = leader_.degraded();
  if (degraded.ok()) return degraded;
  return absl::Status(degraded.code(),
                      "degraded: nothing is admitted, ranks train on: " + std::string(degraded.message()));
}

void Coordinator::Attach(const std::string& node, std::shared_ptr<Session> session) {
  std::shared_ptr<Session> before;
  {
    const std::lock_guard lock(sessions_mutex_);
    before = std::exchange(sessions_[node], std::move(session));
  }
  if (before) before->Close(absl::AbortedError("another connection of node " + node + " took its place"));
}

void Coordinator::Detach(const std::string& node, const Session* session) {
  std::shared_ptr<Session> gone;  // destroyed outside the lock
  const std::lock_guard lock(sessions_mutex_);
  const auto found = sessions_.find(node);
  if (found == sessions_.end() || found->second.get() != session) return;
  gone = std::move(found->second);
  sessions_.erase(found);
}

bool Coordinator::SendTo(const std::string& node, v1::ConnectResponse message) {
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(sessions_mutex_);
    const auto found = sessions_.find(node);
    if (found == sessions_.end()) return false;
    session = found->second;
  }
  session->Send(std::move(message));
  return true;
}

telemetry::ClusterView Coordinator::View(int watchers) const {
  telemetry::ClusterView view;
  std::map<std::string, std::map<std::string, int>> used;
  std::map<std::string, int> ranks;
  for (const core::Job& job : Jobs()) {
    telemetry::JobView out;
    v1::JobSpec spec;
    spec.ParseFromString(job.spec);
    out.id = job.id;
    out.name = job.name;
    out.project = spec.project();
    out.preset = spec.preset();
    out.state = Lower(core::Name(job.state));
    out.last = history_->LastRow(job.id);
    const auto recent = history_->Recent(job.id, 100);
    out.verdict = telemetry::Judge(
        {recent.begin(), recent.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(recent.size(), 40))});
    for (const auto& row : recent) out.step_seconds.push_back(row.step_seconds());
    out.total_steps = job.total_steps;
    out.slots_wanted = core::SlotsWanted(job);
    for (const core::Rank& rank : job.ranks) {
      if (!core::HoldsSlots(job.state) || rank.settled()) continue;
      ++out.slots_running;
      ++used[rank.node][job.slot_kind];
      ++ranks[rank.node];
    }
    out.restarts = job.restarts;
    out.checkpoint_step = core::NewestStep(job);
    out.knn = history_->LastKnn(job.id);
    out.ended_us = job.ended_us;
    ++view.jobs_by_state[{out.state, Lower(ShortName(static_cast<v1::Reason>(job.reason)))}];
    view.jobs.push_back(std::move(out));
  }
  for (const core::Node& node : Nodes()) {
    telemetry::WorkerView out;
    out.name = node.name;
    static const char* const kStates[] = {"", "joining", "ready", "suspect", "lost", "quarantined", "probing"};
    out.state = kStates[static_cast<int>(node.state)];
    out.heartbeat_seconds = static_cast<double>(node.last_heard_us) / 1e6;
    out.slots["cpu"] = {node.cpu_slots, used[node.name]["cpu"]};
    if (node.gpu_slots > 0) out.slots["gpu"] = {node.gpu_slots, used[node.name]["gpu"]};
    out.ranks = ranks[node.name];
    view.workers.push_back(std::move(out));
  }
  view.rows = history_->counts();
  view.watchers = watchers;
  const std::lock_guard lock(state_mutex_);
  view.fenced_messages = fenced_;
  view.commits = commits_;
  view.commit_seconds = commit_seconds_;
  view.store_errors = store_errors_;
  view.store_degraded = !leader_.degraded().ok();
  view.refused_registrations = refused_registrations_;
  view.backup_seconds = static_cast<double>(backup_us_) / 1e6;
  view.ownerless_jobs = static_cast<int>(ownerless_.size());
  for (const auto& [outcome, count] : state_.attempts_ended) {
    view.attempts[outcome == core::Reason::kRetryDelay ? "not_placed"
                                                       : Lower(ShortName(static_cast<v1::Reason>(outcome)))] = count;
  }
  view.preemption_lost_slot_seconds = state_.preemption_lost_slot_seconds;
  return view;
}

}  // namespace vicreg::service
