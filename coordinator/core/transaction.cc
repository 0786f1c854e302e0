#include "coordinator/core/transaction.h"

#include <stdexcept>

namespace vicreg::core {

const char* Name(ExitReason reason) {
  static const char* const kNames[] = {"NONE",       "COMPLETED", "STOPPED",    "CANCELLED",    "ABORTED",
                                       "FENCED",     "CONFIG",    "DATA",       "FINGERPRINT",  "NO_VALID_CHECKPOINT",
                                       "NUMERIC",    "MISMATCH",  "DEVICE_OOM", "HOST_OOM",     "RENDEZVOUS",
                                       "COLLECTIVE", "STORAGE",   "DEVICE",     "START_FAILED", "LOST",
                                       "INTERNAL",   "SIGNALLED", "HUNG"};
  const auto i = static_cast<std::size_t>(reason);
  return i < std::size(kNames) ? kNames[i] : "INTERNAL";
}

const char* Name(JobState state) {
  static const char* const kNames[] = {"",        "QUEUED", "RESERVED",  "STARTING", "RUNNING",  "STOPPING",
                                       "BACKOFF", "PAUSED", "SUCCEEDED", "FAILED",   "CANCELLED"};
  return kNames[static_cast<std::size_t>(state)];
}

const char* Name(RankState state) {
  static const char* const kNames[] = {"ASSIGNED", "SPAWNED", "CONNECTED", "STEPPING", "EXITED", "LOST"};
  return kNames[static_cast<std::size_t>(state)];
}

const char* Name(Level level) {
  static const char* const kNames[] = {"any", "rack", "node"};
  return kNames[static_cast<std::size_t>(level)];
}

const char* Name(AdminState state) {
  static const char* const kNames[] = {"OPEN", "CORDONED", "DRAINING"};
  return kNames[static_cast<std::size_t>(state)];
}

bool IsTerminal(JobState state) {
  return state == JobState::kSucceeded || state == JobState::kFailed || state == JobState::kCancelled;
}

bool HoldsSlots(JobState state) {
  return state == JobState::kReserved || state == JobState::kStarting || state == JobState::kRunning ||
         state == JobState::kStopping;
}

namespace {

template <typename T>
const T* Find(const std::map<std::string, T>& changed, const std::map<std::string, T>& base, const std::string& key) {
  if (const auto found = changed.find(key); found != changed.end()) return &found->second;
  const auto found = base.find(key);
  return found == base.end() ? nullptr : &found->second;
}

template <typename T>
T& Edit(std::map<std::string, T>& changed, const std::map<std::string, T>& base, const std::string& key) {
  if (const auto found = changed.find(key); found != changed.end()) return found->second;
  return changed.emplace(key, base.at(key)).first->second;
}

}  // namespace

const Job* Transaction::FindJob(const std::string& id) const { return Find(jobs_, state_.jobs, id); }
const Node* Transaction::FindNode(const std::string& name) const { return Find(nodes_, state_.nodes, name); }
const Request* Transaction::FindRequest(const std::string& id) const { return Find(requests_, state_.requests, id); }
Job& Transaction::EditJob(const std::string& id) { return Edit(jobs_, state_.jobs, id); }
Node& Transaction::EditNode(const std::string& name) {
  Wake();
  touched_.erase(name);
  return Edit(nodes_, state_.nodes, name);
}
Node& Transaction::TouchNode(const std::string& name) {
  if (nodes_.count(name) == 0) touched_.insert(name);
  return Edit(nodes_, state_.nodes, name);
}

Job& Transaction::AddJob(Job job) {
  Wake();
  job.queue_seq = next_queue_seq_++;
  const std::string id = job.id;
  return jobs_.emplace(id, std::move(job)).first->second;
}

Node& Transaction::AddNode(Node node) {
  Wake();
  const std::string name = node.name;
  return nodes_.emplace(name, std::move(node)).first->second;
}

std::vector<const Job*> Transaction::LiveJobs() const {
  std::map<std::pair<std::int64_t, std::string>, const Job*> live;
  for (const auto& key : state_.live) live[key] = FindJob(key.second);
  for (const auto& [id, job] : jobs_) live[{job.queue_seq, id}] = &job;
  std::vector<const Job*> jobs;
  for (const auto& [key, job] : live) {
    if (!IsTerminal(job->state)) jobs.push_back(job);
  }
  return jobs;
}

std::vector<const Node*> Transaction::Nodes() const {
  std::map<std::string, const Node*> all;
  for (const auto& [name, node] : state_.nodes) all[name] = &node;
  for (const auto& [name, node] : nodes_) all[name] = &node;
  std::vector<const Node*> nodes;
  for (const auto& [name, node] : all) nodes.push_back(node);
  return nodes;
}

void Transaction::Note(Job& job, Reason reason, const std::string& message, const std::string& kind,
                       const std::string& actor) {
  Event event;
  event.seq = next_event_seq_++;
  event.job_seq = ++job.events;
  event.job_id = job.id;
  event.time_us = wall_us;
  event.kind = kind;
  event.actor = actor;
  event.reason = reason;
  event.message = message;
  event.attempt = job.attempt;
  event.term = state_.term;
  events_.push_back(std::move(event));
  ++job.version;
}

void Transaction::Move(Job& job, JobState to, Reason reason, const std::string& message, const std::string& kind,
                       const std::string& actor) {
  // Invariant: a terminal state absorbs.
  if (IsTerminal(job.state)) throw std::logic_error("job " + job.id + " left the terminal state " + Name(job.state));
  Wake();
  job.state = to;
  job.reason = reason;
  job.message = message;
  if (IsTerminal(to)) job.ended_us = wall_us;
  Note(job, reason, message, kind, actor);
}

Project Transaction::FindProject(const std::string& name) const {
  const Project* found = Find(projects_, state_.projects, name);
  if (found != nullptr) return *found;
  Project absent;
  absent.name = name;
  return absent;
}

std::vector<Project> Transaction::Projects() const {
  std::map<std::string, Project> all = state_.projects;
  for (const auto& [name, project] : projects_) all[name] = project;
  std::vector<Project> projects;
  for (auto& [name, project] : all) projects.push_back(std::move(project));
  return projects;
}

bool Transaction::HasProject(const std::string& name) const {
  return Find(projects_, state_.projects, name) != nullptr;
}

bool Transaction::HasQueue(const QueueKey& key) const { return queues_.count(key) + state_.queues.count(key) != 0; }

const Queue* Transaction::FindQueue(const QueueKey& key) const {
  static const Queue kDefault{"", "default", true, -1000, 1000, {}};
  if (const auto found = queues_.find(key); found != queues_.end()) return &found->second;
  if (const auto found = state_.queues.find(key); found != state_.queues.end()) return &found->second;
  return key.second == "default" ? &kDefault : nullptr;
}

std::vector<Queue> Transaction::Queues() const {
  std::map<QueueKey, Queue> all = state_.queues;
  for (const auto& [key, queue] : queues_) all[key] = queue;
  std::vector<Queue> queues;
  for (auto& [key, queue] : all) queues.push_back(std::move(queue));
  return queues;
}

void Transaction::SetProject(Project project) {
  Wake();
  const std::string name = project.name;
  projects_[name] = std::move(project);
}

void Transaction::SetQueue(Queue queue) {
  Wake();
  const QueueKey key(queue.project, queue.name);
  queues_[key] = std::move(queue);
}

std::vector<TimePoint> Transaction::RecentPreemptions() const {
  std::vector<TimePoint> recent;
  for (const auto* times : {&state_.preemptions, &preemptions_}) {
    for (const TimePoint time : *times) {
      if (now - time < kBudgetPeriod) recent.push_back(time);
    }
  }
  return recent;
}

void Transaction::ApplyTo(State& state) {
  for (auto& [id, job] : jobs_) {
    const std::pair key(job.queue_seq, id);
    if (IsTerminal(job.state)) {
      state.live.erase(key);
    } else {
      state.live.insert(key);
    }
    state.jobs[id] = job;
  }
  for (auto& [name, node] : nodes_) state.nodes[name] = node;
  for (auto& [id, request] : requests_) state.requests[id] = request;
  for (auto& [name, project] : projects_) state.projects[name] = project;
  for (auto& [key, queue] : queues_) state.queues[key] = queue;
  if (waiting_) {
    state.waiting = std::move(*waiting_);
    state.next_pass = next_pass_;
  }
  if (!preemptions_.empty()) state.preemptions = RecentPreemptions();
  state.next_queue_seq = next_queue_seq_;
  state.next_event_seq = next_event_seq_;
}

}  // namespace vicreg::core
