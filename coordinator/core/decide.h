#pragma once

// One operation, one function: what a message or a moment means. Each works on a Transaction (changes, events,
// messages, sentence) and touches nothing else. Errors are for the caller; then nothing was changed.

#include <string>
#include <vector>

#include "common/status.h"
#include "coordinator/core/transaction.h"

namespace vicreg::core {

// ---- users ----

// `job` comes resolved, without id and state. AlreadyExists: the request id was used with other bytes. Returns the
// job's id: of the first call, if the same request comes again.
absl::StatusOr<std::string> Submit(Transaction& tx, Job job, const std::string& new_id, const std::string& request_id,
                                   const std::string& sha256);

// Ranks get `grace_seconds`. A job that ended stays as it is. NotFound.
absl::Status Cancel(Transaction& tx, const std::string& job_id, double grace_seconds, const std::string& actor);

// ---- workers ----

struct Held {
  std::string job_id;
  int attempt = 0, rank = 0;
};

struct Registration {
  Node node;  // what it offers; incarnation 0: a new process, else the one it was given
  std::vector<Held> held;
};

struct Welcome {
  std::int64_t incarnation = 0;
  std::vector<Held> keep;  // of the held ones; all others must be killed
};

// AlreadyExists: the name has a live lease under another boot id. Aborted: an older incarnation. Ranks this node should
// hold and does not are lost; missing Prepare and Launch messages are sent again.
absl::StatusOr<Welcome> Register(Transaction& tx, const Registration& registration);

// Aborted: not the current incarnation.
absl::Status Heartbeat(Transaction& tx, const std::string& node, std::int64_t incarnation);

void OnPrepared(Transaction& tx, const std::string& node, std::int64_t incarnation, const std::string& job_id,
                int attempt, const std::string& refusal);

struct Report {
  std::string job_id;
  int attempt = 0, rank = 0;
  std::int64_t sequence = 0;
  enum class Kind { kNothing, kSpawned, kConnected, kStepping, kCheckpoint, kExported, kExited } kind = Kind::kNothing;
  int pid = 0;
  std::int64_t resume_step = 0, total_steps = 0;
  Checkpoint checkpoint;
  std::string export_path;
  ExitReason exit_reason = ExitReason::kNone;
  std::string exit_message;
  std::int64_t nonfinite_step = 0;
};

// Answers with an ack, fenced when the attempt, incarnation or rank is not current. Duplicates change nothing.
void OnReport(Transaction& tx, const std::string& node, std::int64_t incarnation, const Report& report);

// ---- time ----

// Silent nodes, reservations that were not confirmed, delays that are over. `since_start`: nothing is LOST within the
// failover grace.
void OnTime(Transaction& tx, std::chrono::milliseconds since_start);

// Reserves what fits and explains what does not. After every batch.
void Schedule(Transaction& tx);

// What a restarted coordinator does first: reservations nobody will confirm go back to the queue.
void Recover(Transaction& tx);

}  // namespace vicreg::core
