#include "worker/agent/rank_server.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <deque>

#include "common/files.h"
#include "common/rpc/status.h"
#include "vicreg/v1/rank_service.grpc.pb.h"

namespace vicreg::agent {
namespace {

constexpr std::size_t kMaxPath = 107;

class RankStream;

// Outlives the call; drops messages once it is over.
class Link : public RankLink {
 public:
  explicit Link(RankStream* stream) : stream_(stream) {}
  void Send(v1::AttachResponse message) override;
  void Resume() override;
  void Cut() {
    const std::lock_guard lock(mutex_);
    stream_ = nullptr;
  }

 private:
  std::mutex mutex_;
  RankStream* stream_;
};

class RankStream : public grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse> {
 public:
  RankStream(Agent& agent, const absl::Status& admitted) : agent_(agent), link_(std::make_shared<Link>(this)) {
    if (admitted.ok()) {
      StartRead(&incoming_);
    } else {
      End(admitted);
    }
  }

  void Push(v1::AttachResponse message) {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    outgoing_.push_back(std::move(message));
    if (!writing_) WriteNext();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(absl::OkStatus());
      return;
    }
    if (incoming_.has_hello() && !known_) {
      hello_ = incoming_.hello();
      known_ = agent_.OnHello(hello_, link_);
      if (known_) {
        ReadOn();
      } else {
        End(absl::PermissionDeniedError(
            "job, attempt, rank, process id or secret do not match a rank this worker started"));
      }
    } else if (known_ && incoming_.has_progress()) {
      agent_.OnProgress(hello_, incoming_.progress());
      ReadOn();
    } else if (known_) {
      // If it says no, Resume may have begun the next read already: nothing here may touch `incoming_` any more.
      if (agent_.OnSays(hello_, incoming_.says())) ReadOn();
    } else {
      End(absl::FailedPreconditionError("the first message must be Hello"));
    }
  }

  void ReadOn() {
    const std::lock_guard lock(mutex_);
    if (!finished_) StartRead(&incoming_);
  }

  // The rank is gone; no read may be waiting that would tell.
  void OnCancel() override { End(absl::CancelledError("the rank's end of the stream is gone")); }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    outgoing_.pop_front();
    if (ok && !finished_ && !outgoing_.empty()) WriteNext();
  }

  void OnDone() override {
    link_->Cut();
    if (known_) agent_.OnRankStreamEnd(hello_, link_.get());
    delete this;
  }

 private:
  void WriteNext() {
    writing_ = true;
    StartWrite(&outgoing_.front());
  }
  void End(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    Finish(rpc::ToGrpc(status));
  }

  Agent& agent_;
  const std::shared_ptr<Link> link_;
  v1::Hello hello_;
  bool known_ = false;
  v1::AttachRequest incoming_;
  std::mutex mutex_;
  std::deque<v1::AttachResponse> outgoing_;
  bool writing_ = false, finished_ = false;
};

void Link::Send(v1::AttachResponse message) {
  const std::lock_guard lock(mutex_);
  if (stream_ != nullptr) stream_->Push(std::move(message));
}

void Link::Resume() {
  const std::lock_guard lock(mutex_);
  if (stream_ != nullptr) stream_->ReadOn();
}

class Service final : public v1::RankService::CallbackService {
 public:
  Service(Agent& agent, const rpc::Gate& gate) : agent_(agent), gate_(gate) {}

  grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>* Attach(
      grpc::CallbackServerContext* context) override {
    return new RankStream(agent_, gate_.Check(context, "vicreg.v1.RankService/Attach"));
  }

  grpc::ServerUnaryReactor* Rendezvous(grpc::CallbackServerContext* context, const v1::RendezvousRequest* request,
                                       v1::RendezvousResponse* response) override {
    return gate_.Unary(
        context, "vicreg.v1.RankService/Rendezvous", [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
          agent_.OnRendezvous(*request, [response, done](const v1::StoreReply& reply) {
            response->set_value(reply.value());
            response->set_number(reply.number());
            const std::string& error = reply.error();
            done(error.empty()        ? absl::OkStatus()
                 : error == "timeout" ? absl::DeadlineExceededError("a peer did not come to the rendezvous in time")
                 : error == "fenced"  ? absl::AbortedError("this attempt is not current")
                                      : absl::UnavailableError(error));
          });
        });
  }

 private:
  Agent& agent_;
  const rpc::Gate& gate_;
};

class RealServer : public RankServer {
 public:
  RealServer(Agent& agent, const rpc::Gate& gate) : service_(agent, gate) {}
  ~RealServer() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  }
  absl::Status Begin(const std::string& path) {
    unlink(path.c_str());  // of an earlier worker; we hold the folder's lock
    grpc::ServerBuilder builder;
    int bound = 0;
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials(), &bound);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (!server_ || bound == 0)
      return absl::FailedPreconditionError("cannot listen on " + path + ": is the folder writable?");
    if (chmod(path.c_str(), 0600) != 0) return ErrnoStatus(errno, "restrict", path);
    return absl::OkStatus();
  }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankServer>> RankServer::Start(const std::string& path, Agent& agent,
                                                              const rpc::Gate& gate) {
  if (path.size() > kMaxPath) {
    return absl::FailedPreconditionError("socket path " + path + " has " + std::to_string(path.size()) +
                                         " bytes; the system allows 107: choose a shorter --dir");
  }
  auto server = std::make_unique<RealServer>(agent, gate);
  RETURN_IF_ERROR(server->Begin(path));
  return server;
}

}  // namespace vicreg::agent
