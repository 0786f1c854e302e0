#pragma once

// Decisions work on a Transaction: it reads the state as if everything decided so far in this batch were committed,
// collects what changes, the events that say so, and the messages to send once it is durable. Nothing here happens
// until the shell commits.

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/core/state.h"

namespace vicreg::core {

// The budget of preemptions is for any stretch of this length.
inline constexpr std::chrono::hours kBudgetPeriod{1};

struct Options {
  std::chrono::milliseconds heartbeat{2000}, suspect{5000}, lost{20000}, reservation{10000}, failover_grace{60000};
  // A probe of a node is asked for again when it is not answered within the first, or failed that long ago.
  std::chrono::milliseconds probe{20000}, probe_again{60000};
  std::chrono::milliseconds backoff_first{1000}, backoff_most{60000};
  // A gang is left alone for this long before it is preempted or resized by the scheduler.
  std::chrono::milliseconds min_runtime{10 * 60 * 1000};
  int preemptions_per_hour = 60;
  double stop_grace_seconds = 120;   // of a planned stop
  double restart_cost_seconds = 60;  // what stopping and starting a gang costs, for choosing victims
  int same_crashes = 3;              // of one rank after one step end the job
  // More ends by infrastructure than this within the window hold the job.
  int infra_ends = 5;
  std::chrono::minutes infra_window{30};
  // Strikes that quarantine a node, and the largest share of the cluster that may be.
  int strikes = 3, strike_jobs = 2;
  std::chrono::hours strike_window{24};
  double quarantine_share = 0.2;
};

// Messages to workers, by node. The shell fills in specs and resume points from the job.
struct SendPrepare {
  std::string job_id;
};
struct SendLaunch {
  std::string job_id;
};
struct SendStop {
  std::string job_id;
  int attempt;
  double grace_seconds;
  std::string cause;
};
struct SendAbort {
  std::string job_id;
  int attempt;
  std::string cause;
};
struct SendAck {
  std::string job_id;
  int attempt, rank;
  std::int64_t sequence;
  bool fenced;
};
struct SendProbe {
  std::int64_t number;  // Node::probe
};
struct Message {
  std::string node;
  std::variant<SendPrepare, SendLaunch, SendStop, SendAbort, SendAck, SendProbe> what;
};

class Transaction;

// The queued jobs of one class, the oldest first: those of the state that a transaction has not changed, and its own.
class QueuedClass {
 public:
  QueuedClass(const Transaction& transaction, std::string project, int priority)
      : transaction_(&transaction), project_(std::move(project)), priority_(priority) {}

  const std::string& project() const { return project_; }
  int priority() const { return priority_; }
  // Null: none is left.
  const Job* Front() const;
  void Pop();

 private:
  friend class Transaction;
  void SkipChanged();

  const Transaction* transaction_;
  std::string project_;
  int priority_;
  std::set<Age>::const_iterator stored_{}, stored_end_{};
  std::vector<const Job*> changed_;  // the youngest first
};

class Transaction {
 public:
  Transaction(const State& state, const Options& options, TimePoint now, std::int64_t wall_us)
      : now(now),
        wall_us(wall_us),
        options(options),
        state_(state),
        next_queue_seq_(state.next_queue_seq),
        next_event_seq_(state.next_event_seq) {}

  const TimePoint now;
  const std::int64_t wall_us;
  const Options& options;

  const Job* FindJob(const std::string& id) const;
  const Node* FindNode(const std::string& name) const;
  const Request* FindRequest(const std::string& id) const;
  // A copy to change; the job or node must exist (AddJob, AddNode make one).
  Job& EditJob(const std::string& id);
  Node& EditNode(const std::string& name);
  // For what is not stored (when a node was heard): applied, never committed.
  Node& TouchNode(const std::string& name);
  Job& AddJob(Job job);
  Node& AddNode(Node node);
  void AddRequest(Request request) { requests_[request.id] = std::move(request); }
  // Absent ones are as their defaults.
  Project FindProject(const std::string& name) const;
  std::vector<Project> Projects() const;
  const Queue* FindQueue(const QueueKey& key) const;  // null: none of this name, but for "default"
  std::vector<Queue> Queues() const;
  // Was it ever set?
  bool HasProject(const std::string& name) const;
  bool HasQueue(const QueueKey& key) const;
  void SetProject(Project project);
  void SetQueue(Queue queue);

  // In order of age, as changed so far: those that have not ended, that hold slots, that wait for a delay to pass, that
  // have a deadline.
  std::vector<const Job*> LiveJobs() const;
  std::vector<const Job*> HoldingJobs() const;
  std::vector<const Job*> DelayedJobs() const;
  std::vector<const Job*> TimedJobs() const;
  // By class; they look into this transaction, which must not change meanwhile.
  std::map<std::string, QueuedClass> QueuedClasses() const;
  std::size_t QueuedCount(const std::string& project) const;
  // Is there a class of queued jobs whose oldest is so?
  bool AnyOldestQueued(const std::function<bool(const Job&)>& is) const;
  std::vector<const Node*> Nodes() const;

  // Changes state, reason and sentence, and records it as one event.
  void Move(Job& job, JobState to, Reason reason, const std::string& message, const std::string& kind,
            const std::string& actor);
  // Without a change of state.
  void Note(Job& job, Reason reason, const std::string& message, const std::string& kind, const std::string& actor);
  // Why queued jobs wait, by class, and when time alone may change that; replaces what the pass before said. Nothing to
  // commit.
  void Explain(std::map<std::string, Explanation> waiting, TimePoint next_pass) {
    waiting_ = std::move(waiting);
    next_pass_ = next_pass;
  }
  // As of the newest pass.
  const std::map<std::string, Explanation>& waiting() const { return waiting_ ? *waiting_ : state_.waiting; }
  // Something happened that may let a waiting job start, or add one.
  void Wake() { woken_ = true; }
  // A pass has seen all that happened so far.
  void Rest() { woken_ = false; }
  TimePoint began() const { return state_.began; }
  bool NeedsPass() const { return woken_ || now >= state_.next_pass; }
  // Preemptions of the last hour, those of this transaction too; oldest first.
  std::vector<TimePoint> RecentPreemptions() const;
  // `lost`: slot-seconds of work that was not saved.
  void CountPreemption(double lost) {
    preemptions_.push_back(now);
    lost_slot_seconds_ += lost;
  }
  // An attempt has ended; what came of it.
  void CountEnd(Reason outcome) { ++attempts_ended_[outcome]; }
  void Send(const std::string& node, decltype(Message::what) what) { messages_.push_back({node, std::move(what)}); }
  // Tells the history that an attempt starts at `resume_step`, before its Launch is sent.
  void BeginAttempt(const std::string& job_id) { begun_.push_back(job_id); }

  // Something to commit.
  bool changed() const {
    return !jobs_.empty() || nodes_.size() > touched_.size() || !events_.empty() || !requests_.empty() ||
           !projects_.empty() || !queues_.empty();
  }
  bool IsTouchOnly(const std::string& node) const { return touched_.count(node) != 0; }
  const std::map<std::string, Job>& jobs() const { return jobs_; }
  const std::map<std::string, Node>& nodes() const { return nodes_; }
  const std::vector<Event>& events() const { return events_; }
  const std::map<std::string, Request>& requests() const { return requests_; }
  const std::map<std::string, Project>& projects() const { return projects_; }
  const std::map<QueueKey, Queue>& queues() const { return queues_; }
  const std::vector<Message>& messages() const { return messages_; }
  const std::vector<std::string>& begun() const { return begun_; }
  std::int64_t fenced = 0;  // messages refused in this batch
  std::string refusal;      // why the newest of them was, for the log; empty: not said

  // Makes it true in memory; call after the commit.
  void ApplyTo(State& state);

 private:
  friend class QueuedClass;
  std::vector<const Job*> Merged(const std::set<Age>& stored, bool (*belongs)(const Job&)) const;

  const State& state_;
  std::map<std::string, Job> jobs_;
  std::map<std::string, Node> nodes_;
  std::set<std::string> touched_;  // of nodes_: nothing to commit
  std::map<std::string, Request> requests_;
  std::map<std::string, Project> projects_;
  std::map<QueueKey, Queue> queues_;
  std::optional<std::map<std::string, Explanation>> waiting_;
  TimePoint next_pass_{};
  bool woken_ = false;
  std::vector<TimePoint> preemptions_;
  double lost_slot_seconds_ = 0;
  std::map<Reason, std::int64_t> attempts_ended_;
  std::vector<Event> events_;
  std::vector<Message> messages_;
  std::vector<std::string> begun_;
  std::int64_t next_queue_seq_, next_event_seq_;
};

}  // namespace vicreg::core
