#include "coordinator/service/rendezvous.h"

#include <algorithm>
#include <charconv>

namespace vicreg::service {
namespace {

constexpr std::size_t kMaxBytes = 64 << 20;
constexpr std::size_t kMaxKeys = 100'000;

bool Waits(const v1::StoreOperation& operation) { return operation.kind() == v1::StoreOperation::KIND_GET || operation.kind() == v1::StoreOperation::KIND_WAIT; }

}  // namespace

bool Rendezvous::HasAll(const Space& space, const v1::StoreOperation& operation) {
  return std::all_of(operation.keys().begin(), operation.keys().end(), [&](const std::string& key) { return space.keys.count(key) != 0; });
}

void Rendezvous::Store(Space& space, const std::string& key, const std::string& value, v1::StoreReply& reply) {
  std::string& slot = space.keys[key];
  if (space.keys.size() > kMaxKeys || space.bytes + value.size() - slot.size() > kMaxBytes) {
    reply.set_error("limit: one attempt may hold 100000 keys and 64 MiB in the rendezvous store");
    return;
  }
  space.bytes += value.size() - slot.size();
  slot = value;
}

v1::StoreReply Rendezvous::Answer(Space& space, const v1::StoreCall& call) {
  const v1::StoreOperation& operation = call.operation();
  v1::StoreReply reply;
  reply.set_call_id(call.call_id());
  const std::string key = operation.keys_size() > 0 ? operation.keys(0) : "";
  switch (operation.kind()) {
    case v1::StoreOperation::KIND_SET:
      Store(space, key, operation.value(), reply);
      break;
    case v1::StoreOperation::KIND_GET:
      reply.set_value(space.keys[key]);
      break;
    case v1::StoreOperation::KIND_ADD: {
      std::int64_t number = 0;
      const std::string& text = space.keys[key];
      std::from_chars(text.data(), text.data() + text.size(), number);
      number += operation.delta();
      Store(space, key, std::to_string(number), reply);
      reply.set_number(number);
      break;
    }
    case v1::StoreOperation::KIND_COMPARE_SET: {
      const auto found = space.keys.find(key);
      if (found == space.keys.end() ? operation.expected().empty() : found->second == operation.expected()) Store(space, key, operation.value(), reply);
      reply.set_value(space.keys.count(key) != 0 ? space.keys[key] : operation.expected());
      break;
    }
    case v1::StoreOperation::KIND_DELETE:
      reply.set_number(static_cast<std::int64_t>(space.keys.erase(key)));
      break;
    case v1::StoreOperation::KIND_CHECK:
      reply.set_number(HasAll(space, operation) ? 1 : 0);
      break;
    case v1::StoreOperation::KIND_WAIT:
      break;
    case v1::StoreOperation::KIND_COUNT_KEYS:
      reply.set_number(static_cast<std::int64_t>(space.keys.size()));
      break;
    default:
      reply.set_error("unknown store operation " + std::to_string(operation.kind()));
  }
  return reply;
}

void Rendezvous::Wake(Space& space, Answers& answers) {
  for (auto waiter = space.waiters.begin(); waiter != space.waiters.end();) {
    if (!HasAll(space, waiter->call.operation())) {
      ++waiter;
      continue;
    }
    answers.emplace_back(std::move(waiter->reply), Answer(space, waiter->call));
    waiter = space.waiters.erase(waiter);
  }
}

void Rendezvous::Handle(const v1::StoreCall& call, bool current, Reply reply) {
  Answers answers;
  if (!current) {
    v1::StoreReply fenced;
    fenced.set_call_id(call.call_id());
    fenced.set_error("fenced");
    reply(std::move(fenced));
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    Space& space = spaces_[{call.job_id(), call.attempt()}];
    if (Waits(call.operation()) && !HasAll(space, call.operation())) {
      space.waiters.push_back({call, clock_.SteadyNow() + std::chrono::milliseconds(call.operation().timeout_ms()), std::move(reply)});
      return;
    }
    answers.emplace_back(std::move(reply), Answer(space, call));
    Wake(space, answers);
  }
  for (auto& [to, answer] : answers) to(std::move(answer));
}

void Rendezvous::Expire(const std::function<bool(const std::string&, int)>& is_current) {
  Answers answers;
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = clock_.SteadyNow();
    for (auto entry = spaces_.begin(); entry != spaces_.end();) {
      const bool current = is_current(entry->first.first, entry->first.second);
      std::erase_if(entry->second.waiters, [&](Waiter& waiter) {
        if (current && now < waiter.deadline) return false;
        v1::StoreReply reply;
        reply.set_call_id(waiter.call.call_id());
        reply.set_error(current ? "timeout" : "fenced");
        answers.emplace_back(std::move(waiter.reply), std::move(reply));
        return true;
      });
      entry = current ? std::next(entry) : spaces_.erase(entry);
    }
  }
  for (auto& [to, answer] : answers) to(std::move(answer));
}

}  // namespace vicreg::service
