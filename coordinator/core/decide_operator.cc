#include <algorithm>
#include <utility>

#include "common/ids.h"
#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"

namespace vicreg::core {
namespace {

// Queues, and projects, that may be set: more would slow every pass.
constexpr std::size_t kMaxPolicies = 1000;

}  // namespace

absl::Status SetNodeAdmin(Transaction& tx, const std::string& name, AdminState admin, double grace_seconds,
                          const std::string& actor) {
  const Node* found = tx.FindNode(name);
  if (found == nullptr) return absl::NotFoundError("no node " + name.substr(0, 80) + ": `vicreg node list` shows all");
  // A node that failed its probe, and was not quarantined only as too many are, is opened like one that was.
  const bool shut =
      found->state == NodeState::kQuarantined || (found->state == NodeState::kProbing && !found->problem.empty());
  const bool opens = admin == AdminState::kOpen && shut;
  if (found->admin != admin || opens) {
    Node& node = tx.EditNode(name);
    node.admin = admin;
    if (opens) {
      node.state = NodeState::kReady;
      node.problem.clear();
    }
    if (admin == AdminState::kOpen) node.strikes.clear();
    node.message = admin == AdminState::kOpen       ? "opened by " + actor
                   : admin == AdminState::kCordoned ? "cordoned by " + actor + ": nothing new is placed there"
                                                    : "drained by " + actor + ": its gangs leave";
  }
  if (admin != AdminState::kDraining) return absl::OkStatus();
  for (const Job* job : tx.HoldingJobs()) {
    if (NodesOf(*job).count(name) == 0 || job->state == JobState::kStopping) continue;
    if (!HoldsProcesses(*job) && job->state != JobState::kReserved) continue;
    Stop(tx, tx.EditJob(job->id), Destination::kRequeue, Reason::kDrained, grace_seconds,
         "node " + name + " is drained by " + actor, actor);
  }
  return absl::OkStatus();
}

void Restore(Transaction& tx, const std::string& job_id, int attempt_seen) {
  Job& job = tx.EditJob(job_id);
  // One more than any number that was given out: the copy may be older than an attempt that has made no folder yet.
  job.attempt = std::max(job.attempt, attempt_seen) + 1;
  if (!HoldsSlots(job.state)) {
    tx.Note(job, job.reason, "restored from a snapshot", "RESTORED", "operator");
    return;
  }
  job.ranks.clear();
  job.prepared.clear();
  job.last_slots.clear();
  const Destination destination = std::exchange(job.destination, Destination::kByOutcome);
  const Reason cause = std::exchange(job.cause, Reason::kNone);
  if (destination == Destination::kCancel) {
    tx.Move(job, JobState::kCancelled, Reason::kCancelRequested, "cancelled before the snapshot it was restored from",
            "CANCELLED", "operator");
    return;
  }
  if (destination == Destination::kFail || Spent(job)) {
    tx.Move(job, JobState::kFailed, destination == Destination::kFail ? cause : Reason::kPreempted,
            "restored from a snapshot, and it may not start again", "FAILED", "operator");
    return;
  }
  Requeue(tx, job, Reason::kRequeued, "restored from a snapshot, to go on from step " + std::to_string(NewestStep(job)),
          "operator");
}

namespace {

void CheckName(Problems& problems, const std::string& field, const std::string& name) {
  if (!IsName(name)) problems.Add(field + ": found \"" + name.substr(0, 80) + "\"; expected " + kNameRule);
}

}  // namespace

absl::Status SetQueue(Transaction& tx, const Queue& queue) {
  Problems problems;
  CheckName(problems, "project", queue.project);
  CheckName(problems, "name", queue.name);
  for (const auto& [field, value] :
       {std::pair{"min_priority", queue.min_priority}, {"max_priority", queue.max_priority}}) {
    if (value < -1000 || value > 1000)
      problems.Add(std::string(field) + ": found " + std::to_string(value) + "; expected -1000 to 1000");
  }
  if (queue.min_priority > queue.max_priority) {
    problems.Add("min_priority: found " + std::to_string(queue.min_priority) + ", above max_priority " +
                 std::to_string(queue.max_priority));
  }
  if (queue.labels.size() > 16)
    problems.Add("labels: found " + std::to_string(queue.labels.size()) + "; expected at most 16");
  for (std::size_t i = 0; i < std::min<std::size_t>(queue.labels.size(), 16); ++i) {
    const std::string& label = queue.labels[i];
    if (!IsLabel(label)) problems.Add("labels: found \"" + label.substr(0, 130) + "\"; expected " + kLabelRule);
  }
  if (!tx.HasQueue({queue.project, queue.name}) && tx.Queues().size() >= kMaxPolicies)
    problems.Add("queues: found 1000, the limit: use one there is");
  RETURN_IF_ERROR(problems.status());
  tx.SetQueue(queue);
  return absl::OkStatus();
}

absl::Status SetProject(Transaction& tx, const Project& project) {
  Problems problems;
  CheckName(problems, "project", project.name);
  for (const auto& [field, value] : {std::pair{"cpu_slots", project.cpu_quota}, {"gpu_slots", project.gpu_quota}}) {
    if (value < -1 || value > 1'000'000) {
      problems.Add(std::string(field) + ": found " + std::to_string(value) +
                   " slots; expected 0 to 1000000, or -1 for no limit");
    }
  }
  if (!(project.weight >= 0.001 && project.weight <= 1000))
    problems.Add("weight: found " + std::to_string(project.weight) + "; expected 0.001 to 1000");
  if (!tx.HasProject(project.name) && tx.Projects().size() >= kMaxPolicies)
    problems.Add("projects: found 1000, the limit: use one there is");
  RETURN_IF_ERROR(problems.status());
  tx.SetProject(project);
  return absl::OkStatus();
}

absl::Status CheckQueue(const Transaction& tx, const Job& job) {
  Problems problems;
  const Queue* queue = tx.FindQueue({job.project, job.queue});
  if (queue == nullptr) {
    std::string names = "default";
    for (const Queue& other : tx.Queues()) {
      if (other.project == job.project && other.name != "default") names += ", " + other.name;
    }
    problems.Add("queue: found " + job.queue + "; project " + job.project + " has: " + names + "; `vicreg queue set " +
                 job.queue + " --project " + job.project + "` makes one");
  } else if (job.priority < queue->min_priority || job.priority > queue->max_priority) {
    problems.Add("priority: found " + std::to_string(job.priority) + "; queue " + job.queue + " of project " +
                 job.project + " takes " + std::to_string(queue->min_priority) + " to " +
                 std::to_string(queue->max_priority));
  }
  const int quota = tx.FindProject(job.project).Quota(job.slot_kind);
  if (quota >= 0 && quota < job.min_world) {
    problems.Add("world_size: found " + std::to_string(job.min_world) + "; project " + job.project + " may hold " +
                 std::to_string(quota) + " " + job.slot_kind + " slots: `vicreg quota set " + job.project +
                 "` raises it");
  }
  return problems.status();
}

}  // namespace vicreg::core
