#pragma once

// What a worker decides about the ranks it holds: which it starts, how it ends them, what it keeps of their reports
// and tells the coordinator. Pure: time and events come in, effects go out as data and are performed in their order by
// the shell (worker/agent/agent.h), or by a simulation. Not thread-safe: its owner guards it.
//
// With a lapsed lease (lease.h) it starts nothing: it wants to register again, and the coordinator says again what it
// still wants. Ranks that run are not touched.
//
// Ranks train on while there is no coordinator. When none has answered for 30 min nobody may come back for them: they
// are asked to stop, as by Stop, and their ends are kept until somebody wants to know.
//
// How a rank is ended. Stop: the rank is told, gets SIGTERM (the same wish) 40 s before the deadline, at once if the
// grace is shorter, and SIGKILL at it; while bytes of the checkpoint it writes advance the deadline is put off, by 10
// min at most. Abort and fence: told, SIGKILL after 1 s; at once when it is not connected. SIGKILL is for the process
// group and repeated each second until the process is gone.
//
// A rank that stands still (hang.h) has its stacks saved, is ended as by Abort and reported as HUNG; its peers are
// aborted with it. One that has said how it ends, and then does not, is ended too, but its words count: what it had to
// make durable is.

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "vicreg/v1/rank_service.pb.h"
#include "vicreg/v1/worker_service.pb.h"
#include "worker/core/hang.h"
#include "worker/core/lease.h"
#include "worker/core/report_buffer.h"

namespace vicreg::worker {

using TimePoint = std::chrono::steady_clock::time_point;
using Key = std::tuple<std::string, int, int>;  // job, attempt, rank

// "job J attempt A rank R"
std::string Text(const Key& key);

// What the node offers and its ranks are told.
struct Offer {
  std::string node, boot_id, build;
  std::string artifact_root;  // absolute
  int cpu_slots = 0;
  int threads_per_rank = 1;
  std::vector<std::string> gpus;                  // UUIDs; slot i is the i-th
  std::map<std::string, std::string> data_roots;  // name -> absolute folder
  std::vector<std::string> labels;                // "key=value"
};

// ---- effects ----

// To the coordinator. Only made while its stream is open and welcomed.
struct Tell {
  v1::ConnectRequest message;
};
// To a rank that is connected.
struct Say {
  Key key;
  v1::AttachResponse message;
};
// Of a connected rank whose newest message was answered with false: its buffer has room again.
struct ReadOn {
  Key key;
};
// Start its process; then say OnStarted or OnNotStarted, before the next effect.
struct Start {
  Key key;
  int slot = 0;
  std::string gpu;     // the UUID it sees; empty: none
  std::string launch;  // serialized, its other ranks left out: what another worker needs to adopt it
};
// Of a process that has not been reaped.
struct Signal {
  Key key;
  int pid = 0;
  int number = 0;
  bool group = false;  // for the process group it leads
};
// Of a process that hangs: save what its threads are doing, before it is ended.
struct Dump {
  Key key;
  int pid = 0;
};
// Its process has ended and nothing more is expected of it: remove what was kept to find it again.
struct Clear {
  Key key;
};
// Give up the coordinator's stream and register on a new one.
struct Rejoin {};
struct Log {
  enum class Level { kInfo, kWarning, kError } level;
  std::string sentence;
};
using Effect = std::variant<Tell, Say, ReadOn, Start, Signal, Dump, Clear, Rejoin, Log>;
using Effects = std::vector<Effect>;

// A stop that is due while a checkpoint is being written: bytes must have advanced within so long, it is put off by so
// much each time, and by no more than the second beyond its deadline.
inline constexpr std::chrono::milliseconds kPutOff{10'000}, kMostPutOff{600'000};

// Between asking a rank to leave at once and SIGKILL: peers must be gone within 2 s of a rank's death.
inline constexpr std::chrono::milliseconds kAbortGrace{1000};

struct OrphanOptions {
  std::chrono::milliseconds grace{1'800'000};     // without a coordinator
  std::chrono::milliseconds stop_grace{120'000};  // of the stop that follows
};

class Supervisor {
 public:
  explicit Supervisor(Offer offer, const HangOptions& hang = {}, const OrphanOptions& orphans = {})
      : offer_(std::move(offer)), hang_(hang), orphans_(orphans) {}

  // ---- the coordinator's stream ----
  // A new stream, or none. Nothing is told before Welcome was handled: what is kept goes first, in order.
  void OnStream(bool open);
  // To be sent now.
  v1::Register MakeRegister(TimePoint now);
  v1::Heartbeat MakeHeartbeat(TimePoint now);
  // Welcome, heartbeats' answers, Prepare, Launch, Stop, Abort and acknowledgements; others are not for it.
  Effects OnMessage(TimePoint now, const v1::ConnectResponse& message);
  // The coordinator denied this incarnation: register as a new process next time.
  void ForgetIncarnation() { incarnation_ = 0; }

  // ---- processes ----
  // A rank that the worker before this one started; `pid` lives, or its end is still to be told by OnExited. Before the
  // first stream.
  void Adopt(const Key& key, const v1::Launch& launch, int slot, int pid, const std::string& secret);
  // Does the node offer what it needs?
  bool CanHold(const v1::Launch& launch) const { return offer_.data_roots.count(launch.spec().data().root()) != 0; }
  Effects OnStarted(const Key& key, int pid, const std::string& secret);
  // `pid` 0: there is no process; else it was killed and its end is still to come.
  Effects OnNotStarted(const Key& key, int pid, const std::string& why);
  // It was reaped. Its peers hear of it now; the report waits for the rank's last words.
  Effects OnExited(TimePoint now, const Key& key, int wait_status);
  // Of one that ended unseen: what it left instead of last words. Before OnExited.
  void OnLastWords(const Key& key, const v1::Exited& words);

  // ---- ranks ----
  // False: secret, pid or attempt do not match; there are no effects.
  bool OnHello(const v1::Hello& hello, Effects& effects);
  // False: it was kept, but the rank's buffer is full; read no more until ReadOn (report_buffer.h).
  bool OnSays(const Key& from, const v1::RankSays& says, Effects& effects);
  void OnProgress(TimePoint now, const Key& from, const v1::Progress& progress);
  void OnRankStreamEnd(const Key& key);
  // Why a rendezvous call is not relayed; empty: it is.
  std::string Refusal(const Key& from, const std::string& secret) const;

  // ---- time ----
  // Signals that are due, ranks that hang, and ends whose last words were waited for. After every event, and at
  // NextTimer.
  Effects OnTime(TimePoint now);
  // TimePoint::max(): nothing is due. May be long past.
  TimePoint NextTimer() const;

  // Asks all ranks to stop, kills them after `grace`; from now on starts none.
  Effects StopAll(TimePoint now, std::chrono::milliseconds grace);

  bool HasProcesses() const;
  bool empty() const { return ranks_.empty(); }
  // Not held, or its process has ended.
  bool HasEnded(const Key& key) const;

 private:
  struct Rank {
    v1::Launch launch;
    int slot = 0;
    int pid = 0;  // 0: none was started
    std::string secret;
    ReportBuffer reports;
    bool adopted = false;     // started by an earlier worker,
    bool renumbered = false;  // whose reports are known to end where ours begin
    bool connected = false;
    bool paused = false;                // the link waits for ReadOn
    std::optional<v1::Command> asked;   // repeated to a rank that connects later
    std::optional<v1::Exited> leaving;  // what the rank said last
    std::optional<int> wait_status;     // the process has ended
    TimePoint finalize_at{};            // of an ended one: no longer wait for its stream
    TimePoint term_at = TimePoint::max(), kill_at = TimePoint::max();
    std::optional<TimePoint> stop_by;  // of a planned stop that may be put off: its deadline without that
    ProgressWatch watch;
    std::string hung;     // why it was declared so; empty: it was not
    bool killed = false;  // by us
    bool exit_reported = false;
    bool cleared = false;  // no process, and nothing left of one
    bool on_gpu() const { return launch.spec().device() == v1::DEVICE_GPU; }
    // Nothing but its own progress decides when it ends.
    bool watched() const { return pid != 0 && !wait_status && !asked && !exit_reported; }
    // What it said last waits to be committed, and it for that: as long as its own patience lasts.
    bool awaits_coordinator() const { return watch.Leaves() && !reports.empty(); }
    // It trains on without a coordinator, but not for ever.
    bool can_be_orphan() const { return pid != 0 && !wait_status && !asked && !watch.Leaves(); }
    bool forgotten() const { return cleared && exit_reported && reports.empty(); }
  };

  // Does the lease hold? If not it has to be renewed first.
  bool MayStart(TimePoint now);
  void OnWelcome(TimePoint now, const v1::Welcome& welcome);
  void OnPrepare(const v1::Prepare& prepare);
  void OnLaunch(const v1::Launch& launch);
  void OnAck(TimePoint now, const v1::ReportAck& ack);
  void CommandAll(TimePoint now, const std::string& job_id, int attempt, v1::Command::Kind kind,
                  const std::string& cause, std::chrono::milliseconds kill_after);
  void Command(TimePoint now, const Key& key, Rank& rank, v1::Command::Kind kind, const std::string& cause,
               std::chrono::milliseconds kill_after, bool nobody_confirms = false);
  // Nobody wants its reports any more.
  void Fence(TimePoint now, const Key& key, Rank& rank);
  void Report(const Key& key, Rank& rank, v1::RankReport report, std::int64_t rank_sequence);
  void ReportNotStarted(const Key& key, Rank& rank, const std::string& why);
  // A planned stop is due: may its ranks go on for a while?
  bool IsPutOff(TimePoint now, const Key& key, const Rank& rank) const;
  void EndHung(TimePoint now, bool stalled);
  void StopOrphans(TimePoint now, bool stalled);
  void DeclareHung(TimePoint now, const Key& key, Rank& rank);
  void AbortPeers(TimePoint now, const Key& gone, const std::string& cause);
  // Of an ended one: reason, code and sentence to report.
  static v1::Exited EndOf(const Rank& rank);
  void Finalize(const Key& key, Rank& rank);
  // Why its process may not be started; empty: it may.
  std::string WhyNot(const Rank& rank) const;
  std::string GpuOf(int slot) const;  // UUID; empty: no such slot
  void Tells(v1::ConnectRequest message);
  void Says(const Key& key, v1::AttachResponse message) { effects_.push_back(Say{key, std::move(message)}); }
  void Logs(Log::Level level, std::string sentence) { effects_.push_back(Log{level, std::move(sentence)}); }
  Effects Take() { return std::exchange(effects_, {}); }

  Offer offer_;
  HangOptions hang_;
  OrphanOptions orphans_;
  std::int64_t incarnation_ = 0, heartbeat_ = 0;
  bool open_ = false, welcomed_ = false;  // the second implies the first
  bool stopping_ = false;
  Lease lease_;
  bool rejoining_ = false;  // on this stream
  std::map<Key, Rank> ranks_;
  std::optional<TimePoint> looked_;       // when OnTime was called last
  std::optional<TimePoint> alone_since_;  // the newest proof that there was a coordinator, or our own beginning
  Effects effects_;                       // of the event being handled
};

}  // namespace vicreg::worker
