#include "worker/rank/link.h"

#include <unistd.h>

#include <cstdio>
#include <stdexcept>
#include <utility>

#include "common/rpc/status.h"

namespace vicreg::rank {
namespace {

constexpr std::chrono::seconds kProgressEvery{1};
constexpr std::chrono::milliseconds kPause{20}, kLookAgain{100};  // while the worker is away

class RelayedStore : public train::KeyValueStore {
 public:
  explicit RelayedStore(Link& link) : link_(link) {}

  void Set(const std::string& key, const std::string& value) override {
    auto operation = Make(v1::StoreOperation::KIND_SET, {key});
    operation.set_value(value);
    Call(operation);
  }
  std::string Get(const std::string& key, std::chrono::milliseconds timeout) override {
    auto operation = Make(v1::StoreOperation::KIND_GET, {key});
    operation.set_timeout_ms(timeout.count());
    return Call(operation).value();
  }
  std::int64_t Add(const std::string& key, std::int64_t delta) override {
    auto operation = Make(v1::StoreOperation::KIND_ADD, {key});
    operation.set_delta(delta);
    return Call(operation).number();
  }
  std::string CompareSet(const std::string& key, const std::string& expected, const std::string& value) override {
    auto operation = Make(v1::StoreOperation::KIND_COMPARE_SET, {key});
    operation.set_expected(expected);
    operation.set_value(value);
    return Call(operation).value();
  }
  bool Delete(const std::string& key) override {
    return Call(Make(v1::StoreOperation::KIND_DELETE, {key})).number() != 0;
  }
  bool Check(const std::vector<std::string>& keys) override {
    return Call(Make(v1::StoreOperation::KIND_CHECK, keys)).number() != 0;
  }
  void Wait(const std::vector<std::string>& keys, std::chrono::milliseconds timeout) override {
    auto operation = Make(v1::StoreOperation::KIND_WAIT, keys);
    operation.set_timeout_ms(timeout.count());
    Call(operation);
  }
  std::int64_t CountKeys() override { return Call(Make(v1::StoreOperation::KIND_COUNT_KEYS, {})).number(); }

 private:
  static v1::StoreOperation Make(v1::StoreOperation::Kind kind, const std::vector<std::string>& keys) {
    v1::StoreOperation operation;
    operation.set_kind(kind);
    for (const std::string& key : keys) operation.add_keys(key);
    operation.set_timeout_ms(60'000);
    return operation;
  }

  v1::RendezvousResponse Call(const v1::StoreOperation& operation) {
    v1::RendezvousRequest request;
    request.set_job_id(link_.hello().job_id());
    request.set_attempt(link_.hello().attempt());
    request.set_rank(link_.hello().rank());
    request.set_secret(link_.hello().secret());
    *request.mutable_operation() = operation;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(operation.timeout_ms()) +
                         std::chrono::seconds(5));
    v1::RendezvousResponse response;
    const grpc::Status status = link_.stub().Rendezvous(&context, request, &response);
    if (!status.ok()) {
      throw std::runtime_error(
          (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? "timeout: " : "rendezvous: ") +
          status.error_message());
    }
    return response;
  }

  Link& link_;
};

}  // namespace

Link::Link(const std::string& socket_path, v1::Hello hello, OnCommand on_command,
           std::chrono::milliseconds orphan_grace, Where where)
    : hello_(std::move(hello)),
      on_command_(std::move(on_command)),
      where_(std::move(where)),
      orphan_grace_(orphan_grace),
      channel_([&] {
        grpc::ChannelArguments arguments;
        // A try costs next to nothing on a socket of this machine, and the next worker waits for its ranks.
        arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
        arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
        // A worker that listens and does not serve yet is tried again.
        arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
        return grpc::CreateCustomChannel("unix:" + socket_path, grpc::InsecureChannelCredentials(), arguments);
      }()),
      stub_(v1::RankService::NewStub(channel_)),
      thread_([this] { Run(); }) {
  thread_.detach();  // the process ends by _exit
}

void Link::Run() {
  while (true) {
    Serve();
    {
      std::unique_lock lock(mutex_);
      if (closing_ || denied_) {
        closed_ = true;
        changed_.notify_all();
        return;
      }
      changed_.wait_for(lock, kPause, [&] { return closing_; });
    }
    // Nobody moves a connection on while no call waits for it, but for a look each 5 s.
    channel_->WaitForConnected(std::chrono::system_clock::now() + kLookAgain);
    CheckOrphaned();
  }
}

void Link::CheckOrphaned() {
  v1::Command command;
  {
    const std::lock_guard lock(mutex_);
    const auto away = std::chrono::steady_clock::now() - last_seen_;
    if (!orphaned_ && away > orphan_grace_) {
      orphaned_ = true;
      command.set_kind(v1::Command::KIND_STOP);
    } else if (!aborted_ && away > orphan_grace_ + kLeaveGrace) {
      aborted_ = true;
      command.set_kind(v1::Command::KIND_ABORT);
    } else {
      return;
    }
    command.set_cause("no worker for " +
                      std::to_string(std::chrono::duration_cast<std::chrono::seconds>(away).count()) + " s");
  }
  changed_.notify_all();
  on_command_(command);
}

void Link::Serve() {
  grpc::ClientContext context;
  const auto stream = stub_->Attach(&context);
  v1::AttachRequest first;
  *first.mutable_hello() = hello_;
  std::thread writer;
  v1::AttachResponse message;
  if (stream->Write(first) && stream->Read(&message) && message.has_assignment()) {
    {
      const std::lock_guard lock(mutex_);
      if (!assignment_) assignment_ = message.assignment();
      connected_ = true;
      // What is not known to be committed is said again.
      unsent_ = unacked_.empty() ? next_ : unacked_.front().sequence();
    }
    changed_.notify_all();
    writer = std::thread([&] { Write(*stream); });
    while (stream->Read(&message)) {
      if (message.has_command()) {
        {
          const std::lock_guard lock(mutex_);
          nobody_confirms_ = nobody_confirms_ || message.command().nobody_confirms();
        }
        changed_.notify_all();
        on_command_(message.command());
      }
      if (!message.has_ack()) continue;
      const std::lock_guard lock(mutex_);
      while (!unacked_.empty() && unacked_.front().sequence() <= message.ack().sequence()) {
        unacked_bytes_ -= unacked_.front().ByteSizeLong();
        unacked_.pop_front();
      }
      changed_.notify_all();
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (connected_) last_seen_ = std::chrono::steady_clock::now();
    connected_ = false;
  }
  changed_.notify_all();
  if (writer.joinable()) writer.join();
  const grpc::Status status = stream->Finish();
  if (status.error_code() != grpc::StatusCode::PERMISSION_DENIED) return;
  {
    const std::lock_guard lock(mutex_);
    denied_ = rpc::FromGrpc(status);
  }
  changed_.notify_all();
  // A worker that does not know this rank has replaced the one that started it.
  v1::Command fence;
  fence.set_kind(v1::Command::KIND_FENCE);
  fence.set_cause(status.error_message());
  on_command_(fence);
}

void Link::Write(Stream& stream) {
  auto next_progress = std::chrono::steady_clock::now();
  while (true) {
    v1::AttachRequest request;
    if (where_ && std::chrono::steady_clock::now() >= next_progress) {
      next_progress = std::chrono::steady_clock::now() + kProgressEvery;
      *request.mutable_progress() = where_();
      if (!stream.Write(request)) return;
    }
    {
      std::unique_lock lock(mutex_);
      if (HandedOverLocked()) changed_.notify_all();  // what was written last went out
      const auto due = [&] { return !connected_ || unsent_ < next_ || closing_; };
      if (!where_) {
        changed_.wait(lock, due);
      } else if (!changed_.wait_until(lock, next_progress, due)) {
        continue;
      }
      if (!connected_) return;
      if (unsent_ >= next_) break;  // closing, and all was sent
      // Committed while it was repeated: nothing to send.
      const std::int64_t ahead = unacked_.empty() ? -1 : unsent_ - unacked_.front().sequence();
      ++unsent_;
      if (ahead < 0) continue;
      *request.mutable_says() = unacked_[static_cast<std::size_t>(ahead)];
    }
    if (!stream.Write(request)) return;
  }
  stream.WritesDone();
}

absl::StatusOr<v1::Assignment> Link::WaitForAssignment(std::chrono::seconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return assignment_ || denied_; });
  if (denied_) return *denied_;
  if (!assignment_) return absl::DeadlineExceededError("the worker did not answer Hello in time");
  return *assignment_;
}

std::int64_t Link::acked() const {
  const std::lock_guard lock(mutex_);
  return (unacked_.empty() ? next_ : unacked_.front().sequence()) - 1;
}

std::int64_t Link::Say(v1::RankSays says) {
  bool stop = false;
  std::int64_t sequence = 0;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return 0;
    says.set_sequence(sequence = next_++);
    unacked_bytes_ += says.ByteSizeLong();
    unacked_.push_back(std::move(says));
    stop = unacked_bytes_ > kMostUnackedBytes && !std::exchange(too_much_, true);
  }
  changed_.notify_all();
  if (!stop) return sequence;
  v1::Command command;
  command.set_kind(v1::Command::KIND_STOP);
  command.set_cause("the coordinator has not confirmed " + std::to_string(kMostUnackedBytes) + " bytes of reports");
  on_command_(command);
  return sequence;
}

bool Link::WaitForAcks(std::chrono::seconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return unacked_.empty() || orphaned_ || HandedOverLocked(); });
  return unacked_.empty();
}

bool Link::HandedOver() const {
  const std::lock_guard lock(mutex_);
  return HandedOverLocked();
}

void Link::Leave(const v1::Exited& exited) {
  v1::RankSays says;
  *says.mutable_leaving() = exited;
  Say(std::move(says));
  std::unique_lock lock(mutex_);
  closing_ = true;
  changed_.notify_all();
  changed_.wait_for(lock, std::chrono::seconds(2), [&] { return closed_; });
}

std::shared_ptr<train::KeyValueStore> MakeStore(Link& link) { return std::make_shared<RelayedStore>(link); }

}  // namespace vicreg::rank
