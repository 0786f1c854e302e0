#pragma once

// A worker's stream to the coordinator: in order and without gaps for as long as it lasts, as gRPC gives it. It breaks
// with everything that is on its way; a cut link holds messages back for as long as it is cut, so that what was said on
// an old stream may arrive after a newer one was opened.

#include <functional>
#include <memory>

#include "common/status.h"
#include "tests/simulation/events.h"
#include "tests/simulation/random.h"
#include "vicreg/v1/worker_service.pb.h"

namespace vicreg::simulation {

// Of one machine.
struct Link {
  TimePoint up_from{}, down_from{};  // held back until then: to the coordinator, from it
};

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  struct Server {
    virtual ~Server() = default;
    virtual void OnRequest(const v1::ConnectRequest& message) = 0;
    virtual void OnBroken() = 0;
  };
  struct Client {
    virtual ~Client() = default;
    virtual void OnResponse(const v1::ConnectResponse& message) = 0;
    virtual void OnEnd(const absl::Status& why) = 0;
  };

  Stream(Events& events, Random& random, Link& link) : events_(events), random_(random), link_(link) {}

  void SetServer(std::shared_ptr<Server> server) { server_ = std::move(server); }
  void SetClient(Client* client) { client_ = client; }  // null: its process has ended
  void Up(v1::ConnectRequest message);
  void Down(v1::ConnectResponse message);
  // The server ends it: the worker learns of it after what was sent before.
  void End(const absl::Status& why);
  // Both ends learn of it, what is on its way is lost. Nothing arrives any more.
  void Break();
  bool broken() const { return broken_; }

 private:
  void Send(TimePoint& last, const TimePoint& held_until, std::function<void()> arrive);
  void Arrive(const TimePoint& held_until, std::function<void()> arrive);

  Events& events_;
  Random& random_;
  Link& link_;
  std::shared_ptr<Server> server_;
  Client* client_ = nullptr;
  bool broken_ = false;
  TimePoint last_up_{}, last_down_{};
};

}  // namespace vicreg::simulation
