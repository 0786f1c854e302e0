#include "tests/simulation/coordinator.h"

#include <utility>

#include "coordinator/core/invariants.h"
#include "coordinator/service/worker_wire.h"
#include "tests/simulation/world.h"

namespace vicreg::simulation {
namespace {

constexpr std::size_t kMaxBatch = 512;
constexpr milliseconds kIdle{500};

}  // namespace

Coordinator::Coordinator(World& world)
    : world_(world),
      store_(world.disk),
      metrics_(world.events, world.random, world.metric_disk),
      leader_(store_, world.options),
      began_(world.events.now()),
      generation_(++world.coordinators) {}

Coordinator::~Coordinator() {
  *alive_ = false;
  for (const auto& weak : streams_) {
    if (const auto stream = weak.lock()) stream->Break();
  }
}

absl::Status Coordinator::Start() {
  RETURN_IF_ERROR(leader_.Start(began_, world_.WallMicros()));
  world_.ledger.OnRecovered(state());
  for (const core::Job* job : leader_.BegunAttempts()) metrics_.BeginAttempt(job->id, job->attempt, job->resumed_step);
  RunAt(world_.events.now());
  return absl::OkStatus();
}

bool Coordinator::stalled() const { return world_.events.now() < stalled_until_; }

void Coordinator::Post(std::function<absl::Status(core::Transaction&)> decide, std::function<void(absl::Status)> done) {
  queue_.push_back({std::move(decide), std::move(done)});
  if (!busy_) RunAt(world_.events.now() + world_.random.Between(microseconds(10), milliseconds(2)));
}

void Coordinator::RunAt(TimePoint when) {
  if (when >= next_run_) return;
  next_run_ = when;
  world_.events.At(when, [this, alive = alive_, run = ++run_] {
    if (*alive && run == run_) Run();
  });
}

void Coordinator::Run() {
  next_run_ = TimePoint::max();
  if (stalled()) return RunAt(stalled_until_);
  std::vector<core::Command> commands;
  while (!queue_.empty() && commands.size() < kMaxBatch) {
    commands.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  try {
    auto batch =
        std::make_shared<core::Batch>(leader_.Decide(world_.events.now(), world_.WallMicros(), std::move(commands)));
    busy_ = true;
    if (!batch->transaction.changed()) return Finish(*batch);
    // A commit takes its time; what it made durable is not yet true here.
    world_.events.After(world_.CommitTime(), [this, alive = alive_, batch] {
      if (*alive) Finish(*batch);
    });
  } catch (const Killed&) {
    if (world_.older.get() == this) return world_.EndOlder(generation_);
    world_.KillCoordinator("in a commit", false);
  }
}

void Coordinator::Finish(core::Batch& batch) {
  busy_ = false;
  const core::State before = core::PartBefore(state(), batch.transaction);
  leader_.Apply(batch);
  if (batch.saved.ok()) {
    world_.ledger.OnCommit(before, batch.transaction, state());
    for (const std::string& id : batch.transaction.begun()) {
      const core::Job& job = state().jobs.at(id);
      metrics_.BeginAttempt(job.id, job.attempt, job.resumed_step);
    }
  } else {
    world_.Note("commit failed: " + std::string(batch.saved.message()));
    // The last line of defence: what the keys refuse should not have been decided, and must not be believed.
    if (absl::IsAlreadyExists(batch.saved)) world_.Wrong("the store refused: " + std::string(batch.saved.message()));
    for (const std::string& sentence : core::Broken(state())) world_.Wrong(sentence + ", and is not stored");
  }
  core::Leader::Answer(batch);
  if (batch.saved.ok()) SendAll(batch.transaction);
  if (leader_.deposed()) {
    world_.events.After(milliseconds(1), [&world = world_, generation = generation_] { world.EndOlder(generation); });
    return;
  }
  RunAt(queue_.empty() ? world_.events.now() + kIdle : world_.events.now() + microseconds(50));
}

void Coordinator::SendAll(const core::Transaction& transaction) {
  for (const core::Message& message : transaction.messages()) {
    const auto session = sessions_.find(message.node);
    if (session == sessions_.end()) continue;
    if (auto wire = service::ToWire(message, state())) session->second->Send(*std::move(wire));
  }
}

std::shared_ptr<ServerEnd> Coordinator::Accept(const std::shared_ptr<Stream>& stream) {
  streams_.push_back(stream);
  return std::make_shared<ServerEnd>(world_, *this, stream);
}

// ---- one stream ----

Coordinator* ServerEnd::coordinator() const { return world_.CoordinatorOf(generation_); }

void ServerEnd::Send(v1::ConnectResponse message) {
  if (const auto stream = stream_.lock()) {
    // Said twice: what a worker is told must mean the same.
    if (world_.repeats && !message.has_welcome() && world_.random.Chance(5)) stream->Down(message);
    stream->Down(std::move(message));
  }
}

void ServerEnd::Close(const absl::Status& why) {
  if (const auto stream = stream_.lock()) stream->End(why);
}

void ServerEnd::OnBroken() {
  if (coordinator() == nullptr) return;
  const auto found = coordinator()->sessions_.find(node_);
  if (found != coordinator()->sessions_.end() && found->second.get() == this) coordinator()->sessions_.erase(found);
}

void ServerEnd::OnRequest(const v1::ConnectRequest& message) {
  if (coordinator() == nullptr) return;
  const auto self = shared_from_this();
  // Said twice, and the second time whenever: after reconnects, and to whoever is the coordinator then. Mostly ends of
  // ranks, as there are few, and the next attempt may be on its way.
  const int often = message.has_report() && message.report().has_exited() ? 40 : 5;
  if (world_.repeats && !message.has_register_() && world_.random.Chance(often)) {
    world_.events.After(world_.random.Between(milliseconds(1), seconds(60)), [self, message] {
      if (self->world_.coordinator == nullptr) return;
      self->generation_ = self->world_.coordinator->generation();
      if (message.has_report()) self->OnReport(message.report());
      if (message.has_probed()) self->OnProbed(message.probed());
      if (message.has_prepared()) {
        self->coordinator()->Post(
            [self, message](core::Transaction& tx) {
              core::OnPrepared(tx, self->node_, self->incarnation_, message.prepared().job_id(),
                               message.prepared().attempt(), message.prepared().refusal());
              return absl::OkStatus();
            },
            [](const absl::Status&) {});
      }
    });
  }
  switch (message.message_case()) {
    case v1::ConnectRequest::kRegister:
      OnRegister(message.register_());
      break;
    case v1::ConnectRequest::kHeartbeat:
      world_.ledger.OnHeard(coordinator()->state(), node_, incarnation_);
      coordinator()->Post(
          [self](core::Transaction& tx) { return core::Heartbeat(tx, self->node_, self->incarnation_); },
          [self, sequence = message.heartbeat().sequence()](const absl::Status& status) {
            if (!status.ok()) return self->Close(status);
            v1::ConnectResponse answer;
            answer.mutable_heartbeat()->set_sequence(sequence);
            self->Send(std::move(answer));
          });
      break;
    case v1::ConnectRequest::kPrepared:
      coordinator()->Post(
          [self, prepared = message.prepared()](core::Transaction& tx) {
            core::OnPrepared(tx, self->node_, self->incarnation_, prepared.job_id(), prepared.attempt(),
                             prepared.refusal());
            return absl::OkStatus();
          },
          [self](const absl::Status& status) { self->CloseOnError(status); });
      break;
    case v1::ConnectRequest::kReport:
      OnReport(message.report());
      break;
    case v1::ConnectRequest::kProbed:
      OnProbed(message.probed());
      break;
    default:
      break;
  }
}

void ServerEnd::OnRegister(const v1::Register& wire) {
  const core::Registration registration = service::ToRegistration(wire);
  node_ = registration.node.name;
  const auto self = shared_from_this();
  const auto welcome = std::make_shared<core::Welcome>();
  coordinator()->Post(
      [registration, welcome](core::Transaction& tx) -> absl::Status {
        ASSIGN_OR_RETURN(*welcome, core::Register(tx, registration));
        return absl::OkStatus();
      },
      [self, welcome](const absl::Status& status) {
        if (!status.ok()) return self->Close(status);
        self->incarnation_ = welcome->incarnation;
        Coordinator& coordinator = *self->coordinator();
        self->Send(service::ToWire(*welcome, coordinator.state().term, "store", 2000));
        const auto before = std::exchange(coordinator.sessions_[self->node_], self);
        if (before) before->Close(absl::AbortedError("another connection took its place"));
      });
}

void ServerEnd::OnProbed(const v1::Probed& wire) {
  coordinator()->Post(
      [self = shared_from_this(), wire](core::Transaction& tx) {
        core::OnProbed(tx, service::ToProbeAnswer(wire, self->node_, self->incarnation_));
        return absl::OkStatus();
      },
      [self = shared_from_this()](const absl::Status& status) { self->CloseOnError(status); });
}

void ServerEnd::OnReport(const v1::RankReport& wire) {
  const auto self = shared_from_this();
  if (wire.has_rows()) {
    // The history is a file of its own, and locked.
    if (coordinator() != world_.coordinator.get()) return Close(absl::UnavailableError("the history is in use"));
    std::vector<std::int64_t> steps;
    for (const v1::MetricRow& row : wire.rows().rows()) steps.push_back(row.step());
    v1::ConnectResponse answer;
    v1::ReportAck& ack = *answer.mutable_ack();
    ack.set_job_id(wire.job_id());
    ack.set_attempt(wire.attempt());
    ack.set_rank(wire.rank());
    ack.set_sequence(wire.sequence());
    coordinator()->metrics_.Append(wire.job_id(), wire.attempt(), std::move(steps),
                                   [self, answer](const absl::Status& status) mutable {
                                     if (!status.ok() && !absl::IsFailedPrecondition(status)) {
                                       self->order_.RowsFailed();
                                       return self->Close(status);
                                     }
                                     answer.mutable_ack()->set_fenced(!status.ok());
                                     self->AcknowledgeRows(std::move(answer));
                                   });
    return;
  }
  order_.Came();
  coordinator()->metrics_.Barrier([self, report = service::ToReport(wire)](const absl::Status& status) {
    if (!self->order_.Counts(status)) {
      self->CloseOnError(status);
      self->order_.Decided();
      return;
    }
    self->coordinator()->Post(
        [self, report](core::Transaction& tx) {
          self->world_.ledger.BeforeReport(tx, self->node_, self->incarnation_, report);
          core::OnReport(tx, self->node_, self->incarnation_, report);
          self->world_.ledger.AfterReport(tx, report);
          return absl::OkStatus();
        },
        [self](const absl::Status& saved) {
          self->CloseOnError(saved);
          self->order_.Decided();
        });
  });
}

void ServerEnd::AcknowledgeRows(v1::ConnectResponse answer) {
  if (order_.MayAcknowledgeRows()) return Send(std::move(answer));
  coordinator()->Post([](core::Transaction&) { return absl::OkStatus(); },
                      [self = shared_from_this(), answer = std::move(answer)](const absl::Status& saved) {
                        if (!saved.ok()) return self->Close(saved);
                        self->Send(answer);
                      });
}

}  // namespace vicreg::simulation
