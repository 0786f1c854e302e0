#pragma once

// The shell around core: one thread takes commands in batches, decides each on one transaction, commits once, applies
// in memory, replies, then sends. Everything public may be called from any thread. Callbacks run on the core thread,
// without a lock.

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "coordinator/core/decide.h"
#include "coordinator/core/leader.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/telemetry/exposition.h"
#include "coordinator/telemetry/history.h"
#include "vicreg/v1/jobs_service.pb.h"
#include "vicreg/v1/worker_service.pb.h"

namespace vicreg::service {

// Commands decided on one transaction and committed together, at most.
inline constexpr std::size_t kMaxBatch = 512;

// A worker's open stream. Send never blocks; Close ends the stream with a status, so that the worker registers again.
class Session {
 public:
  virtual ~Session() = default;
  virtual void Send(v1::ConnectResponse message) = 0;
  virtual void Close(const absl::Status& why) = 0;
};

class Coordinator {
 public:
  // What to decide on the transaction; an error means nothing was changed.
  using Decide = std::function<absl::Status(core::Transaction&)>;
  using Done = std::function<void(absl::Status)>;

  Coordinator(std::unique_ptr<store::SqliteStore> store, std::unique_ptr<telemetry::History> history,
              const Clock& clock, std::string artifact_root);
  // Stops the core thread; nothing queued is lost that was answered.
  ~Coordinator();

  // Loads the state and begins to serve. `deposed` is called once, from the core thread, when another coordinator
  // leads.
  absl::Status Start(std::function<void()> deposed = [] {});

  // Bounded: RESOURCE_EXHAUSTED through `done` when 10,000 commands wait.
  void Post(Decide decide, Done done);

  // With the reason people read: of a job that waits, why its class does.
  std::optional<core::Job> FindJob(const std::string& id) const;
  std::vector<core::Job> Jobs() const;  // by queue_seq
  // Of those after `after` and in one of `states` (none: in any) the first `most`, by queue_seq. Others are not copied.
  std::vector<core::Job> Jobs(std::int64_t after, std::size_t most, const std::set<core::JobState>& states) const;
  std::vector<core::Node> Nodes() const;
  std::vector<core::Queue> Queues() const;
  std::vector<core::Project> Projects() const;
  std::int64_t term() const { return store_->term(); }
  const std::string& store_id() const { return store_->store_id(); }
  // OK, or why nothing is admitted.
  absl::Status Ready() const;
  // How often workers are to be heard, now.
  int heartbeat_ms() const { return heartbeat_ms_; }
  // The store was copied.
  void NoteBackup(std::int64_t wall_us) { backup_us_ = wall_us; }
  // A worker whose inventory made no sense was sent away.
  void CountRefusedRegistration() { ++refused_registrations_; }

  // The newest stream of a node replaces the one before, which is closed.
  void Attach(const std::string& node, std::shared_ptr<Session> session);
  void Detach(const std::string& node, const Session* session);
  // False: the node has no stream.
  bool SendTo(const std::string& node, v1::ConnectResponse message);

  store::SqliteStore& store() { return *store_; }
  telemetry::History& history() { return *history_; }
  const std::string& artifact_root() const { return artifact_root_; }
  const Clock& clock() const { return clock_; }

  // For /metrics; `watchers` is the number of open streams.
  telemetry::ClusterView View(int watchers) const;

 private:
  void Run();
  void RunBatch(std::vector<core::Command> commands);
  void SendAll(const core::Transaction& transaction);
  // Says of each live job that nothing is bound to end, once.
  void LookForOwnerless(TimePoint now);

  const std::unique_ptr<store::SqliteStore> store_;
  const std::unique_ptr<telemetry::History> history_;
  const Clock& clock_;
  const std::string artifact_root_;
  const core::Options options_;
  std::function<void()> deposed_;
  TimePoint next_count_{};  // of the nodes, for heartbeat_ms_
  TimePoint next_look_{};   // for jobs without an owner

  mutable std::mutex state_mutex_;
  core::Leader leader_;       // written by the core thread
  const core::State& state_;  // its
  std::int64_t fenced_ = 0, commits_ = 0, store_errors_ = 0;
  double commit_seconds_ = 0;
  std::vector<std::string> ownerless_;  // sentences of the newest look
  std::atomic<int> heartbeat_ms_{2000};
  std::atomic<std::int64_t> refused_registrations_{0}, backup_us_{0};
  std::string refusal_;  // the newest that was logged; core thread only

  std::mutex queue_mutex_;
  std::condition_variable wake_;
  std::deque<core::Command> queue_;
  bool stopping_ = false;

  std::mutex sessions_mutex_;
  std::map<std::string, std::shared_ptr<Session>> sessions_;

  std::thread thread_;
};

}  // namespace vicreg::service
