#pragma once

// Server streams that follow committed state. Each watcher has one write in flight and pulls what comes next from the
// durable history, so a slow one costs nothing but its own lateness. One thread asks the watchers every 50 ms, and only
// while there are any.

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "common/rpc/status.h"

namespace vicreg::service {

class Watcher {
 public:
  virtual ~Watcher() = default;
  // Writes what there is to write; false when the stream has ended. Thread-safe, does not block on the client.
  virtual bool Pump() = 0;
};

class Fanout {
 public:
  Fanout();
  ~Fanout();
  void Add(std::shared_ptr<Watcher> watcher);
  int count() const;

 private:
  void Run();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Watcher>> watchers_;
  bool stopping_ = false;
  std::thread thread_;
};

// A server stream that ends itself. Subclasses say what comes next; they are called with the stream's lock held, one
// call at a time.
template <typename Response>
class Stream : public grpc::ServerWriteReactor<Response>, public Watcher {
 public:
  enum class Next { kNothing, kWrite, kEnd };

  bool Pump() final {
    const std::lock_guard lock(mutex_);
    if (finished_) return false;
    if (writing_ && !cancelled_) return true;
    absl::Status status;
    const Next next = cancelled_ ? Next::kEnd : Produce(current_, status);
    if (next == Next::kWrite) {
      writing_ = true;
      this->StartWrite(&current_);
    } else if (next == Next::kEnd) {
      finished_ = true;
      this->Finish(cancelled_ ? grpc::Status::CANCELLED : rpc::ToGrpc(status));
    }
    return next != Next::kEnd;
  }

  void OnWriteDone(bool ok) final {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) cancelled_ = true;
    }
    Pump();
  }
  void OnCancel() final {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  void OnDone() final {
    auto self = std::move(self_);  // destroyed on return, unless the fanout still holds it
  }

  // Hands a new stream to gRPC and to the fanout.
  static Stream* Begin(std::shared_ptr<Stream> stream, Fanout& fanout) {
    Stream* raw = stream.get();
    raw->self_ = stream;
    fanout.Add(stream);
    raw->Pump();
    return raw;
  }

 protected:
  virtual Next Produce(Response& response, absl::Status& status) = 0;

 private:
  std::mutex mutex_;
  Response current_;
  bool writing_ = false, finished_ = false, cancelled_ = false;
  std::shared_ptr<Stream> self_;  // alive until gRPC says done
};

}  // namespace vicreg::service
