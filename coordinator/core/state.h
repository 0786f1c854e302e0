#pragma once

// What the coordinator knows, as plain data. No protobuf, no I/O, no clock. Touched by the core thread only; others see
// copies.

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace vicreg::core {

using TimePoint = std::chrono::steady_clock::time_point;

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
  kReserving = 10,
  kLaunching = 11,
  kTraining = 12,
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
  kRollback = 32
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
  bool settled() const { return state == RankState::kExited || state == RankState::kLost; }
};

struct Checkpoint {
  int attempt = 0;
  std::int64_t step = 0;
  std::string path, hash;
  std::int64_t bytes = 0;
};

struct Job {
  std::string id, name, owner;
  std::string spec;  // serialized JobSpec, as resolved; opaque here
  std::string recipe_hash;
  std::string slot_kind = "cpu";
  std::string data_root;
  int world_size = 1;
  int max_charges = 3;
  int checkpoint_keep = 3;
  std::int64_t queue_seq = 0;

  JobState state = JobState::kQueued;
  Reason reason = Reason::kNone;
  std::string message;
  int attempt = 0;                 // newest; only grows
  std::vector<Rank> ranks;         // of the newest attempt
  std::set<std::string> prepared;  // nodes that confirmed a reservation
  bool cancel = false;             // destination of a stopping attempt; never unset
  int charges = 0;
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

  // Not stored: a restarted coordinator begins them anew.
  TimePoint not_before{};
  TimePoint deadline{};  // of a reservation
  std::uint64_t version = 0;
};

enum class NodeState { kJoining = 1, kReady = 2, kSuspect = 3, kLost = 4 };

struct Node {
  std::string name, boot_id, build;
  std::int64_t incarnation = 0;
  NodeState state = NodeState::kJoining;
  int cpu_slots = 0, gpu_slots = 0;
  std::vector<std::string> data_roots;
  std::string message;
  std::int64_t last_heard_us = 0;
  TimePoint last_heard{};  // not stored
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

struct State {
  std::map<std::string, Job> jobs;
  std::map<std::string, Node> nodes;
  std::map<std::string, Request> requests;
  std::set<std::pair<std::int64_t, std::string>> live;  // (queue_seq, id) of jobs that have not ended
  std::int64_t next_queue_seq = 1, next_event_seq = 1, term = 1;
};

}  // namespace vicreg::core
