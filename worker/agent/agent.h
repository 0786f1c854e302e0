#pragma once

// The shell around the worker's decisions (worker/core/supervisor.h): starts, signals and reaps processes, and carries
// what is said between ranks and the coordinator. One mutex guards the state; messages go out through the two Outlets,
// which only queue. Three threads enter: the coordinator's stream, the rank server, the watcher of the processes.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/process.h"
#include "vicreg/v1/rank_service.pb.h"
#include "vicreg/v1/worker_service.pb.h"
#include "worker/agent/rank_files.h"
#include "worker/core/supervisor.h"

namespace vicreg::agent {

struct AgentOptions {
  std::string folder;  // ranks/, logs/
  std::string socket_path;
  std::string node;
  std::string rank_program;
  std::string artifact_root;               // absolute
  std::string rank_address = "127.0.0.1";  // its ranks listen on it for their peers
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

  // Takes over the ranks that the worker before this one left in FOLDER/ranks, and ends those this one cannot hold.
  // Before anything else. DeadlineExceeded: one does not end; Internal: the folder cannot be read.
  absl::Status AdoptRanks();

  // ---- the coordinator's stream ----
  // Nothing is sent before Welcome was handled: what is kept goes first, in order.
  void SetOutlet(ToCoordinator outlet);
  v1::Register MakeRegister();
  v1::Heartbeat MakeHeartbeat();
  // False: the lease had lapsed when it was told to start ranks. Close the stream and register on a new one.
  bool OnMessage(const v1::ConnectResponse& message);
  // The coordinator denied this incarnation: register as a new process next time.
  void ForgetIncarnation();

  // ---- ranks ----
  // Sends the assignment, then what the rank has missed. False when secret, pid or attempt do not match: nothing is
  // sent.
  bool OnHello(const v1::Hello& hello, std::shared_ptr<RankLink> link);
  // False: it was kept, but the rank's buffer is full; read no more until Resume (worker/core/report_buffer.h).
  bool OnSays(const v1::Hello& from, const v1::RankSays& says);
  void OnProgress(const v1::Hello& from, const v1::Progress& progress);
  void OnRankStreamEnd(const v1::Hello& from, const RankLink* link);
  // `done` gets the answer, or an error sentence, once.
  void OnRendezvous(const v1::RendezvousRequest& request, std::function<void(v1::StoreReply)> done);

  // Stops all ranks: asks, then kills after `grace`. Returns when none is left.
  void StopAll(std::chrono::milliseconds grace);

 private:
  using Key = worker::Key;

  void Perform(worker::Effects effects);
  void Start(const worker::Start& start);
  // Of a process that runs afterwards; an error after it was started leaves it in processes_.
  absl::Status StartProcess(const worker::Start& start, const std::string& secret);
  void Clear(const Key& key);
  absl::Status Adopt(const Found& found);
  void ReapAdopted(const Key& key, const Process& process);
  void OnReadLog(const v1::ReadLog& read);
  void OnProbe(const v1::Probe& probe);
  // Until nobody waits for an answer.
  void AnswerProbes();
  void OnStoreReply(const v1::StoreReply& reply);
  void Reap();
  void Watch();
  // Keeps the logs of running ranks within their bound. Reads and writes files: not under the mutex.
  void CapLogs(const std::vector<std::string>& paths);
  std::string LogPath(const Key& key) const;
  void Wake();

  const AgentOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  worker::Supervisor supervisor_;
  ToCoordinator outlet_;
  std::map<Key, Process> processes_;  // until they are cleared away
  std::set<Key> adopted_;             // of them: not our children, so the system does not tell us how they ended
  std::map<Key, std::shared_ptr<RankLink>> links_;
  std::vector<std::string> cleared_logs_;  // of processes that ended since the watcher looked
  std::map<std::int64_t, std::function<void(v1::StoreReply)>> store_calls_;
  std::int64_t next_call_ = 1;
  bool quit_ = false;
  bool rejoin_ = false;      // of the message being handled
  bool cap_warned_ = false;  // watcher only
  int wake_ = -1;            // eventfd of the watcher
  std::thread watcher_;
  std::thread prober_;                // coordinator's stream only
  std::vector<std::int64_t> probes_;  // call ids that no probe answers yet
  bool probing_ = false;              // prober_ looks at probes_ once more
};

}  // namespace vicreg::agent
