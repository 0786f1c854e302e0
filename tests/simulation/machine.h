#pragma once

// A machine with its worker: the real decisions about ranks (worker/core/supervisor.h), and around them what
// worker/agent does: processes, the stream to the coordinator, connecting again. Processes outlive their worker.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/simulation/rank.h"
#include "tests/simulation/stream.h"
#include "worker/core/supervisor.h"

namespace vicreg::simulation {

struct World;
class Machine;

// Shorter than the real ones.
inline constexpr milliseconds kOrphanGrace{30'000}, kOrphanStop{20'000};

class Worker : public Stream::Client {
 public:
  Worker(World& world, Machine& machine);
  ~Worker() override;

  void OnResponse(const v1::ConnectResponse& message) override;
  void OnEnd(const absl::Status& why) override;

  // From ranks.
  bool Hello(RankProcess& rank, const v1::Hello& hello);
  void Says(const worker::Key& key, const v1::RankSays& says);
  void OnProgress(const worker::Key& key, const v1::Progress& progress);
  void RankStreamEnded(const worker::Key& key, const RankProcess* rank);
  void Exited(const worker::Key& key, int pid, int wait_status);
  bool welcomed() const { return welcomed_; }
  bool empty() const { return supervisor_.empty(); }
  void BreakStream();

 private:
  void Connect();
  void ConnectLater();
  void Beat(std::uint64_t stream);
  void Rejoin();
  void Receive(const v1::ConnectResponse& message);
  void OnProbe(const v1::Probe& probe);
  void Perform(worker::Effects effects);
  void Adopt();
  void Start(const worker::Start& start);
  // What is due, and when something is next.
  void Turn();

  World& world_;
  Machine& machine_;
  worker::Supervisor supervisor_;
  std::shared_ptr<Stream> stream_;
  std::uint64_t streams_ = 0;
  bool welcomed_ = false;
  TimePoint registered_{};                   // when Register was sent,
  std::map<std::int64_t, TimePoint> beats_;  // and heartbeats
  double ceiling_ms_ = 200;
  TimePoint next_turn_ = TimePoint::max();
  std::map<worker::Key, int> processes_;  // pids, until they are cleared away
  std::map<worker::Key, RankProcess*> links_;
};

class Machine {
 public:
  Machine(World& world, std::string name, int slots, std::vector<std::string> roots, std::vector<std::string> labels);

  // Lets something happen on it: not while it is frozen, and not if its worker (or it) has ended meanwhile.
  void After(std::chrono::nanoseconds delay, std::function<void()> act);
  void AfterOfWorker(std::chrono::nanoseconds delay, std::function<void()> act);

  void StartWorker();
  void KillWorker();
  void PowerOff();
  void PowerOn();
  void FreezeUntil(TimePoint until);
  bool frozen() const;
  // Since when its worker runs without having been killed or frozen.
  TimePoint runs_since() const { return runs_since_; }
  // On the wire, not yet read.
  void OnLaunchComes();

  RankProcess* Find(int pid);
  int Spawn(const worker::Key& key, int slot, const std::string& secret);
  void Remove(int pid) { processes_.erase(pid); }

  const std::string& name() const { return name_; }
  worker::Offer offer() const;
  Link& link() { return link_; }
  Worker* worker() { return worker_.get(); }
  bool up() const { return up_; }
  std::map<int, std::unique_ptr<RankProcess>>& processes() { return processes_; }
  // What workers leave on disk to find ranks again, and what ranks leave of how they ended.
  struct RankFile {
    int pid = 0, slot = 0;
    std::string secret, launch;
  };
  std::map<worker::Key, RankFile> rank_files;
  std::map<worker::Key, int> exit_records;  // wait status
  int failing_starts = 0;
  TimePoint probe_fails_until{};
  std::string probe_problem() const;     // of a probe now; empty: it passes
  std::set<std::int64_t> passed_probes;  // the coordinator's own, by number
  microseconds freeze_when_launched{};   // 0: it does not

 private:
  World& world_;
  const std::string name_;
  const int slots_;
  const std::vector<std::string> roots_, labels_;
  int boots_ = 1, next_pid_ = 100;
  bool up_ = true;
  TimePoint frozen_until_{}, runs_since_{};
  Link link_;
  std::uint64_t power_ = 0, worker_life_ = 0;
  std::unique_ptr<Worker> worker_;
  std::map<int, std::unique_ptr<RankProcess>> processes_;
};

}  // namespace vicreg::simulation
