#include "coordinator/service/rendezvous.h"

#include <algorithm>
#include <charconv>

namespace vicreg::service {
namespace {

constexpr std::size_t kMaxBytes = 64 << 20;
constexpr std::size_t kMaxKeys = 100'000;
constexpr std::size_t kMaxWaiters = 10'000;
constexpr auto kMaxWait = std::chrono::hours(1);

bool Waits(const v1::StoreOperation& operation) {
  return operation.kind() == v1::StoreOperation::KIND_GET || operation.kind() == v1::StoreOperation::KIND_WAIT;
}

}  // namespace

bool Rendezvous::HasAll(const Space& space, const v1::StoreOperation& operation) {
  return std::all_of(operation.keys().begin(), operation.keys().end(),
                     [&](const std::string& key) { return space.keys.count(key) != 0; });
}

bool Rendezvous::Store(Space& space, const std::string& key, const std::string& value, v1::StoreReply& reply) {
  const auto found = space.keys.find(key);
  const std::size_t before = found == space.keys.end() ? 0 : key.size() + found->second.size();
  const std::size_t keys = space.keys.size() + (found == space.keys.end() ? 1 : 0);
  const std::size_t bytes = space.bytes - before + key.size() + value.size();
  if (keys > kMaxKeys || bytes > kMaxBytes) {
    reply.set_error("limit: one attempt may hold 100000 keys and 64 MiB in the rendezvous store");
    return false;
  }
  space.bytes = bytes;
  space.keys[key] = value;
  return true;
}

v1::StoreReply Rendezvous::Answer(Space& space, const v1::StoreCall& call) {
  const v1::StoreOperation& operation = call.operation();
  v1::StoreReply reply;
  reply.set_call_id(call.call_id());
  const std::string key = operation.keys_size() > 0 ? operation.keys(0) : "";
  const auto found = space.keys.find(key);
  const bool known = found != space.keys.end();
  const std::string value = known ? found->second : "";
  switch (operation.kind()) {
    case v1::StoreOperation::KIND_SET:
      Store(space, key, operation.value(), reply);
      break;
    case v1::StoreOperation::KIND_GET:
      reply.set_value(value);
      break;
    case v1::StoreOperation::KIND_ADD: {
      std::int64_t number = 0;
      std::from_chars(value.data(), value.data() + value.size(), number);
      // Wraps around, as the counters of other stores do.
      number =
          static_cast<std::int64_t>(static_cast<std::uint64_t>(number) + static_cast<std::uint64_t>(operation.delta()));
      if (Store(space, key, std::to_string(number), reply)) reply.set_number(number);
      break;
    }
    case v1::StoreOperation::KIND_COMPARE_SET:
      if (known ? value == operation.expected() : operation.expected().empty()) {
        if (Store(space, key, operation.value(), reply)) reply.set_value(operation.value());
      } else {
        reply.set_value(known ? value : operation.expected());
      }
      break;
    case v1::StoreOperation::KIND_DELETE:
      if (known) space.bytes -= key.size() + value.size();
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
    const bool waits = Waits(call.operation()) && !HasAll(space, call.operation());
    if (waits && space.waiters.size() < kMaxWaiters) {
      const auto most = std::chrono::duration_cast<std::chrono::milliseconds>(kMaxWait).count();
      const std::chrono::milliseconds wait(std::clamp<std::int64_t>(call.operation().timeout_ms(), 0, most));
      space.waiters.push_back({call, clock_.SteadyNow() + wait, std::move(reply)});
      return;
    }
    if (waits) {
      v1::StoreReply full;
      full.set_call_id(call.call_id());
      full.set_error("limit: 10000 calls of one attempt wait in the rendezvous store");
      answers.emplace_back(std::move(reply), std::move(full));
    } else {
      answers.emplace_back(std::move(reply), Answer(space, call));
      Wake(space, answers);
    }
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
