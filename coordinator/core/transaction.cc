#include "coordinator/core/transaction.h"

#include <algorithm>

#include "common/planted.h"
#include "coordinator/core/index.h"

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

bool Graver(Destination a, Destination b) {
  const auto gravity = [](Destination d) { return d == Destination::kCancel ? 10 : static_cast<int>(d); };
  return gravity(a) > gravity(b);
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

// Those of an index that are not changed here, and the changed ones that belong to it now.
std::vector<const Job*> Transaction::Merged(const std::set<Age>& stored, bool (*belongs)(const Job&)) const {
  std::vector<const Job*> changed, all;
  for (const auto& [id, job] : jobs_) {
    if (belongs(job)) changed.push_back(&job);
  }
  const auto older = [](const Job* a, const Job* b) { return AgeOf(*a) < AgeOf(*b); };
  std::sort(changed.begin(), changed.end(), older);
  all.reserve(stored.size() + changed.size());
  auto next = changed.begin();
  for (const Age& age : stored) {
    if (jobs_.count(age.second) != 0) continue;
    while (next != changed.end() && (*next)->queue_seq < age.first) all.push_back(*next++);
    all.push_back(&state_.jobs.at(age.second));
  }
  all.insert(all.end(), next, changed.end());
  return all;
}

std::vector<const Job*> Transaction::LiveJobs() const {
  return Merged(state_.live, [](const Job& job) { return !IsTerminal(job.state); });
}

std::vector<const Job*> Transaction::HoldingJobs() const {
  return Merged(state_.holding, [](const Job& job) { return HoldsSlots(job.state); });
}

std::vector<const Job*> Transaction::DelayedJobs() const {
  return Merged(state_.delayed, [](const Job& job) { return job.state == JobState::kBackoff; });
}

std::vector<const Job*> Transaction::TimedJobs() const {
  return Merged(state_.timed, [](const Job& job) { return job.deadline_us > 0 && !IsTerminal(job.state); });
}

std::map<std::string, QueuedClass> Transaction::QueuedClasses() const {
  std::map<std::string, QueuedClass> classes;
  for (const auto& [name, alike] : state_.queued) {
    QueuedClass& here = classes.emplace(name, QueuedClass(*this, alike.project, alike.priority)).first->second;
    here.stored_ = alike.jobs.begin();
    here.stored_end_ = alike.jobs.end();
    here.SkipChanged();
  }
  std::vector<const Job*> changed;
  for (const auto& [id, job] : jobs_) {
    if (job.state == JobState::kQueued) changed.push_back(&job);
  }
  std::sort(changed.begin(), changed.end(), [](const Job* a, const Job* b) { return AgeOf(*b) < AgeOf(*a); });
  for (const Job* job : changed) {
    const auto [here, added] = classes.try_emplace(ClassOf(*job), *this, job->project, job->priority);
    here->second.changed_.push_back(job);
  }
  return classes;
}

std::size_t Transaction::QueuedCount(const std::string& project) const {
  std::size_t count = 0;
  for (const auto& [name, alike] : state_.queued) {
    if (alike.project == project) count += alike.jobs.size();
  }
  const auto counts = [&](const Job& job) { return job.project == project && job.state == JobState::kQueued; };
  for (const auto& [id, job] : jobs_) {
    const auto before = state_.jobs.find(id);
    if (before != state_.jobs.end() && counts(before->second)) --count;
    if (counts(job)) ++count;
  }
  return count;
}

bool Transaction::AnyOldestQueued(const std::function<bool(const Job&)>& is) const {
  for (const auto& [name, alike] : state_.queued) {
    const auto oldest = std::find_if(alike.jobs.begin(), alike.jobs.end(),
                                     [&](const Age& age) { return jobs_.count(age.second) == 0; });
    if (oldest != alike.jobs.end() && is(state_.jobs.at(oldest->second))) return true;
  }
  return std::any_of(jobs_.begin(), jobs_.end(),
                     [&](const auto& entry) { return entry.second.state == JobState::kQueued && is(entry.second); });
}

const Job* QueuedClass::Front() const {
  const bool stored = stored_ != stored_end_;
  if (!changed_.empty() && (!stored || AgeOf(*changed_.back()) < *stored_)) return changed_.back();
  return stored ? &transaction_->state_.jobs.at(stored_->second) : nullptr;
}

void QueuedClass::Pop() {
  const bool stored = stored_ != stored_end_;
  if (!changed_.empty() && (!stored || AgeOf(*changed_.back()) < *stored_)) {
    changed_.pop_back();
  } else if (stored) {
    ++stored_;
    SkipChanged();
  }
}

void QueuedClass::SkipChanged() {
  while (stored_ != stored_end_ && transaction_->jobs_.count(stored_->second) != 0) ++stored_;
}

std::vector<const Node*> Transaction::Nodes() const {
  std::vector<const Node*> nodes;
  nodes.reserve(state_.nodes.size() + nodes_.size());
  auto changed = nodes_.begin();
  for (const auto& [name, node] : state_.nodes) {
    for (; changed != nodes_.end() && changed->first < name; ++changed) nodes.push_back(&changed->second);
    if (changed != nodes_.end() && changed->first == name) {
      nodes.push_back(&changed++->second);
    } else {
      nodes.push_back(&node);
    }
  }
  for (; changed != nodes_.end(); ++changed) nodes.push_back(&changed->second);
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
  // A gang that is confirmed keeps the slots it had, and no pass looks at how far its start has come.
  const bool confirmed = job.state == JobState::kReserved && to == JobState::kStarting;
  if (!confirmed && !Planted(Plant::kNeverWoken)) Wake();
  job.state = to;
  job.reason = reason;
  job.message = message;
  if (IsTerminal(to)) job.ended_us = wall_us;
  // What was to start it in this same batch would start it now, after its end.
  if (!HoldsSlots(to) || to == JobState::kReserved)
    std::erase_if(messages_, [&](const Message& m) {
      const auto* launch = std::get_if<SendLaunch>(&m.what);
      return launch != nullptr && launch->job_id == job.id;
    });
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
  state.preemption_lost_slot_seconds += lost_slot_seconds_;
  for (const auto& [outcome, count] : attempts_ended_) state.attempts_ended[outcome] += count;
  for (const auto& [id, job] : jobs_) Put(state, job);
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
