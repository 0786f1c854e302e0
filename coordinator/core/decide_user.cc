#include "coordinator/core/decide.h"

namespace vicreg::core {

absl::StatusOr<std::string> Submit(Transaction& tx, Job job, const std::string& new_id, const std::string& request_id,
                                   const std::string& sha256) {
  if (const Request* before = tx.FindRequest(request_id); before != nullptr) {
    if (before->sha256 == sha256) return before->job_id;
    return absl::AlreadyExistsError("request id " + request_id + " was used for another spec (job " + before->job_id +
                                    "): use a new request id");
  }
  job.id = new_id;
  job.submitted_us = tx.wall_us;
  const std::string owner = job.owner;
  Job& added = tx.AddJob(std::move(job));
  tx.Move(added, JobState::kQueued, Reason::kNone, "submitted as " + added.name, "SUBMITTED", owner);
  tx.AddRequest({request_id, sha256, new_id});
  return new_id;
}

absl::Status Cancel(Transaction& tx, const std::string& job_id, double grace_seconds, const std::string& actor) {
  const Job* found = tx.FindJob(job_id);
  if (found == nullptr) return absl::NotFoundError("no job " + job_id.substr(0, 80) + ": `vicreg list` shows all");
  if (IsTerminal(found->state) || found->cancel) return absl::OkStatus();
  Job& job = tx.EditJob(job_id);
  job.cancel = true;
  const bool processes =
      job.state == JobState::kStarting || job.state == JobState::kRunning || job.state == JobState::kStopping;
  if (!processes) {
    job.ranks.clear();
    tx.Move(job, JobState::kCancelled, Reason::kCancelRequested, "cancelled by " + actor, "CANCELLED", actor);
    return absl::OkStatus();
  }
  if (job.state == JobState::kStopping) {
    tx.Note(job, Reason::kCancelRequested, "cancelled by " + actor + " while stopping", "CANCEL", actor);
    return absl::OkStatus();
  }
  tx.Move(job, JobState::kStopping, Reason::kCancelRequested,
          "cancelled by " + actor + "; ranks get " + std::to_string(static_cast<int>(grace_seconds)) + " s", "STOPPING",
          actor);
  std::set<std::string> nodes;
  for (const Rank& rank : job.ranks) nodes.insert(rank.node);
  for (const std::string& node : nodes)
    tx.Send(node, SendStop{job.id, job.attempt, grace_seconds, "cancelled by " + actor});
  return absl::OkStatus();
}

}  // namespace vicreg::core
