#include "tests/simulation/rank.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>

#include "tests/simulation/world.h"
#include "worker/core/exit.h"

namespace vicreg::simulation {
namespace {

constexpr milliseconds kLocal{1};  // a message on the worker's socket

int ExitStatus(int code) { return code << 8; }

}  // namespace

RankProcess::RankProcess(World& world, Machine& machine, worker::Key key, int pid, int slot, std::string secret)
    : world_(world), machine_(machine), key_(std::move(key)), pid_(pid), slot_(slot), secret_(std::move(secret)) {}

RankProcess::~RankProcess() {
  *alive_ = false;
  world_.GangOf(key_).Forget(*this);
}

void RankProcess::After(std::chrono::nanoseconds delay, void (RankProcess::*what)()) {
  machine_.After(delay, [this, alive = alive_, what] {
    if (*alive && !ended_) (this->*what)();
  });
}

void RankProcess::Begin() {
  alone_since_ = world_.events.now();
  After(world_.random.Between(milliseconds(50), milliseconds(600)), &RankProcess::Attach);
  After(seconds(2), &RankProcess::TellProgress);
}

void RankProcess::Hang(bool silent) {
  if (leaving_) return;  // see hangs_leaving
  hung_ = true;
  silent_ = silent;
  world_.ledger.OnHang(key_);
}

void RankProcess::TellProgress() {
  if (silent_) return;
  After(seconds(2), &RankProcess::TellProgress);
  Worker* worker = machine_.worker();
  if (!attached_ || worker == nullptr) return;
  const Gang& gang = world_.GangOf(key_);
  v1::Progress progress;
  progress.set_phase(leaving_          ? v1::Progress::PHASE_LEAVING
                     : gang.stepping() ? v1::Progress::PHASE_STEP
                                       : v1::Progress::PHASE_SETUP);
  progress.set_step(gang.step());
  progress.set_units(gang.step());
  progress.set_waits_for_peers(!hung_ && gang.stepping() && gang.Stuck());
  worker->OnProgress(key_, progress);
}

// ---- its worker ----

void RankProcess::Attach() {
  if (attached_ || silent_) return;
  // Link::CheckOrphaned
  const auto away = world_.events.now() - alone_since_;
  if (away > std::chrono::minutes(30) && !leaving_) Leave(12, "no worker", false);
  if (Worker* worker = machine_.worker()) {
    v1::Hello hello;
    hello.set_job_id(std::get<0>(key_));
    hello.set_attempt(std::get<1>(key_));
    hello.set_rank(std::get<2>(key_));
    hello.set_pid(pid_);
    hello.set_secret(secret_);
    if (!worker->Hello(*this, hello)) return Die(ExitStatus(13));  // another worker took its place
    attached_ = true;
    paused = false;
    unsent_ = unacked_.empty() ? next_ : unacked_.front().sequence();
    return Flush();
  }
  After(milliseconds(500), &RankProcess::Attach);
}

void RankProcess::OnWorkerGone() {
  if (!attached_) return;
  attached_ = false;
  alone_since_ = world_.events.now();
  After(milliseconds(500), &RankProcess::Attach);
}

void RankProcess::OnResponse(const v1::AttachResponse& message) {
  if (ended_ || silent_) return;
  if (message.has_assignment() && !assigned_) {
    assigned_ = true;
    assignment_ = message.assignment();
    After(world_.random.Between(milliseconds(100), milliseconds(1500)), &RankProcess::SetUp);
  }
  if (message.has_ack()) {
    while (!unacked_.empty() && unacked_.front().sequence() <= message.ack().sequence()) unacked_.pop_front();
    if (leaving_) LeaveIfCommitted();
  }
  if (!message.has_command() || ignores_stop) return;
  switch (message.command().kind()) {
    case v1::Command::KIND_STOP:
      stop_asked_ = true;
      nobody_confirms_ = nobody_confirms_ || message.command().nobody_confirms();
      break;
    case v1::Command::KIND_ABORT:
      Die(ExitStatus(12));
      break;
    case v1::Command::KIND_FENCE:
      Die(ExitStatus(13));
      break;
    default:
      break;
  }
}

void RankProcess::OnSignal(int number) {
  if (ended_) return;
  if (number == SIGTERM && !ignores_stop && !silent_) stop_asked_ = true;
  if (number != SIGKILL) return;
  if (world_.events.now() < unkillable_until) return;
  Die(SIGKILL);
}

void RankProcess::Say(v1::RankSays says) {
  says.set_sequence(next_++);
  unacked_.push_back(std::move(says));
  Flush();
}

void RankProcess::Flush() {
  while (attached_ && !paused && unsent_ < next_) {
    const std::int64_t ahead = unacked_.empty() ? -1 : unsent_ - unacked_.front().sequence();
    ++unsent_;
    if (ahead < 0) continue;
    // What it has written is read even if it dies: the machine carries it, not the process.
    machine_.AfterOfWorker(kLocal, [&machine = machine_, key = key_, says = unacked_[static_cast<std::size_t>(ahead)]] {
      if (machine.worker() != nullptr) machine.worker()->Says(key, says);
    });
  }
}

// ---- its work ----

void RankProcess::SetUp() {
  if (hung_ || leaving_) return;
  if (stop_asked_) return Leave(10, "stopped", true);
  if (assignment_.has_resume() && world_.artifacts.count(assignment_.resume().path()) == 0)
    return Leave(23, "no such checkpoint", false);
  v1::RankSays says;
  says.mutable_connected()->set_resume_step(resume_step());
  says.mutable_connected()->set_total_steps(assignment_.spec().length().steps());
  Say(std::move(says));
  meet_by_ = world_.events.now() + seconds(60);
  Meet();
}

void RankProcess::Meet() {
  if (hung_ || leaving_ || world_.GangOf(key_).stepping()) return;
  if (stop_asked_) return Leave(10, "stopped", true);
  if (world_.events.now() > meet_by_) return Leave(30, "rendezvous: timeout", false);
  Worker* worker = machine_.worker();
  if (attached_ && worker != nullptr && worker->welcomed() && world_.coordinator != nullptr) {
    const auto& jobs = world_.coordinator->state().jobs;
    const auto job = jobs.find(std::get<0>(key_));
    if (job == jobs.end() || job->second.attempt != std::get<1>(key_)) return Leave(30, "rendezvous: fenced", false);
    world_.GangOf(key_).Meet(*this, world_.coordinator->generation());
  }
  // Until all have come, and again if the coordinator that was told has ended.
  After(seconds(1), &RankProcess::Meet);
}

void RankProcess::Leave(int code, const std::string& message, bool good, std::int64_t nonfinite_step) {
  if (leaving_ || ended_) return;
  leaving_ = true;
  leaving_good_ = good;
  code_ = code;
  last_words_ = message;
  nonfinite_step_ = nonfinite_step;
  leave_by_ = world_.events.now() + (good ? seconds(1800) : seconds(10));
  PollLeave();
}

void RankProcess::PollLeave() {
  After(seconds(1), &RankProcess::PollLeave);
  LeaveIfCommitted();
}

void RankProcess::LeaveIfCommitted() {
  if (hung_) return;
  const bool late = world_.events.now() >= leave_by_;
  // Link::HandedOver
  const bool handed_over = nobody_confirms_ && attached_ && unsent_ == next_;
  if (!unacked_.empty() && !late && !handed_over) return;
  if (!unacked_.empty() && leaving_good_ && (late || code_ != 10)) code_ = 12;
  v1::RankSays says;
  says.mutable_leaving()->set_reason(worker::ReasonOfCode(code_));
  says.mutable_leaving()->set_code(code_);
  says.mutable_leaving()->set_message(last_words_);
  says.mutable_leaving()->set_nonfinite_step(nonfinite_step_);
  leaving_good_ = false;
  Say(std::move(says));
  world_.ledger.OnLastWords(key_, code_);
  if (!hangs_leaving) return Die(ExitStatus(code_));
  hung_ = true;
  world_.ledger.OnHang(key_);
}

void RankProcess::Die(int wait_status) {
  if (ended_) return;
  ended_ = true;
  *alive_ = false;
  world_.Note(worker::Text(key_) + ": process " + std::to_string(pid_) + " ended with status " +
              std::to_string(wait_status));
  world_.ledger.OnProcessEnd(key_, wait_status);
  if (WIFEXITED(wait_status)) machine_.exit_records[key_] = wait_status;
  world_.GangOf(key_).Forget(*this);
  machine_.AfterOfWorker(kLocal * 2, [&machine = machine_, key = key_, self = this] {
    if (machine.worker() != nullptr) machine.worker()->RankStreamEnded(key, self);
  });
  const auto reaped = world_.random.Between(milliseconds(1), milliseconds(90));
  machine_.After(reaped, [&machine = machine_, key = key_, pid = pid_, wait_status] {
    machine.Remove(pid);
    if (machine.worker() != nullptr) machine.worker()->Exited(key, pid, wait_status);
  });
}

// ---- gangs ----

void Gang::Meet(RankProcess& rank, std::uint64_t coordinator) {
  if (stepping_) return;
  const auto [entry, added] = met_.try_emplace(std::get<2>(rank.key()), &rank, coordinator);
  // A coordinator that restarted has forgotten who came.
  if (!added && entry->second.first == &rank) entry->second.second = coordinator;
  world_size_ = rank.assignment().world_size();
  if (static_cast<int>(met_.size()) != world_size_) return;
  if (!std::all_of(met_.begin(), met_.end(), [&](const auto& m) { return m.second.second == coordinator; })) return;
  stepping_ = true;
  step_ = first_ = saved_ = rank.resume_step();
  world_.ledger.OnGangBegins(job_id_, attempt_, step_);
  StepLater();
}

void Gang::Forget(const RankProcess& rank) {
  const auto found = met_.find(std::get<2>(rank.key()));
  if (found != met_.end() && found->second.first == &rank) met_.erase(found);
}

void Gang::StepLater() {
  const int slower = world_.events.now() < world_.slow_until ? 20 : 1;
  world_.events.After(slower * world_.random.Between(milliseconds(200), milliseconds(1200)), [this] { Step(); });
}

bool Gang::Stuck() const {
  if (static_cast<int>(met_.size()) < world_size_ || world_.events.now() < cut_until) return true;
  return std::any_of(met_.begin(), met_.end(), [](const auto& m) {
    RankProcess& rank = *m.second.first;
    return rank.hung() || rank.leaving() || rank.machine().frozen();
  });
}

void Gang::Step() {
  if (met_.empty()) return;
  if (Stuck()) {
    if (stuck_since_ == TimePoint{}) stuck_since_ = world_.events.now();
    if (world_.events.now() - stuck_since_ > seconds(30)) {
      for (auto& [number, met] : std::map(met_)) {
        if (!met.first->hung() && !met.first->machine().frozen()) met.first->Leave(31, "collective: timeout", false);
      }
    }
    world_.events.After(seconds(1), [this] { Step(); });
    return;
  }
  stuck_since_ = {};
  const auto members = met_;
  RankProcess& first = *members.begin()->second.first;
  const bool stop =
      std::any_of(members.begin(), members.end(), [](const auto& m) { return m.second.first->stop_asked(); });
  const std::int64_t total = first.assignment().spec().length().steps();
  if (numeric_next && step_ < total && first.assignment().substituted_step() != step_ + 1) {
    for (const auto& [number, met] : members) met.first->Leave(24, "the loss is not finite", false, step_ + 1);
    return;
  }
  if (step_ < total) ++step_;
  if (step_ == first_ + 1 || total == first_) {
    for (const auto& [number, met] : members) {
      v1::RankSays says;
      says.mutable_stepping()->set_step(step_);
      met.first->Say(std::move(says));
    }
  }
  if (step_ > first_) {
    world_.ledger.OnStep(job_id_, attempt_, step_);
    v1::RankSays says;
    says.mutable_rows()->add_rows()->set_step(step_);
    first.Say(std::move(says));
  }
  const bool done = step_ >= total;
  if ((done || stop || step_ - saved_ >= 3 + total % 4) && step_ > saved_) Save(first);
  if (done) {
    world_.ledger.OnTrained(job_id_, attempt_);
    v1::RankSays says;
    says.mutable_exported()->set_path("default/" + job_id_ + "/export");
    first.Say(std::move(says));
    for (const auto& [number, met] : members) met.first->Leave(0, "finished", true);
  } else if (stop) {
    for (const auto& [number, met] : members) met.first->Leave(10, "stopped", true);
  } else {
    StepLater();
  }
}

void Gang::Save(RankProcess& first) {
  saved_ = step_;
  v1::RankSays says;
  v1::CheckpointWritten& written = *says.mutable_checkpoint();
  written.set_step(step_);
  written.set_path("default/" + job_id_ + "/a" + std::to_string(attempt_) + "/step-" + std::to_string(step_));
  written.set_hash("hash of " + written.path());
  written.set_bytes(1000);
  world_.artifacts[written.path()] = step_;
  first.Say(std::move(says));
}

}  // namespace vicreg::simulation
