#include "coordinator/service/worker_service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <deque>

#include "common/rpc/status.h"
#include "coordinator/service/inventory.h"
#include "coordinator/service/report_order.h"
#include "coordinator/service/worker_wire.h"

namespace vicreg::service {
namespace {

// Messages a worker may be behind: more, and its stream is closed (it registers again and is told afresh).
constexpr std::size_t kMaxOutgoing = 10'000;

// The gRPC reactor of one stream. It deletes itself when the call is over; others hold the Link.
class WorkerStream;

// What outlives the call: a Session that quietly drops messages once its stream is gone.
class Link : public Session {
 public:
  explicit Link(WorkerStream* stream) : stream_(stream) {}
  void Send(v1::ConnectResponse message) override;
  void Close(const absl::Status& why) override;
  void Cut() {
    const std::lock_guard lock(mutex_);
    stream_ = nullptr;
  }

 private:
  std::mutex mutex_;
  WorkerStream* stream_;
};

class WorkerStream : public grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  WorkerStream(Coordinator& coordinator, Rendezvous& rendezvous, LogCalls& logs, ProbeCalls& probes,
               const absl::Status& admitted)
      : coordinator_(coordinator),
        rendezvous_(rendezvous),
        logs_(logs),
        probes_(probes),
        link_(std::make_shared<Link>(this)) {
    if (admitted.ok()) {
      StartRead(&incoming_);
    } else {
      End(admitted);
    }
  }

  void Push(v1::ConnectResponse message) {
    bool overflow = false;
    {
      const std::lock_guard lock(mutex_);
      if (finished_) return;
      overflow = outgoing_.size() >= kMaxOutgoing;
      if (!overflow) {
        outgoing_.push_back(std::move(message));
        if (!writing_) WriteNext();
      }
    }
    if (overflow) End(absl::ResourceExhaustedError("the worker is 10000 messages behind: register again"));
  }

  void End(const absl::Status& why) {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    // Status messages travel in headers, which hold 8 KiB.
    Finish(rpc::ToGrpc(absl::Status(why.code(), Cut(std::string(why.message()), 2000))));
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(absl::OkStatus());
      return;
    }
    if (node_.empty() && !incoming_.has_register_()) {
      End(absl::FailedPreconditionError("the first message must be Register"));
      return;
    }
    Handle(incoming_);
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!outgoing_.empty()) outgoing_.pop_front();
    if (ok && !finished_ && !outgoing_.empty()) WriteNext();
  }

  void OnDone() override {
    link_->Cut();
    if (!node_.empty()) coordinator_.Detach(node_, link_.get());
    delete this;
  }

 private:
  void WriteNext() {
    writing_ = true;
    StartWrite(&outgoing_.front());
  }

  void Handle(const v1::ConnectRequest& message) {
    switch (message.message_case()) {
      case v1::ConnectRequest::kRegister:
        OnRegister(message.register_());
        break;
      case v1::ConnectRequest::kHeartbeat:
        OnHeartbeat(message.heartbeat());
        break;
      case v1::ConnectRequest::kPrepared:
        OnPrepared(message.prepared());
        break;
      case v1::ConnectRequest::kReport:
        OnReport(message.report());
        break;
      case v1::ConnectRequest::kStoreCall:
        OnStoreCall(message.store_call());
        break;
      case v1::ConnectRequest::kLogChunk:
        logs_.Answer(message.log_chunk());
        break;
      case v1::ConnectRequest::kProbed:
        OnProbed(message.probed());
        break;
      default:
        break;
    }
  }

  void OnRegister(const v1::Register& wire) {
    if (const absl::Status sane = CheckInventory(wire); !sane.ok()) {
      coordinator_.CountRefusedRegistration();
      spdlog::warn("refused a worker: {}", std::string(sane.message()));
      End(sane);
      return;
    }
    core::Registration registration = ToRegistration(wire);
    node_ = registration.node.name;
    auto welcome = std::make_shared<core::Welcome>();
    coordinator_.Post(
        [registration = std::move(registration), welcome](core::Transaction& tx) -> absl::Status {
          ASSIGN_OR_RETURN(*welcome, core::Register(tx, registration));
          return absl::OkStatus();
        },
        [link = link_, welcome, name = node_, &coordinator = coordinator_,
         incarnation = incarnation_](const absl::Status& status) {
          if (!status.ok()) {
            link->Close(status);
            return;
          }
          *incarnation = welcome->incarnation;
          // Welcome first: the messages of this decision are sent right after.
          link->Send(ToWire(*welcome, coordinator.term(), coordinator.store_id(), coordinator.heartbeat_ms()));
          coordinator.Attach(name, link);
          spdlog::info("worker {} registered, incarnation {}", name, welcome->incarnation);
        });
  }

  void OnHeartbeat(const v1::Heartbeat& wire) {
    coordinator_.Post(
        [name = node_, incarnation = incarnation_](core::Transaction& tx) {
          return core::Heartbeat(tx, name, *incarnation);
        },
        [link = link_, sequence = wire.sequence(), &coordinator = coordinator_](const absl::Status& status) {
          if (!status.ok()) {
            link->Close(status);
            return;
          }
          v1::ConnectResponse answer;
          answer.mutable_heartbeat()->set_sequence(sequence);
          answer.mutable_heartbeat()->set_heartbeat_ms(coordinator.heartbeat_ms());
          link->Send(std::move(answer));
        });
  }

  void OnPrepared(const v1::Prepared& wire) {
    coordinator_.Post(
        [name = node_, incarnation = incarnation_, wire](core::Transaction& tx) {
          core::OnPrepared(tx, name, *incarnation, wire.job_id(), wire.attempt(), wire.refusal());
          return absl::OkStatus();
        },
        CloseOnError());
  }

  // An operator's probe has an id above 0, and a call that waits for it.
  void OnProbed(const v1::Probed& wire) {
    if (wire.call_id() >= 0) {
      probes_.Answer(wire);
      return;
    }
    if (wire.problems_size() > 0) spdlog::warn("node {} failed a probe: {}", node_, Cut(wire.problems(0), 500));
    coordinator_.Post(
        [name = node_, incarnation = incarnation_, wire](core::Transaction& tx) {
          core::OnProbed(tx, ToProbeAnswer(wire, name, *incarnation));
          return absl::OkStatus();
        },
        CloseOnError());
  }

  void OnReport(const v1::RankReport& wire) {
    if (wire.has_rows()) {
      std::vector<v1::MetricRow> rows(wire.rows().rows().begin(), wire.rows().rows().end());
      v1::ConnectResponse answer;
      v1::ReportAck& ack = *answer.mutable_ack();
      ack.set_job_id(wire.job_id());
      ack.set_attempt(wire.attempt());
      ack.set_rank(wire.rank());
      ack.set_sequence(wire.sequence());
      coordinator_.history().Append(
          wire.job_id(), wire.attempt(), std::move(rows),
          [&coordinator = coordinator_, link = link_, order = order_, answer](const absl::Status& status) mutable {
            if (!status.ok() && !absl::IsFailedPrecondition(status)) {
              spdlog::error("metric history: {}", std::string(status.message()));
              order->RowsFailed();
              link->Close(status);  // the worker sends them again
              return;
            }
            answer.mutable_ack()->set_fenced(!status.ok());
            AcknowledgeRows(coordinator, link, *order, std::move(answer));
          });
      return;
    }
    order_->Came();
    coordinator_.history().Barrier([&coordinator = coordinator_, report = ToReport(wire), name = node_,
                                    incarnation = incarnation_, order = order_,
                                    close = CloseOnError()](const absl::Status& status) {
      if (!order->Counts(status)) {
        close(status);
        order->Decided();
        return;
      }
      coordinator.Post(
          [=](core::Transaction& tx) {
            core::OnReport(tx, name, *incarnation, report);
            return absl::OkStatus();
          },
          [close, order](const absl::Status& saved) {
            close(saved);
            order->Decided();
          });
    });
  }  // NOLINT(clang-analyzer-cplusplus.NewDeleteLeaks): the history owns and frees what the function captured

  // When one of the reports that the core has yet to commit fails, the stream is closed before this is sent.
  static void AcknowledgeRows(Coordinator& coordinator, const std::shared_ptr<Link>& link, const ReportOrder& order,
                              v1::ConnectResponse answer) {
    if (order.MayAcknowledgeRows()) {
      link->Send(std::move(answer));
      return;
    }
    coordinator.Post([](core::Transaction&) { return absl::OkStatus(); },
                     [link, answer = std::move(answer)](const absl::Status& saved) {
                       if (!saved.ok()) {
                         link->Close(saved);
                         return;
                       }
                       link->Send(answer);
                     });
  }

  void OnStoreCall(const v1::StoreCall& call) {
    const auto job = coordinator_.FindJob(call.job_id());
    const bool current = job && job->attempt == call.attempt() && !core::IsTerminal(job->state);
    rendezvous_.Handle(call, current, [link = link_](v1::StoreReply reply) {
      v1::ConnectResponse answer;
      *answer.mutable_store_reply() = std::move(reply);
      link->Send(std::move(answer));
    });
  }

  Coordinator::Done CloseOnError() {
    return [link = link_](const absl::Status& status) {
      if (!status.ok()) link->Close(status);
    };
  }

  Coordinator& coordinator_;
  Rendezvous& rendezvous_;
  LogCalls& logs_;
  ProbeCalls& probes_;
  const std::shared_ptr<Link> link_;
  std::string node_;
  // Written by the core thread when registered, read by it in later decisions.
  const std::shared_ptr<std::int64_t> incarnation_ = std::make_shared<std::int64_t>(0);
  const std::shared_ptr<ReportOrder> order_ = std::make_shared<ReportOrder>();
  v1::ConnectRequest incoming_;

  std::mutex mutex_;
  std::deque<v1::ConnectResponse> outgoing_;  // front: being written
  bool writing_ = false, finished_ = false;
};

void Link::Send(v1::ConnectResponse message) {
  const std::lock_guard lock(mutex_);
  if (stream_ != nullptr) stream_->Push(std::move(message));
}

void Link::Close(const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  if (stream_ != nullptr) stream_->End(why);
}

}  // namespace

grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* WorkerService::Connect(
    grpc::CallbackServerContext* context) {
  return new WorkerStream(coordinator_, rendezvous_, logs_, probes_,
                          gate_.Check(context, "vicreg.v1.WorkerService/Connect"));
}

}  // namespace vicreg::service
