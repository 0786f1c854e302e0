#pragma once

// The key-value store ranks meet through: per (job, attempt), in memory, bounded. Waiting calls are answered when their
// keys appear or their time is up. A restarted coordinator starts empty: an attempt that was still meeting then times
// out and is started again.

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "common/clock.h"
#include "vicreg/v1/worker_service.pb.h"

namespace vicreg::service {

class Rendezvous {
 public:
  using Reply = std::function<void(v1::StoreReply)>;

  explicit Rendezvous(const Clock& clock) : clock_(clock) {}

  // `current`: the attempt is the job's newest and live; else the call is fenced. `reply` is called once, outside
  // locks.
  void Handle(const v1::StoreCall& call, bool current, Reply reply);
  // Answers waiting calls whose time is up; forgets attempts that `is_current` denies.
  void Expire(const std::function<bool(const std::string& job_id, int attempt)>& is_current);

 private:
  struct Waiter {
    v1::StoreCall call;
    TimePoint deadline;
    Reply reply;
  };
  struct Space {
    std::map<std::string, std::string> keys;
    std::size_t bytes = 0;  // of keys and values
    std::vector<Waiter> waiters;
  };
  using Answers = std::vector<std::pair<Reply, v1::StoreReply>>;

  static bool HasAll(const Space& space, const v1::StoreOperation& operation);
  static v1::StoreReply Answer(Space& space, const v1::StoreCall& call);
  // False, with the error set: a limit is hit and nothing was changed.
  static bool Store(Space& space, const std::string& key, const std::string& value, v1::StoreReply& reply);
  static void Wake(Space& space, Answers& answers);

  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::pair<std::string, int>, Space> spaces_;
};

}  // namespace vicreg::service
