#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"

namespace vicreg::core {

absl::Status SetNodeAdmin(Transaction& tx, const std::string& name, AdminState admin, double grace_seconds,
                          const std::string& actor) {
  const Node* found = tx.FindNode(name);
  if (found == nullptr) return absl::NotFoundError("no node " + name.substr(0, 80) + ": `vicreg node list` shows all");
  const bool opens = admin == AdminState::kOpen && found->state == NodeState::kQuarantined;
  if (found->admin != admin || opens) {
    Node& node = tx.EditNode(name);
    node.admin = admin;
    if (opens) node.state = NodeState::kReady;
    if (admin == AdminState::kOpen) node.strikes.clear();
    node.message = admin == AdminState::kOpen       ? "opened by " + actor
                   : admin == AdminState::kCordoned ? "cordoned by " + actor + ": nothing new is placed there"
                                                    : "drained by " + actor + ": its gangs leave";
  }
  if (admin != AdminState::kDraining) return absl::OkStatus();
  for (const Job* job : tx.LiveJobs()) {
    if (NodesOf(*job).count(name) == 0 || job->state == JobState::kStopping) continue;
    if (!HoldsProcesses(*job) && job->state != JobState::kReserved) continue;
    Stop(tx, tx.EditJob(job->id), Destination::kRequeue, Reason::kDrained, grace_seconds,
         "node " + name + " is drained by " + actor, actor);
  }
  return absl::OkStatus();
}

absl::Status SetQueue(Transaction& tx, const Queue& queue) {
  std::string problems;
  const auto bad = [&](const std::string& line) { problems += (problems.empty() ? "" : "\n") + line; };
  for (const auto& [field, value] :
       {std::pair{"min_priority", queue.min_priority}, {"max_priority", queue.max_priority}}) {
    if (value < -1000 || value > 1000)
      bad(std::string(field) + ": found " + std::to_string(value) + "; expected -1000 to 1000");
  }
  if (queue.min_priority > queue.max_priority) {
    bad("min_priority: found " + std::to_string(queue.min_priority) + ", above max_priority " +
        std::to_string(queue.max_priority));
  }
  if (tx.FindQueue({queue.project, queue.name}) == nullptr && tx.Queues().size() >= 1000)
    bad("queues: found 1000, the limit: use one there is");
  if (!problems.empty()) return absl::InvalidArgumentError(problems);
  tx.SetQueue(queue);
  return absl::OkStatus();
}

absl::Status SetProject(Transaction& tx, const Project& project) {
  std::string problems;
  const auto bad = [&](const std::string& line) { problems += (problems.empty() ? "" : "\n") + line; };
  for (const auto& [field, value] : {std::pair{"cpu", project.cpu_quota}, {"gpu", project.gpu_quota}}) {
    if (value < -1 || value > 1'000'000) {
      bad(std::string(field) + ": found " + std::to_string(value) +
          " slots; expected 0 to 1000000, or -1 for no limit");
    }
  }
  if (!(project.weight >= 0.001 && project.weight <= 1000))
    bad("weight: found " + std::to_string(project.weight) + "; expected 0.001 to 1000");
  if (tx.FindProject(project.name).name != project.name || tx.Projects().size() >= 1000)
    bad("projects: found 1000, the limit: use one there is");
  if (!problems.empty()) return absl::InvalidArgumentError(problems);
  tx.SetProject(project);
  return absl::OkStatus();
}

absl::Status CheckQueue(const Transaction& tx, const Job& job) {
  std::string problems;
  const auto bad = [&](const std::string& line) { problems += (problems.empty() ? "" : "\n") + line; };
  const Queue* queue = tx.FindQueue({job.project, job.queue});
  if (queue == nullptr) {
    std::string names = "default";
    for (const Queue& other : tx.Queues()) {
      if (other.project == job.project && other.name != "default") names += ", " + other.name;
    }
    bad("queue: found " + job.queue + "; project " + job.project + " has: " + names + "; `vicreg queue set " +
        job.queue + " --project " + job.project + "` makes one");
  } else if (job.priority < queue->min_priority || job.priority > queue->max_priority) {
    bad("priority: found " + std::to_string(job.priority) + "; queue " + job.queue + " of project " + job.project +
        " takes " + std::to_string(queue->min_priority) + " to " + std::to_string(queue->max_priority));
  }
  const int quota = tx.FindProject(job.project).Quota(job.slot_kind);
  if (quota >= 0 && quota < job.min_world) {
    bad("world_size: found " + std::to_string(job.min_world) + "; project " + job.project + " may hold " +
        std::to_string(quota) + " " + job.slot_kind + " slots: `vicreg quota set " + job.project + "` raises it");
  }
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(problems);
}

}  // namespace vicreg::core
