#include <algorithm>
#include <utility>

#include "common/planted.h"
#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"

namespace vicreg::core {

absl::Status NoJob(const std::string& id) {
  return absl::NotFoundError("no job " + id.substr(0, 80) + ": `vicreg list` shows all");
}

absl::StatusOr<std::string> Submit(Transaction& tx, Job job, const std::string& new_id, const std::string& request_id,
                                   const std::string& sha256) {
  if (const Request* before = tx.FindRequest(request_id); before != nullptr) {
    if (before->sha256 == sha256) return before->job_id;
    return absl::AlreadyExistsError("request id " + request_id + " was used for another spec (job " + before->job_id +
                                    "): use a new request id");
  }
  job.id = new_id;
  job.submitted_us = tx.wall_us;
  job.lived_as_of = tx.now;
  const std::string owner = job.owner;
  Job& added = tx.AddJob(std::move(job));
  tx.Move(added, JobState::kQueued, Reason::kNone, "submitted as " + added.name, "SUBMITTED", owner);
  if (!Planted(Plant::kRequestForgotten)) tx.AddRequest({request_id, sha256, new_id});
  return new_id;
}

namespace {

absl::Status Ended(const Job& job, const std::string& wish) {
  return absl::FailedPreconditionError("job " + job.id + " is " + Name(job.state) + " and cannot be " + wish +
                                       ": submit it again");
}

// The job to change; an error if there is none, or if it is not as the caller saw it.
absl::StatusOr<const Job*> Find(const Transaction& tx, const Wish& wish) {
  const Job* job = tx.FindJob(wish.job_id);
  if (job == nullptr) return NoJob(wish.job_id);
  if (wish.expected_version != 0 && wish.expected_version != job->events) {
    return absl::AbortedError("job " + job->id + " has changed: expected version " +
                              std::to_string(wish.expected_version) + ", found " + std::to_string(job->events) +
                              ": look again, then repeat");
  }
  return job;
}

// It has had the one attempt that its job file allows: it may run on, or be cancelled.
absl::Status HadItsAttempt(const Job& job, const std::string& wish) {
  return absl::FailedPreconditionError("job " + job.id + " has `restart: never` and has started: it cannot be " + wish +
                                       ", as it could not go on; `vicreg cancel` ends it");
}

std::string By(const Wish& wish) { return "by " + wish.actor + (wish.note.empty() ? "" : " (" + wish.note + ")"); }

}  // namespace

absl::Status Cancel(Transaction& tx, const Wish& wish) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if ((IsTerminal(found->state) && !Planted(Plant::kTerminalLeft)) || found->destination == Destination::kCancel)
    return absl::OkStatus();
  Stop(tx, tx.EditJob(found->id), Destination::kCancel, Reason::kCancelRequested, wish.grace_seconds,
       "cancelled " + By(wish), wish.actor);
  return absl::OkStatus();
}

absl::Status Pause(Transaction& tx, const Wish& wish) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "paused");
  if (found->state == JobState::kPaused || found->destination >= Destination::kPause) return absl::OkStatus();
  if (Spent(*found)) return HadItsAttempt(*found, "paused");
  Stop(tx, tx.EditJob(found->id), Destination::kPause, Reason::kPauseRequested, wish.grace_seconds,
       "paused " + By(wish), wish.actor);
  return absl::OkStatus();
}

absl::Status Resume(Transaction& tx, const Wish& wish) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "resumed");
  if (found->destination >= Destination::kPause)
    return absl::FailedPreconditionError("job " + found->id + " is still stopping: resume it when it is PAUSED");
  if (found->state != JobState::kPaused) return absl::OkStatus();
  if (found->held)
    return absl::FailedPreconditionError("job " + found->id + " is held: `vicreg release` lets it start");
  Job& job = tx.EditJob(found->id);
  job.infra_ends_us.clear();
  tx.Move(job, JobState::kQueued, Reason::kNone, "resumed " + By(wish), "QUEUED", wish.actor);
  return absl::OkStatus();
}

absl::Status Hold(Transaction& tx, const Wish& wish) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "held");
  if (found->held) return absl::OkStatus();
  Job& job = tx.EditJob(found->id);
  job.held = true;
  if (!HoldsProcesses(job) && job.state != JobState::kPaused) {
    job.ranks.clear();
    job.prepared.clear();
    tx.Move(job, JobState::kPaused, Reason::kHeld, "held " + By(wish) + ": `vicreg release` lets it start", "PAUSED",
            wish.actor);
  } else {
    tx.Note(job, Reason::kHeld, "held " + By(wish) + ": runs on, and will not start again", "HELD", wish.actor);
  }
  return absl::OkStatus();
}

absl::Status Release(Transaction& tx, const Wish& wish) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "released");
  if (!found->held) return absl::OkStatus();
  Job& job = tx.EditJob(found->id);
  job.held = false;
  if (job.state == JobState::kPaused && job.reason == Reason::kHeld) {
    tx.Move(job, JobState::kQueued, Reason::kNone, "released " + By(wish), "QUEUED", wish.actor);
  } else {
    tx.Note(job, job.reason, "released " + By(wish), "RELEASED", wish.actor);
  }
  return absl::OkStatus();
}

absl::Status SetPriority(Transaction& tx, const Wish& wish, int priority) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "given another priority");
  const Queue* queue = tx.FindQueue({found->project, found->queue});
  const int least = queue == nullptr ? -1000 : queue->min_priority,
            most = queue == nullptr ? 1000 : queue->max_priority;
  if (priority < least || priority > most) {
    return absl::InvalidArgumentError("priority: found " + std::to_string(priority) + "; queue " + found->queue +
                                      " of project " + found->project + " takes " + std::to_string(least) + " to " +
                                      std::to_string(most));
  }
  if (priority == found->priority) return absl::OkStatus();
  Job& job = tx.EditJob(found->id);
  const int before = std::exchange(job.priority, priority);
  tx.Wake();
  tx.Note(job, job.reason, "priority " + std::to_string(before) + " -> " + std::to_string(priority) + " " + By(wish),
          "PRIORITY", wish.actor);
  return absl::OkStatus();
}

absl::Status RequeueJob(Transaction& tx, const Wish& wish) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "requeued");
  if (found->state == JobState::kQueued || found->destination != Destination::kByOutcome) return absl::OkStatus();
  if (found->state == JobState::kPaused) return Resume(tx, wish);
  if (Spent(*found)) return HadItsAttempt(*found, "requeued");
  Stop(tx, tx.EditJob(found->id), Destination::kRequeue, Reason::kRequeued, wish.grace_seconds, "requeued " + By(wish),
       wish.actor);
  return absl::OkStatus();
}

absl::Status Restart(Transaction& tx, const Wish& wish, std::optional<std::int64_t> from_step) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "restarted");
  const auto& saved = found->checkpoints;
  if (from_step && *from_step != 0 &&
      std::none_of(saved.begin(), saved.end(), [&](const Checkpoint& c) { return c.step == *from_step; })) {
    std::string steps;
    for (const Checkpoint& c : saved) steps += (steps.empty() ? "" : ", ") + std::to_string(c.step);
    return absl::InvalidArgumentError("step: found " + std::to_string(*from_step) + "; job " + found->id +
                                      " has checkpoints of steps " + (steps.empty() ? "(none)" : steps) +
                                      ", or 0 for its start");
  }
  if (found->destination >= Destination::kPause)
    return absl::FailedPreconditionError("job " + found->id +
                                         " is stopping for good or being paused: it cannot restart");
  if (Spent(*found)) return HadItsAttempt(*found, "restarted");
  Job& job = tx.EditJob(found->id);
  if (from_step) job.rollback_to = *from_step;
  Stop(tx, job, Destination::kRequeue, Reason::kRestarted, wish.grace_seconds,
       "restarted " + By(wish) + (from_step ? " from step " + std::to_string(*from_step) : ""), wish.actor);
  // What they would save is given up, and would push out what they are to go back to.
  if (from_step && HoldsProcesses(job)) {
    for (const std::string& node : NodesOf(job)) tx.Send(node, SendAbort{job.id, job.attempt, job.message});
  }
  return absl::OkStatus();
}

absl::Status Resize(Transaction& tx, const Wish& wish, int world_size) {
  ASSIGN_OR_RETURN(const Job* found, Find(tx, wish));
  if (IsTerminal(found->state)) return Ended(*found, "resized");
  const int most = std::min(found->batch_size, 4096);
  if (world_size < 1 || world_size > most) {
    return absl::InvalidArgumentError("world_size: found " + std::to_string(world_size) + "; expected 1 to " +
                                      std::to_string(most) + ", at most one rank per row of the global batch (" +
                                      std::to_string(found->batch_size) + "), which a resize does not change");
  }
  if (found->min_world == world_size && found->max_world == world_size) return absl::OkStatus();
  if (found->destination >= Destination::kPause)
    return absl::FailedPreconditionError("job " + found->id + " is stopping: resize it when it is PAUSED");
  if (Spent(*found)) return HadItsAttempt(*found, "resized");
  Job& job = tx.EditJob(found->id);
  const int before = job.world_size;
  job.min_world = job.max_world = world_size;
  const std::string message =
      std::to_string(before) + " -> " + std::to_string(world_size) + " ranks " + By(wish) + ", same global batch";
  if (job.state == JobState::kPaused || (HoldsProcesses(job) && before == world_size)) {
    tx.Note(job, job.reason, message, "RESIZED", wish.actor);
  } else {
    Stop(tx, job, Destination::kRequeue, Reason::kResized, wish.grace_seconds, message, wish.actor);
  }
  return absl::OkStatus();
}

absl::Status Once(Transaction& tx, const std::string& request_id, const std::string& sha256, const std::string& job_id,
                  const std::function<absl::Status()>& decide) {
  if (const Request* before = tx.FindRequest(request_id); before != nullptr) {
    if (before->sha256 == sha256) return absl::OkStatus();
    return absl::AlreadyExistsError("request id " + request_id + " was used for another change (of job " +
                                    before->job_id + "): use a new request id");
  }
  RETURN_IF_ERROR(decide());
  tx.AddRequest({request_id, sha256, job_id});
  return absl::OkStatus();
}

}  // namespace vicreg::core
