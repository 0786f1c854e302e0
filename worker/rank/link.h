#pragma once

// A rank's line to its worker: reports in order, kept until the coordinator has committed them; commands; rendezvous.
// When the worker is away the rank trains on and the line is made again. No torch here.
//
// Two limits, both ending in an orderly stop (KIND_STOP through OnCommand: checkpoint, then leave) and never in a lost
// report:
//  - orphan grace: so long without a worker. Nobody will look for this rank's slot; a rank that has not left
//  kLeaveGrace after that is
//    aborted (KIND_ABORT). WaitForAcks then waits no longer.
//  - kMostUnackedBytes: so much said and not yet committed, about a million rows, because the coordinator is away. The
//  worker may refuse to
//    read on long before (worker/core/report_buffer.h); that does not hold up training.

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/status.h"
#include "vicreg/v1/rank_service.grpc.pb.h"
#include "worker/train/distributed/key_value_store.h"

namespace vicreg::rank {

class Link {
 public:
  using OnCommand = std::function<void(const v1::Command&)>;  // on the link's thread, or in Say
  using Where = std::function<v1::Progress()>;                // on a thread of the link, about once a second

  static constexpr std::size_t kMostUnackedBytes = std::size_t{256} << 20;
  static constexpr std::chrono::seconds kLeaveGrace{120};

  // `where`, if there is one, says each second how far the rank is.
  Link(const std::string& socket_path, v1::Hello hello, OnCommand on_command, std::chrono::milliseconds orphan_grace,
       Where where = nullptr);

  // Waits for the worker's answer to Hello. PermissionDenied: not a rank of this worker.
  absl::StatusOr<v1::Assignment> WaitForAssignment(std::chrono::seconds timeout);

  // Numbered and queued; never blocks. Its number, 0 after Leave.
  std::int64_t Say(v1::RankSays says);

  // All reports up to this number are committed.
  std::int64_t acked() const;

  // True when the coordinator has committed all that was said; false after `timeout`, or without a worker for the
  // orphan grace, or when it was asked to stop because there is no coordinator and the worker has all that was said.
  bool WaitForAcks(std::chrono::seconds timeout);

  // The latter: nothing is lost with this process.
  bool HandedOver() const;

  // Last words, then the stream is closed and read to its end by the worker.
  void Leave(const v1::Exited& exited);

  v1::RankService::Stub& stub() { return *stub_; }
  const v1::Hello& hello() const { return hello_; }

 private:
  using Stream = grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>;
  void Run();
  void Serve();
  void Write(Stream& stream);
  // After an attempt to reach the worker failed.
  void CheckOrphaned();
  bool HandedOverLocked() const { return nobody_confirms_ && connected_ && unsent_ == next_; }

  using TimePoint = std::chrono::steady_clock::time_point;
  const v1::Hello hello_;
  const OnCommand on_command_;
  const Where where_;
  const std::chrono::milliseconds orphan_grace_;
  const std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::RankService::Stub> stub_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::RankSays> unacked_;  // sequences have no gap
  std::size_t unacked_bytes_ = 0;
  bool too_much_ = false;                                   // said once
  TimePoint last_seen_ = std::chrono::steady_clock::now();  // when the worker was last connected
  bool orphaned_ = false, aborted_ = false;
  bool nobody_confirms_ = false;  // there is no coordinator
  std::int64_t next_ = 1;         // sequence of the next report
  std::int64_t unsent_ = 1;       // first one not yet sent on this connection
  bool connected_ = false, closing_ = false, closed_ = false;
  std::optional<v1::Assignment> assignment_;
  std::optional<absl::Status> denied_;
  std::thread thread_;
};

// Rendezvous through the worker.
std::shared_ptr<train::KeyValueStore> MakeStore(Link& link);

}  // namespace vicreg::rank
