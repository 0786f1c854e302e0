#include "tests/simulation/stream.h"

namespace vicreg::simulation {

void Stream::Arrive(const TimePoint& held_until, std::function<void()> arrive) {
  if (events_.now() < held_until) {
    events_.At(held_until, [self = shared_from_this(), &held_until, arrive] { self->Arrive(held_until, arrive); });
    return;
  }
  if (!broken_) arrive();
}

void Stream::Send(TimePoint& last, const TimePoint& held_until, std::function<void()> arrive) {
  last = std::max(last, events_.now() + random_.Between(microseconds(200), milliseconds(random_.Chance(3) ? 800 : 8)));
  events_.At(
      last, [self = shared_from_this(), &held_until, arrive = std::move(arrive)] { self->Arrive(held_until, arrive); });
}

void Stream::Up(v1::ConnectRequest message) {
  if (broken_) return;
  Send(last_up_, link_.up_from, [this, message = std::move(message)] {
    if (server_) server_->OnRequest(message);
  });
}

void Stream::Down(v1::ConnectResponse message) {
  if (broken_) return;
  Send(last_down_, link_.down_from, [this, message = std::move(message)] {
    if (client_ != nullptr) client_->OnResponse(message);
  });
}

void Stream::End(const absl::Status& why) {
  if (broken_) return;
  Send(last_down_, link_.down_from, [this, why] {
    broken_ = true;
    server_.reset();
    if (client_ != nullptr) client_->OnEnd(why);
  });
}

void Stream::Break() {
  if (broken_) return;
  broken_ = true;
  events_.After(random_.Between(milliseconds(1), milliseconds(500)), [self = shared_from_this()] {
    if (self->server_) self->server_->OnBroken();
    self->server_.reset();
  });
  events_.After(random_.Between(milliseconds(1), milliseconds(500)), [self = shared_from_this()] {
    if (self->client_ != nullptr) self->client_->OnEnd(absl::UnavailableError("connection lost"));
  });
}

}  // namespace vicreg::simulation
