#pragma once

// One coordinator process: the real decisions in their real order (core/leader.h) on a simulated disk, and its ends of
// the workers' streams, as service/worker_service.cc has them.

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/leader.h"
#include "coordinator/service/report_order.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/metrics.h"
#include "tests/simulation/stream.h"

namespace vicreg::simulation {

struct World;
class ServerEnd;

class Coordinator {
 public:
  explicit Coordinator(World& world);
  ~Coordinator();

  // Not OK: it could not start. May throw Killed.
  absl::Status Start();
  void Post(std::function<absl::Status(core::Transaction&)> decide, std::function<void(absl::Status)> done);
  std::shared_ptr<ServerEnd> Accept(const std::shared_ptr<Stream>& stream);
  // Nothing is decided until then; what arrives waits.
  void StallUntil(TimePoint until) { stalled_until_ = until; }
  bool stalled() const;
  bool busy() const { return busy_; }

  const core::State& state() const { return leader_.state(); }
  const absl::Status& degraded() const { return leader_.degraded(); }
  std::uint64_t generation() const { return generation_; }
  TimePoint began() const { return began_; }
  Metrics& metrics() { return metrics_; }

 private:
  friend class ServerEnd;
  void RunAt(TimePoint when);
  void Run();
  void Finish(core::Batch& batch);
  void SendAll(const core::Transaction& transaction);

  World& world_;
  DiskStore store_;
  Metrics metrics_;
  core::Leader leader_;
  const TimePoint began_;
  const std::uint64_t generation_;  // of all processes of a run
  TimePoint stalled_until_{}, next_run_ = TimePoint::max();
  bool busy_ = false;  // a commit is on its way
  std::deque<core::Command> queue_;
  std::map<std::string, std::shared_ptr<ServerEnd>> sessions_;
  std::vector<std::weak_ptr<Stream>> streams_;
  std::uint64_t run_ = 0;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The coordinator's end of one stream.
class ServerEnd : public Stream::Server, public std::enable_shared_from_this<ServerEnd> {
 public:
  ServerEnd(World& world, Coordinator& coordinator, const std::shared_ptr<Stream>& stream)
      : world_(world), generation_(coordinator.generation()), stream_(stream) {}

  void OnRequest(const v1::ConnectRequest& message) override;
  void OnBroken() override;
  void Send(v1::ConnectResponse message);
  void Close(const absl::Status& why);

 private:
  // Null: it has ended.
  Coordinator* coordinator() const;
  void OnRegister(const v1::Register& wire);
  void OnProbed(const v1::Probed& wire);
  void OnReport(const v1::RankReport& wire);
  void AcknowledgeRows(v1::ConnectResponse answer);
  void CloseOnError(const absl::Status& status) {
    if (!status.ok()) Close(status);
  }

  World& world_;
  std::uint64_t generation_;
  const std::weak_ptr<Stream> stream_;
  std::string node_;
  std::int64_t incarnation_ = 0;
  service::ReportOrder order_;
};

}  // namespace vicreg::simulation
