#pragma once

// What the coordinator knows, as plain data. No protobuf, no I/O, no clock. Touched by the core thread only; others see
// copies.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace vicreg::core {

using TimePoint = std::chrono::steady_clock::time_point;
inline constexpr TimePoint kAtOnce = TimePoint::min();

// Numbers equal vicreg.v1.JobState.
enum class JobState {
  kQueued = 1,
  kReserved = 2,
  kStarting = 3,
  kRunning = 4,
  kStopping = 5,
  kBackoff = 6,
  kPaused = 7,
  kSucceeded = 8,
  kFailed = 9,
  kCancelled = 10
};

// Numbers equal vicreg.v1.Reason.
enum class Reason {
  kNone = 0,
  kNoNodes = 1,
  kNotEnoughSlots = 2,
  kSlotsInUse = 3,
  kQueuedBehind = 4,
  kDataRootMissing = 5,
  kRetryDelay = 6,
  kQuota = 7,
  kQueueClosed = 8,
  kNoMatchingNode = 9,
  kReserving = 10,
  kLaunching = 11,
  kTraining = 12,
  kTopology = 13,
  kPreempting = 14,
  kCompleted = 20,
  kCancelRequested = 21,
  kConfig = 22,
  kData = 23,
  kFingerprint = 24,
  kNoValidCheckpoint = 25,
  kNumeric = 26,
  kCrashLoop = 27,
  kCrash = 28,
  kInfra = 29,
  kNodeLost = 30,
  kInternal = 31,
  kRollback = 32,
  kPauseRequested = 40,
  kHeld = 41,
  kInfraHold = 42,
  kPreempted = 43,
  kDrained = 44,
  kResized = 45,
  kRequeued = 46,
  kRestarted = 47,
  kOutOfMemory = 48,
  kHang = 49,
  kDeterministicCrash = 50,
  kDeadline = 51
};

// Numbers equal vicreg.v1.ExitReason.
enum class ExitReason {
  kNone = 0,
  kCompleted = 1,
  kStopped = 2,
  kCancelled = 3,
  kAborted = 4,
  kFenced = 5,
  kConfig = 6,
  kData = 7,
  kFingerprint = 8,
  kNoValidCheckpoint = 9,
  kNumeric = 10,
  kMismatch = 11,
  kDeviceOom = 12,
  kHostOom = 13,
  kRendezvous = 14,
  kCollective = 15,
  kStorage = 16,
  kDevice = 17,
  kStartFailed = 18,
  kLost = 19,
  kInternal = 20,
  kSignalled = 21,
  kHung = 22
};
const char* Name(ExitReason reason);
const char* Name(JobState state);

bool IsTerminal(JobState state);
// The ranks of its newest attempt claim their slots.
bool HoldsSlots(JobState state);

enum class RankState { kAssigned = 0, kSpawned = 1, kConnected = 2, kStepping = 3, kExited = 4, kLost = 5 };
const char* Name(RankState state);

// One process of the current attempt, and the slot it claims until the attempt is settled.
struct Rank {
  int rank = 0;
  std::string node;
  std::int64_t incarnation = 0;  // of the worker it was given to; reports of another are fenced
  int slot = 0;
  RankState state = RankState::kAssigned;
  int pid = 0;
  std::int64_t acked = 0;  // newest report whose effect is committed
  ExitReason exit_reason = ExitReason::kNone;
  std::string exit_message;
  std::int64_t nonfinite_step = 0;  // exit kNumeric: the 1-based step whose batch gave it, 0 unknown
  std::int64_t last_step = 0;       // finished when it ended, 0 unknown
  bool settled() const { return state == RankState::kExited || state == RankState::kLost; }
};

// What happens to a job whose attempt was asked to stop, once its ranks have settled. May only grow while it stops: who
// cancels a job that is being paused has cancelled it.
enum class Destination {
  kByOutcome = 0,  // the restart policy decides
  kRequeue = 1,
  kPause = 2,
  kCancel = 3,
  kFail = 4  // for the job's cause; graver than a pause, and still a cancel makes it CANCELLED
};
bool Graver(Destination a, Destination b);

// How closely the ranks of a gang must sit together.
enum class Level { kAny = 0, kRack = 1, kNode = 2 };
const char* Name(Level level);

struct Topology {
  Level level = Level::kNode;
  bool required = false;  // false: as close as fits now, at best within `level`
  bool operator==(const Topology&) const = default;
};

struct Slot {
  std::string node;
  int index = 0;
  auto operator<=>(const Slot&) const = default;
};

struct Checkpoint {
  int attempt = 0;
  std::int64_t step = 0;
  std::string path, hash;
  std::int64_t bytes = 0;
};

// Two nodes, by name.
using NodePair = std::pair<std::string, std::string>;

// Where a job crashed, and how often in a row.
struct CrashSite {
  int rank = -1;
  std::int64_t step = 0;  // finished by it
  int times = 0;
};

struct Job {
  std::string id, name, owner;
  std::string spec;  // serialized JobSpec, as resolved; opaque here
  std::string recipe_hash;
  std::string project = "default", queue = "default";
  int priority = 0;  // higher goes first
  std::string slot_kind = "cpu";
  std::string data_root;
  std::vector<std::string> labels;  // "key=value"; only nodes that have them all
  Topology topology;
  // A gang has between min_world and max_world ranks; world_size is what the newest attempt has, or, before the first,
  // min_world. The global batch is the same for all of them.
  int min_world = 1, max_world = 1, world_size = 1;
  int batch_size = 1;  // rows of the global batch: no gang is larger
  int max_charges = 3;
  bool one_attempt = false;      // restart: never. None after the first that started ranks
  std::int64_t deadline_us = 0;  // it may live so long; 0: as long as it takes
  int checkpoint_keep = 3;
  std::int64_t queue_seq = 0;

  JobState state = JobState::kQueued;
  Reason reason = Reason::kNone;
  std::string message;
  int attempt = 0;                                    // newest; only grows
  std::vector<Rank> ranks;                            // of the newest attempt
  std::set<std::string> prepared;                     // nodes that confirmed a reservation
  Destination destination = Destination::kByOutcome;  // of a stopping attempt
  Reason cause = Reason::kNone;                       // why it was asked to stop; fixed until it has settled
  bool held = false;                                  // may not start until it is released
  std::int64_t rollback_to = -1;                      // >= 0: once settled, checkpoints above this step are given up
  std::vector<Slot> last_slots;    // of the attempt before: a crash returns to them when they are free
  std::set<std::string> excluded;  // nodes that failed under it
  std::set<NodePair> bad_pairs;    // between which the link did: a gang of it has one of them
  NodePair suspect_pair;           // under its newest attempt, if that ended by a link: once more, and it is bad
  std::vector<std::int64_t> infra_ends_us;  // when infrastructure ended an attempt, newest last, wall clock
  int charges = 0;
  CrashSite crash;                // the newest that was the user's; what infrastructure ended in between does not count
  std::int64_t resumed_step = 0;  // where the newest attempt started
  std::int64_t total_steps = 0;
  // Its batch is replaced by another draw since the job was rolled back from a loss that was not finite; 0: no rollback
  // yet. Set once: every later attempt replays the same samples.
  std::int64_t substituted_step = 0;
  std::vector<Checkpoint> checkpoints;  // newest first
  std::string export_path;
  std::int64_t events = 0;  // job_seq of the newest event
  std::int64_t submitted_us = 0, started_us = 0, ended_us = 0;
  std::map<std::string, std::int64_t> restarts;  // by cause

  // How long it had lived when that was last stored, in time of coordinators: what passes while none runs does not
  // count, and no wall clock takes part. See Lived.
  std::int64_t lived_us = 0;

  // Not stored: a restarted coordinator begins them anew.
  TimePoint lived_as_of{};  // lived_us; before the coordinator began: since then
  TimePoint not_before{};
  TimePoint deadline{};         // of a reservation
  TimePoint running_since{};    // of the newest attempt: RUNNING
  TimePoint checkpoint_time{};  // when the newest checkpoint was committed
  std::uint64_t version = 0;
};

// Since its submit, as far as coordinators were there. The newest of them began at `began`.
inline std::chrono::microseconds Lived(const Job& job, TimePoint now, TimePoint began) {
  return std::chrono::microseconds(job.lived_us) +
         std::chrono::duration_cast<std::chrono::microseconds>(now - std::max(job.lived_as_of, began));
}
// It has had its one attempt.
inline bool Spent(const Job& job) { return job.one_attempt && job.started_us != 0; }

// Of its newest checkpoint, where the next attempt starts; 0: none.
inline std::int64_t NewestStep(const Job& job) { return job.checkpoints.empty() ? 0 : job.checkpoints.front().step; }

// Slots it has, had at its end, or would start with.
inline int SlotsWanted(const Job& job) {
  return HoldsSlots(job.state) || IsTerminal(job.state) ? job.world_size : job.min_world;
}

// Of a machine, as it is. Numbers equal vicreg.v1.NodeState.
//
//  kJoining: not heard since the coordinator started. Its ranks may train.
//      |
//      '--Register--> kReady --5 s silent--> kSuspect --20 s (any state)--> kLost --Register--> kProbing
//                       ^ ^-----heard again------'
//                       |
//  Register of a new name or boot id --> kProbing --passed--> kReady
//                                           '------failed--> kQuarantined --probed, opened--> kReady
//                                                                 ^------strikes----- kReady, kSuspect
//
// kProbing: its worker was asked to try what ranks need (probation.h); it stays so when it failed and a
// quarantine would take too much of the cluster. A worker that is back before its node was lost, on the same boot, is
// not probed: its ranks prove more. Traps: only kReady with an open door (placeable) gets gangs; a node that is
// probed or quarantined may hold ranks all the same. kLost is left by registering alone.
enum class NodeState { kJoining = 1, kReady = 2, kSuspect = 3, kLost = 4, kQuarantined = 5, kProbing = 6 };
// What operators want of it, beside what it is.
enum class AdminState { kOpen = 0, kCordoned = 1, kDraining = 2 };
const char* Name(AdminState state);

// A failure that the node is to blame for.
struct Strike {
  std::int64_t time_us = 0;
  std::string job_id;
};

struct Node {
  std::string name, boot_id, build;
  std::int64_t incarnation = 0;
  NodeState state = NodeState::kJoining;
  int cpu_slots = 0, gpu_slots = 0;
  std::vector<std::string> data_roots;
  std::vector<std::string> labels;  // "key=value"; "rack=..." is its place
  AdminState admin = AdminState::kOpen;
  std::vector<Strike> strikes;  // newest last
  std::int64_t probe = 0;       // the newest the coordinator asked for; only an answer to it counts. Only grows
  std::string problem;          // of a kProbing one: why its newest probe failed; empty: it has not
  std::string message;
  std::int64_t last_heard_us = 0;
  // Not stored.
  TimePoint last_heard{};
  TimePoint probed_at{};  // when that probe was asked for, or failed; none by this coordinator: at its Register
  bool placeable() const { return state == NodeState::kReady && admin == AdminState::kOpen; }
  int Slots(const std::string& kind) const { return kind == "gpu" ? gpu_slots : cpu_slots; }
};

struct Event {
  std::int64_t seq = 0, job_seq = 0;
  std::string job_id;
  std::int64_t time_us = 0;
  std::string kind, actor;
  Reason reason = Reason::kNone;
  std::string message;
  int attempt = 0;
  std::int64_t term = 0;
};

// A mutating call that was answered: the same id again gets the same answer.
struct Request {
  std::string id, sha256, job_id;
};

// A tenant. Absent: no quota, weight 1.
struct Project {
  std::string name;
  int cpu_quota = -1, gpu_quota = -1;  // slots its gangs may hold together; -1: no limit
  double weight = 1;                   // of its share of the slots among projects of equal priority
  int Quota(const std::string& kind) const { return kind == "gpu" ? gpu_quota : cpu_quota; }
};

// A project's named lane. The queue "default" exists in every project.
struct Queue {
  std::string project, name;
  bool open = true;                               // closed: its jobs wait
  int min_priority = -1000, max_priority = 1000;  // of jobs submitted to it
  std::vector<std::string> labels;                // its jobs go to nodes that have them all
};
using QueueKey = std::pair<std::string, std::string>;  // project, queue

// A job's place among others: the number it was given when it was submitted, which is its alone, and its id.
using Age = std::pair<std::int64_t, std::string>;

// Queued jobs that placement cannot tell apart (ClassOf), the oldest first.
struct JobClass {
  std::string project;
  int priority = 0;
  std::set<Age> jobs;
  bool operator==(const JobClass&) const = default;
};

// Why the jobs of one class (index.h) wait.
struct Explanation {
  Reason reason = Reason::kNone;
  std::string message;
  bool operator==(const Explanation&) const = default;
};

struct State {
  std::map<std::string, Job> jobs;
  std::map<std::string, Node> nodes;
  std::map<std::string, Request> requests;
  std::map<std::string, Project> projects;
  std::map<QueueKey, Queue> queues;
  // Indexes of `jobs` that Put (index.h) keeps: those that have not ended, that hold slots, that wait for a delay to
  // pass, that have a deadline, and the queued ones by class.
  std::set<Age> live, holding, delayed, timed;
  std::map<std::string, JobClass> queued;
  // Not stored. Of the newest pass: why each class of queued jobs waits, and when time alone makes another pass worth
  // while (at once: none was made yet, or its commit failed); when preemptions were decided.
  std::map<std::string, Explanation> waiting;
  TimePoint next_pass = kAtOnce;
  TimePoint began{};  // this coordinator; what it does not know is not older for it
  std::vector<TimePoint> preemptions;
  double preemption_lost_slot_seconds = 0;        // since this coordinator began
  std::map<Reason, std::int64_t> attempts_ended;  // since then, by what came of them; kRetryDelay: not placed
  std::int64_t next_queue_seq = 1, next_event_seq = 1, term = 1;
};

}  // namespace vicreg::core
