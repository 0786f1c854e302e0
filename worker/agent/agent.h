#pragma once

// Everything a worker does: holds ranks, relays what they say, and does what the coordinator asks. One mutex guards the
// state; messages go out through the two Outlets, which only queue. Three threads enter: the coordinator's stream, the
// rank server, the supervisor.
//
// How a rank is ended. Stop: the rank is told, gets SIGTERM (the same wish) 40 s before the deadline, at once if the
// grace is shorter, and SIGKILL at it. Abort and fence: told, SIGKILL after 1 s; at once when it is not connected.
// SIGKILL is for the process group and repeated each second until the process is gone.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "common/process.h"
#include "vicreg/v1/rank_service.pb.h"
#include "vicreg/v1/worker_service.pb.h"
#include "worker/agent/exit.h"
#include "worker/agent/report_buffer.h"

namespace vicreg::agent {

struct AgentOptions {
  std::string folder;  // ranks/, logs/
  std::string socket_path;
  std::string node;
  std::string rank_program;
  std::string artifact_root;  // absolute
  int cpu_slots = 0;
  int threads_per_rank = 1;
  int collective_timeout_s = 60;
  std::vector<std::string> gpus;                  // UUIDs; slot i is the i-th
  std::map<std::string, std::string> data_roots;  // name -> absolute folder
  std::vector<std::string> labels;                // "key=value"
};

// A connected rank. Called under the agent's mutex: neither waits nor calls back.
class RankLink {
 public:
  virtual ~RankLink() = default;
  virtual void Send(v1::AttachResponse message) = 0;  // only queues
  // OnSays answered false for this link's newest message: read on.
  virtual void Resume() = 0;
};

class Agent {
 public:
  using ToCoordinator = std::function<void(v1::ConnectRequest)>;  // only queues; drops when there is no stream

  explicit Agent(AgentOptions options);
  ~Agent();

  // ---- the coordinator's stream ----
  // Nothing is sent before Welcome was handled: what is kept goes first, in order.
  void SetOutlet(ToCoordinator outlet);
  v1::Register MakeRegister() const;
  v1::Heartbeat MakeHeartbeat();
  void OnMessage(const v1::ConnectResponse& message);
  // The coordinator denied this incarnation: register as a new process next time.
  void ForgetIncarnation();

  // ---- ranks ----
  // Sends the assignment, then what the rank has missed. False when secret, pid or attempt do not match: nothing is
  // sent.
  bool OnHello(const v1::Hello& hello, std::shared_ptr<RankLink> link);
  // False: it was kept, but the rank's buffer is full; read no more until Resume (report_buffer.h).
  bool OnSays(const v1::Hello& from, const v1::RankSays& says);
  void OnRankStreamEnd(const v1::Hello& from, const RankLink* link);
  // `done` gets the answer, or an error sentence, once.
  void OnRendezvous(const v1::RendezvousRequest& request, std::function<void(v1::StoreReply)> done);

  // Stops all ranks: asks, then kills after `grace`. Returns when none is left.
  void StopAll(std::chrono::milliseconds grace);

 private:
  using Key = std::tuple<std::string, int, int>;  // job, attempt, rank
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Rank {
    v1::Launch launch;
    std::string data_root;  // absolute
    int rank = 0, slot = 0;
    Process process;
    std::string secret;
    ReportBuffer reports;
    std::shared_ptr<RankLink> link;
    bool paused = false;                // the link waits for Resume
    std::optional<v1::Command> asked;   // repeated to a rank that connects later
    std::optional<v1::Exited> leaving;  // what the rank said last
    std::optional<int> wait_status;     // the process has ended
    TimePoint finalize_at{};            // of an ended one: no longer wait for its stream
    TimePoint term_at = TimePoint::max(), kill_at = TimePoint::max();
    bool exit_reported = false;
    bool on_gpu() const { return launch.spec().device() == v1::DEVICE_GPU; }
    // Process gone and cleared away, its end committed or of no interest.
    bool forgotten() const { return wait_status && process.pidfd < 0 && exit_reported && reports.empty(); }
  };

  void Launch(const v1::Launch& launch);
  void Start(const v1::Launch& launch, const v1::RankAssignment& assignment);
  // UUID; empty: no such slot.
  std::string GpuOf(int slot) const;
  // Of its process, which is running afterwards.
  absl::Status StartProcess(const Key& key, Rank& rank);
  void OnPrepare(const v1::Prepare& prepare);
  void OnAck(const v1::ReportAck& ack);
  void OnWelcome(const v1::Welcome& welcome);
  void OnReadLog(const v1::ReadLog& read);
  void Command(Rank& rank, v1::Command::Kind kind, const std::string& cause, std::chrono::milliseconds kill_after);
  void Report(const Key& key, Rank& rank, v1::RankReport report, std::int64_t rank_sequence);
  void AbortPeers(const Key& gone, const std::string& cause);
  void Reap(const Key& key, Rank& rank);
  void Finalize(const Key& key, Rank& rank);
  void Supervise();
  // Keeps the logs of running ranks within their bound. Reads and writes files: not under the mutex.
  void CapLogs(const std::vector<std::string>& paths);
  void Send(v1::ConnectRequest message) {
    if (welcomed_) outlet_(std::move(message));
  }

  const AgentOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  ToCoordinator outlet_;
  std::int64_t incarnation_ = 0, heartbeat_ = 0, next_call_ = 1;
  std::map<Key, Rank> ranks_;
  struct StoreWaiter {
    Key key;
    std::function<void(v1::StoreReply)> done;
  };
  std::map<std::int64_t, StoreWaiter> store_calls_;
  bool welcomed_ = false;  // implies an outlet
  bool stopping_ = false, quit_ = false;
  bool cap_warned_ = false;  // supervisor only
  int wake_ = -1;            // eventfd of the supervisor
  std::thread supervisor_;
};

}  // namespace vicreg::agent
