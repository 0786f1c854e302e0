#pragma once

// A rank's line to its worker: reports in order, kept until the coordinator has committed them; commands; rendezvous. When the worker is
// away the rank trains on and the line is made again. No torch here.

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
  using OnCommand = std::function<void(const v1::Command&)>;  // on the link's thread

  Link(const std::string& socket_path, v1::Hello hello, OnCommand on_command);

  // Waits for the worker's answer to Hello. PermissionDenied: not a rank of this worker.
  absl::StatusOr<v1::Assignment> WaitForAssignment(std::chrono::seconds timeout);

  // Numbered and queued; never blocks.
  void Say(v1::RankSays says);

  // True when the coordinator has committed all that was said.
  bool WaitForAcks(std::chrono::seconds timeout);

  // Last words, then the stream is closed and read to its end by the worker.
  void Leave(const v1::Exited& exited);

  v1::RankService::Stub& stub() { return *stub_; }
  const v1::Hello& hello() const { return hello_; }

 private:
  using Stream = grpc::ClientReaderWriter<v1::AttachRequest, v1::AttachResponse>;
  void Run();
  void Serve();
  void Write(Stream& stream);

  const v1::Hello hello_;
  const OnCommand on_command_;
  std::unique_ptr<v1::RankService::Stub> stub_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::RankSays> unacked_;
  std::int64_t next_ = 1;       // sequence of the next report
  std::int64_t unsent_ = 1;     // first one not yet sent on this connection
  bool connected_ = false, closing_ = false, closed_ = false;
  std::optional<v1::Assignment> assignment_;
  std::optional<absl::Status> denied_;
  std::thread thread_;
};

// Rendezvous through the worker.
std::shared_ptr<train::KeyValueStore> MakeStore(Link& link);

}  // namespace vicreg::rank
