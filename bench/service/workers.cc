#include "bench/service/workers.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <random>

#include "vicreg/v1/worker_service.grpc.pb.h"

namespace vicreg::bench {
namespace {

constexpr std::chrono::milliseconds kFirstRetry{200}, kLongestRetry{10'000};

}  // namespace

// One node. Connect, Beat are called by the pacing thread, the rest by gRPC's.
class Worker {
 public:
  Worker(Workers& all, const Workers::Wanted& wanted, int number)
      : all_(all), draw_(static_cast<unsigned>(number)), number_(number) {
    grpc::ChannelArguments own;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection for each worker
    // Its own retries alone decide when it is back.
    own.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    own.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
    own.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
    stub_ =
        v1::WorkerService::NewStub(grpc::CreateCustomChannel(wanted.address, grpc::InsecureChannelCredentials(), own));
    v1::Register& hello = *hello_.mutable_register_();
    const bool tiny = wanted.tiny && number == wanted.count;
    hello.set_node("node-" + std::to_string(100000 + number));
    hello.set_boot_id("boot");
    hello.set_cpu_slots(tiny ? 1 : wanted.slots);
    hello.add_data_roots("images");
    hello.add_labels("rack=" + std::to_string(number / 20));
    if (tiny) hello.add_labels("size=tiny");
  }

  ~Worker() {
    std::unique_lock lock(mutex_);
    leaving_ = true;
    if (stream_) stream_->context.TryCancel();
    ended_.wait(lock, [&] { return !stream_; });
  }

  void ConnectIfDue(Workers::Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    if (stream_ || leaving_ || now < retry_at_) return;
    stream_ = std::make_unique<Stream>(*this);
    hello_.mutable_register_()->set_incarnation(incarnation_);
    stub_->async()->Connect(&stream_->context, stream_.get());
    stream_->StartRead(&stream_->incoming);
    Push(hello_);
    stream_->StartCall();
  }

  void Beat() {
    const std::lock_guard lock(mutex_);
    if (!stream_ || !stream_->welcome) return;
    v1::ConnectRequest message;
    message.mutable_heartbeat()->set_sequence(++sequence_);
    beaten_ = Workers::Clock::now();
    Push(std::move(message));
  }

 private:
  struct Stream : public grpc::ClientBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
    explicit Stream(Worker& worker) : owner(worker) {}
    void OnReadDone(bool ok) override {
      if (!ok) return;
      owner.Handle(incoming);
      StartRead(&incoming);
    }
    void OnWriteDone(bool ok) override { owner.Written(ok); }
    void OnDone(const grpc::Status&) override { owner.Ended(); }

    Worker& owner;
    grpc::ClientContext context;
    v1::ConnectResponse incoming;
    std::deque<v1::ConnectRequest> outgoing;  // front: being written
    bool welcome = false;
  };

  // With mutex_ held.
  void Push(v1::ConnectRequest message) {
    stream_->outgoing.push_back(std::move(message));
    if (stream_->outgoing.size() == 1) stream_->StartWrite(&stream_->outgoing.front());
  }

  void Written(bool ok) {
    const std::lock_guard lock(mutex_);
    stream_->outgoing.pop_front();
    if (ok && !stream_->outgoing.empty()) stream_->StartWrite(&stream_->outgoing.front());
  }

  void Handle(const v1::ConnectResponse& message) {
    const std::lock_guard lock(mutex_);
    if (message.has_welcome()) {
      stream_->welcome = true;
      incarnation_ = message.welcome().incarnation();
      retry_ = kFirstRetry;
      all_.Welcomed(1);
    } else if (message.has_heartbeat()) {
      all_.RoundTrip(std::chrono::duration<double>(Workers::Clock::now() - beaten_).count());
    } else if (message.has_prepare()) {
      v1::ConnectRequest answer;
      answer.mutable_prepared()->set_job_id(message.prepare().job_id());
      answer.mutable_prepared()->set_attempt(message.prepare().attempt());
      Push(std::move(answer));
    } else if (message.has_probe()) {
      v1::ConnectRequest answer;
      answer.mutable_probed()->set_call_id(message.probe().call_id());
      Push(std::move(answer));
    } else if (message.has_launch()) {
      all_.Launched(message.launch().job_id());
      for (const v1::RankAssignment& rank : message.launch().ranks()) {
        v1::ConnectRequest report;
        report.mutable_report()->set_job_id(message.launch().job_id());
        report.mutable_report()->set_attempt(message.launch().attempt());
        report.mutable_report()->set_rank(rank.rank());
        report.mutable_report()->set_sequence(1);
        report.mutable_report()->mutable_stepping()->set_step(1);
        Push(std::move(report));
        v1::HeldRank& held = *hello_.mutable_register_()->add_held();
        held.set_job_id(message.launch().job_id());
        held.set_attempt(message.launch().attempt());
        held.set_rank(rank.rank());
        held.set_slot(rank.slot());
      }
    }
  }

  void Ended() {
    const std::lock_guard lock(mutex_);
    if (stream_->welcome) {
      all_.Welcomed(-1);
      ++all_.lost_;
    }
    retry_at_ = Workers::Clock::now() +
                std::chrono::milliseconds(std::uniform_int_distribution<std::int64_t>(0, retry_.count())(draw_));
    retry_ = std::min(2 * retry_, kLongestRetry);
    stream_.reset();
    ended_.notify_all();
  }

  Workers& all_;
  std::mt19937 draw_;
  const int number_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  std::mutex mutex_;
  std::condition_variable ended_;
  v1::ConnectRequest hello_;
  std::unique_ptr<Stream> stream_;
  std::int64_t incarnation_ = 0, sequence_ = 0;
  Workers::Clock::time_point beaten_{}, retry_at_{};
  std::chrono::milliseconds retry_ = kFirstRetry;
  bool leaving_ = false;
};

Workers::Workers(const Wanted& wanted) : wanted_(wanted) {
  for (int i = 0; i < wanted.count + (wanted.tiny ? 1 : 0); ++i)
    workers_.push_back(std::make_unique<Worker>(*this, wanted_, i));
  pace_ = std::thread([this] { Pace(); });
}

Workers::~Workers() {
  stopping_ = true;
  pace_.join();
  workers_.clear();
}

// Every 10 ms those whose turn has come: heartbeats are spread evenly.
void Workers::Pace() {
  constexpr std::chrono::milliseconds kStep{10};
  std::size_t next = 0;
  double owed = 0;
  auto at = Clock::now();
  while (!stopping_) {
    at += kStep;
    std::this_thread::sleep_until(at);
    for (const auto& worker : workers_) worker->ConnectIfDue(Clock::now());
    owed += static_cast<double>(workers_.size()) * kStep / wanted_.heartbeat;
    for (; owed >= 1; owed -= 1) workers_[next++ % workers_.size()]->Beat();
  }
}

void Workers::Launched(const std::string& job_id) {
  {
    const std::lock_guard lock(mutex_);
    launched_.emplace(job_id, Clock::now());
  }
  changed_.notify_all();
}

void Workers::Welcomed(int by) {
  {
    const std::lock_guard lock(mutex_);
    welcomed_ += by;
  }
  changed_.notify_all();
}

void Workers::RoundTrip(double seconds) {
  const std::lock_guard lock(mutex_);
  round_trips_.push_back(seconds);
}

std::vector<double> Workers::TakeRoundTrips() {
  const std::lock_guard lock(mutex_);
  return std::exchange(round_trips_, {});
}

bool Workers::WaitWelcomed(int count, std::chrono::milliseconds most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, most, [&] { return welcomed_ >= count; });
}

Workers::Clock::time_point Workers::WaitLaunched(const std::string& job_id, std::chrono::milliseconds most) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, most, [&] { return launched_.count(job_id) != 0; });
  const auto found = launched_.find(job_id);
  return found == launched_.end() ? Clock::time_point::max() : found->second;
}

}  // namespace vicreg::bench
