#pragma once

// One operation, one function: what a message or a moment means. Each works on a Transaction (changes, events,
// messages, sentence) and touches nothing else. Errors are for the caller; then nothing was changed.

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "coordinator/core/transaction.h"

namespace vicreg::core {

// NotFound.
absl::Status NoJob(const std::string& id);

// ---- users ----

// `job` comes resolved, without id and state. AlreadyExists: the request id was used with other bytes. Returns the
// job's id: of the first call, if the same request comes again.
absl::StatusOr<std::string> Submit(Transaction& tx, Job job, const std::string& new_id, const std::string& request_id,
                                   const std::string& sha256);

// What somebody asks of one job. A job that has ended cannot be changed (FailedPrecondition), but may be cancelled in
// vain. NotFound: no such job. Aborted: `expected_version` (0: any) is not the number of its newest event.
struct Wish {
  std::string job_id;
  std::string actor;
  double grace_seconds = 10;  // of its ranks, to save and leave
  std::string note = {};      // why, in the words of whoever asks
  std::int64_t expected_version = 0;
};
// Each is idempotent: wished again it changes nothing. See orchestration in docs/operations/scheduling.md.
absl::Status Cancel(Transaction& tx, const Wish& wish);
absl::Status Pause(Transaction& tx, const Wish& wish);
// Of a paused job. FailedPrecondition: held, or still stopping.
absl::Status Resume(Transaction& tx, const Wish& wish);
// Forbids the next start; what runs runs on.
absl::Status Hold(Transaction& tx, const Wish& wish);
absl::Status Release(Transaction& tx, const Wish& wish);
// InvalidArgument: outside its queue's bounds.
absl::Status SetPriority(Transaction& tx, const Wish& wish, int priority);
// Back to its place in the queue, from the newest checkpoint.
absl::Status RequeueJob(Transaction& tx, const Wish& wish);
// As RequeueJob, from the checkpoint of `from_step` (0: from the start): later ones are given up. InvalidArgument: it
// has none of that step.
absl::Status Restart(Transaction& tx, const Wish& wish, std::optional<std::int64_t> from_step);
// Another number of ranks for the same global batch, from the newest checkpoint. InvalidArgument: more than rows.
absl::Status Resize(Transaction& tx, const Wish& wish, int world_size);

// Decides once for a request id: again with the same bytes it is answered OK and nothing is decided. AlreadyExists: the
// id was used with other bytes.
absl::Status Once(Transaction& tx, const std::string& request_id, const std::string& sha256, const std::string& job_id,
                  const std::function<absl::Status()>& decide);

// ---- operators ----

// NotFound: no node of this name. Cordoned: no new gangs; draining: its gangs leave too, with `grace_seconds` to save,
// uncharged; opening it also ends a quarantine, and the probation of a node that failed its probe.
absl::Status SetNodeAdmin(Transaction& tx, const std::string& node, AdminState admin, double grace_seconds,
                          const std::string& actor);
// What a probe of a node found.
struct ProbeAnswer {
  std::string node;
  std::int64_t incarnation = 0;  // of the worker that was asked
  std::int64_t number = 0;       // of the coordinator's own (SendProbe); 0: somebody else's
  std::string problem;           // empty: it passed
  std::string actor = "coordinator";
};
// Passing makes a node READY that is probed or quarantined. Failing quarantines one that is probed, as far as the cap
// allows: else it stays PROBING and says why (probation.h). An operator's failure is a strike besides. Of another
// incarnation, or of another than the newest of the coordinator's own probes: counted, and nothing else.
void OnProbed(Transaction& tx, const ProbeAnswer& answer);
// InvalidArgument: every problem, a line each.
absl::Status SetQueue(Transaction& tx, const Queue& queue);
absl::Status SetProject(Transaction& tx, const Project& project);
// May a job with these numbers be in that queue? Every problem, a line each.
absl::Status CheckQueue(const Transaction& tx, const Job& job);

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
  std::vector<Held> keep;             // of the held ones; all others must be killed
  std::vector<std::int64_t> cursors;  // of each of those: the newest report that is committed
};

// Whether the node is READY or probed first, see NodeState.
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
  std::int64_t last_step = 0;
};

// Answers with an ack, fenced when the attempt, incarnation or rank is not current. Duplicates change nothing.
void OnReport(Transaction& tx, const std::string& node, std::int64_t incarnation, const Report& report);

// ---- time ----

// Silent nodes, probes that are due, reservations that were not confirmed, delays and deadlines that are over.
// `since_start`: nothing is LOST within the failover grace.
void OnTime(Transaction& tx, std::chrono::milliseconds since_start);

// Where a job would start if it were submitted now, or why not, and whom it would displace. Changes nothing.
struct Foreseen {
  std::vector<Slot> slots;  // of rank 0, 1, ...; empty: it would wait
  Explanation why;
  std::vector<std::string> displaces;            // ids
  std::optional<double> starts_in_seconds = {};  // of one that would wait; nullopt: not known
};
Foreseen PlanOf(const Transaction& tx, Job job);

// In how many seconds a job that would wait now could start, when running jobs end as they are expected to (`ends_in`
// seconds, by id) and nothing else changes. nullopt: not even then, or nobody's end is known.
std::optional<double> EarliestStart(const Transaction& tx, Job job, const std::map<std::string, double>& ends_in);

// Reserves what fits and explains what does not. After every batch.
void Schedule(Transaction& tx);

// Of a live job in a store that was restored from a copy: what ran since is not known. Its attempt number is lifted to
// `attempt_seen` and beyond, so that all of it is fenced; a gang goes back to the queue.
void Restore(Transaction& tx, const std::string& job_id, int attempt_seen);

// What a restarted coordinator does first: reservations nobody will confirm go back to the queue.
void Recover(Transaction& tx);

}  // namespace vicreg::core
