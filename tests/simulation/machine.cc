#include "tests/simulation/machine.h"

#include <signal.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "common/planted.h"
#include "tests/simulation/world.h"

namespace vicreg::simulation {
namespace {

// Shorter than the real ones, as are the steps.
constexpr worker::HangOptions kHang{.setup = milliseconds(100'000), .step = milliseconds(40'000)};
constexpr worker::OrphanOptions kOrphans{.grace = kOrphanGrace, .stop_grace = kOrphanStop};
// The agent looks each second.
constexpr milliseconds kLook{4000};

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

// ---- the worker ----

Worker::Worker(World& world, Machine& machine)
    : world_(world), machine_(machine), supervisor_(machine.offer(), kHang, kOrphans) {
  Adopt();
  machine_.AfterOfWorker(milliseconds(1), [this] { Connect(); });
}

// Agent::AdoptRanks
void Worker::Adopt() {
  if (Planted(Plant::kLeftoversLeft)) machine_.rank_files.clear();
  for (const auto& [key, file] : machine_.rank_files) {
    v1::Launch launch;
    launch.ParseFromString(file.launch);
    supervisor_.Adopt(key, launch, file.slot, file.pid, file.secret);
    processes_[key] = file.pid;
    if (machine_.Find(file.pid) != nullptr) continue;
    // It has ended meanwhile; without a record something killed it.
    const auto record = machine_.exit_records.find(key);
    const int status = record == machine_.exit_records.end() ? SIGKILL : record->second;
    machine_.AfterOfWorker(milliseconds(1), [this, key = key, pid = file.pid, status] { Exited(key, pid, status); });
  }
}

Worker::~Worker() {
  if (!stream_) return;
  stream_->SetClient(nullptr);
  stream_->Break();
}

void Worker::BreakStream() {
  if (stream_) stream_->Break();
}

void Worker::Connect() {
  const TimePoint now = world_.events.now();
  if (world_.coordinator == nullptr || now < machine_.link().up_from || now < machine_.link().down_from)
    return ConnectLater();
  stream_ = std::make_shared<Stream>(world_.events, world_.random, machine_.link());
  stream_->SetServer(world_.coordinator->Accept(stream_));
  stream_->SetClient(this);
  ++streams_;
  v1::ConnectRequest first;
  registered_ = now;
  *first.mutable_register_() = supervisor_.MakeRegister(now);
  stream_->Up(std::move(first));
}

void Worker::ConnectLater() {
  const auto pause = world_.random.Between(milliseconds(50), milliseconds(static_cast<std::int64_t>(ceiling_ms_)));
  ceiling_ms_ = std::min(ceiling_ms_ * 2, 10'000.0);
  machine_.AfterOfWorker(pause, [this] { Connect(); });
}

void Worker::OnResponse(const v1::ConnectResponse& message) {
  if (message.has_launch()) machine_.OnLaunchComes();
  machine_.AfterOfWorker(microseconds(1), [this, message, stream = streams_] {
    if (stream == streams_ && stream_) Receive(message);
  });
}

void Worker::Receive(const v1::ConnectResponse& message) {
  if (message.has_welcome()) {
    world_.ledger.OnAnswered(machine_.name(), registered_);
    world_.Note(machine_.name() + " has incarnation " + std::to_string(message.welcome().incarnation()));
    ceiling_ms_ = 200;
    welcomed_ = true;
    supervisor_.OnStream(true);
    Beat(streams_);
  } else if (!welcomed_) {
    return;  // the first message must be Welcome
  }
  if (message.has_probe()) return OnProbe(message.probe());
  if (message.has_heartbeat()) world_.ledger.OnAnswered(machine_.name(), beats_.at(message.heartbeat().sequence()));
  Perform(supervisor_.OnMessage(world_.events.now(), message));
  Turn();
}

// Agent::OnProbe. Slow now and then: the coordinator has asked again by then. Answered on whatever stream there is.
void Worker::OnProbe(const v1::Probe& probe) {
  const auto takes = world_.random.Chance(20) ? world_.random.Between(seconds(5), seconds(40))
                                              : world_.random.Between(milliseconds(200), seconds(2));
  machine_.AfterOfWorker(takes, [this, id = probe.call_id()] {
    if (!stream_ || !welcomed_) return;
    v1::ConnectRequest message;
    message.mutable_probed()->set_call_id(id);
    if (machine_.probe_problem().empty()) {
      machine_.passed_probes.insert(-id);
    } else {
      message.mutable_probed()->add_problems(machine_.probe_problem());
    }
    stream_->Up(std::move(message));
  });
}

void Worker::OnEnd(const absl::Status& why) {
  machine_.AfterOfWorker(microseconds(1), [this, why, stream = streams_] {
    if (stream != streams_ || !stream_) return;
    world_.Note(machine_.name() + " lost its stream: " + std::string(why.message()));
    stream_->SetClient(nullptr);
    stream_.reset();
    welcomed_ = false;
    supervisor_.OnStream(false);
    if (absl::IsAborted(why)) supervisor_.ForgetIncarnation();
    ConnectLater();
    Turn();
  });
}

void Worker::Rejoin() {
  machine_.AfterOfWorker(microseconds(1), [this, stream = streams_] {
    if (stream != streams_ || !stream_) return;
    stream_->SetClient(nullptr);
    stream_->Break();
    stream_.reset();
    welcomed_ = false;
    supervisor_.OnStream(false);
    ConnectLater();
  });
}

void Worker::Beat(std::uint64_t stream) {
  if (stream != streams_ || !welcomed_) return;
  v1::ConnectRequest message;
  *message.mutable_heartbeat() = supervisor_.MakeHeartbeat(world_.events.now());
  beats_[message.heartbeat().sequence()] = world_.events.now();
  stream_->Up(std::move(message));
  machine_.AfterOfWorker(seconds(2), [this, stream] { Beat(stream); });
}

void Worker::Perform(worker::Effects effects) {
  const auto rank_of = [this](const worker::Key& key) {
    const auto found = links_.find(key);
    return found == links_.end() ? nullptr : found->second;
  };
  for (worker::Effect& effect : effects) {
    std::visit(Overloaded{
                   [&](worker::Tell& tell) {
                     if (stream_) stream_->Up(std::move(tell.message));
                   },
                   [&](worker::Say& say) {
                     RankProcess* rank = rank_of(say.key);
                     if (rank == nullptr) return;
                     machine_.AfterOfWorker(milliseconds(1),
                                            [this, pid = rank->pid(), message = std::move(say.message)] {
                                              if (RankProcess* now = machine_.Find(pid)) now->OnResponse(message);
                                            });
                   },
                   [&](worker::ReadOn& on) {
                     if (RankProcess* rank = rank_of(on.key)) rank->ReadOn();
                   },
                   [&](worker::Start& start) { Start(start); },
                   [&](worker::Signal& signal) {
                     machine_.After(microseconds(100), [machine = &machine_, s = signal] {
                       if (RankProcess* rank = machine->Find(s.pid)) rank->OnSignal(s.number);
                     });
                   },
                   [&](worker::Dump&) {},
                   [&](worker::Clear& clear) {
                     processes_.erase(clear.key);
                     machine_.rank_files.erase(clear.key);
                     machine_.exit_records.erase(clear.key);
                   },
                   [&](worker::Rejoin&) { Rejoin(); },
                   [&](worker::Log& log) { world_.Note(machine_.name() + ": " + log.sentence); },
               },
               effect);
  }
}

void Worker::Start(const worker::Start& start) {
  if (machine_.failing_starts > 0) {
    --machine_.failing_starts;
    Perform(supervisor_.OnNotStarted(start.key, 0, "simulated: no memory"));
    return;
  }
  const std::string secret = "secret " + std::to_string(world_.random.Next());
  const int pid = machine_.Spawn(start.key, start.slot, secret);
  processes_[start.key] = pid;
  machine_.rank_files[start.key] = {pid, start.slot, secret, start.launch};
  Perform(supervisor_.OnStarted(start.key, pid, secret));
}

bool Worker::Hello(RankProcess& rank, const v1::Hello& hello) {
  worker::Effects effects;
  if (!supervisor_.OnHello(hello, effects)) return false;
  links_[rank.key()] = &rank;
  Perform(std::move(effects));
  Turn();
  return true;
}

void Worker::Says(const worker::Key& key, const v1::RankSays& says) {
  if (links_.count(key) == 0) return;
  worker::Effects effects;
  const bool read_on = supervisor_.OnSays(key, says, effects);
  if (!read_on) links_.at(key)->paused = true;
  Perform(std::move(effects));
  Turn();
}

void Worker::OnProgress(const worker::Key& key, const v1::Progress& progress) {
  if (links_.count(key) == 0) return;
  supervisor_.OnProgress(world_.events.now(), key, progress);
  Turn();
}

void Worker::RankStreamEnded(const worker::Key& key, const RankProcess* rank) {
  const auto found = links_.find(key);
  if (found == links_.end() || found->second != rank) return;
  links_.erase(found);
  supervisor_.OnRankStreamEnd(key);
  Turn();
}

void Worker::Exited(const worker::Key& key, int pid, int wait_status) {
  const auto found = processes_.find(key);
  if (found == processes_.end() || found->second != pid || supervisor_.HasEnded(key)) return;
  Perform(supervisor_.OnExited(world_.events.now(), key, wait_status));
  Turn();
}

void Worker::Turn() {
  Perform(supervisor_.OnTime(world_.events.now()));
  TimePoint next = supervisor_.NextTimer();
  if (supervisor_.HasProcesses()) next = std::min(next, world_.events.now() + kLook);
  if (next == TimePoint::max()) return;
  const TimePoint at = std::max(next, world_.events.now() + milliseconds(1));
  if (at >= next_turn_ && next_turn_ > world_.events.now()) return;
  next_turn_ = at;
  machine_.AfterOfWorker(at - world_.events.now(), [this, at] {
    if (at != next_turn_) return;
    next_turn_ = TimePoint::max();
    Turn();
  });
}

// ---- the machine ----

Machine::Machine(World& world, std::string name, int slots, std::vector<std::string> roots,
                 std::vector<std::string> labels)
    : world_(world), name_(std::move(name)), slots_(slots), roots_(std::move(roots)), labels_(std::move(labels)) {}

void Machine::FreezeUntil(TimePoint until) {
  frozen_until_ = std::max(frozen_until_, until);
  runs_since_ = std::max(runs_since_, frozen_until_);
}

void Machine::OnLaunchComes() {
  if (freeze_when_launched == microseconds{}) return;
  FreezeUntil(world_.events.now() + std::exchange(freeze_when_launched, microseconds{}));
}

bool Machine::frozen() const { return world_.events.now() < frozen_until_; }

void Machine::After(std::chrono::nanoseconds delay, std::function<void()> act) {
  world_.events.After(delay, [this, power = power_, act = std::move(act)] {
    if (power != power_) return;
    if (frozen()) return After(frozen_until_ - world_.events.now(), act);
    act();
  });
}

void Machine::AfterOfWorker(std::chrono::nanoseconds delay, std::function<void()> act) {
  After(delay, [this, life = worker_life_, act = std::move(act)] {
    if (life == worker_life_) act();
  });
}

worker::Offer Machine::offer() const {
  worker::Offer offer;
  offer.node = name_;
  offer.boot_id = "boot " + std::to_string(boots_);
  offer.build = "simulated";
  offer.artifact_root = "/artifacts";
  offer.cpu_slots = slots_;
  for (const std::string& root : roots_) offer.data_roots[root] = "/data/" + root;
  offer.labels = labels_;
  return offer;
}

RankProcess* Machine::Find(int pid) {
  const auto found = processes_.find(pid);
  return found == processes_.end() || !found->second->alive() ? nullptr : found->second.get();
}

int Machine::Spawn(const worker::Key& key, int slot, const std::string& secret) {
  for (const auto& [pid, other] : processes_) {
    if (other->alive() && other->slot() == slot)
      world_.Wrong(worker::Text(key) + " was started in slot " + std::to_string(slot) + " of " + name_ + ", where " +
                   worker::Text(other->key()) + " still lives");
  }
  const int pid = next_pid_++;
  world_.ledger.OnSpawn(key, name_, slot);
  auto process = std::make_unique<RankProcess>(world_, *this, key, pid, slot, secret);
  RankProcess& rank = *process;
  processes_[pid] = std::move(process);
  rank.Begin();
  return pid;
}

std::string Machine::probe_problem() const {
  return world_.events.now() < probe_fails_until ? "simulated: no space" : "";
}

void Machine::StartWorker() {
  if (worker_ || !up_) return;
  world_.Note(name_ + ": worker starts");
  worker_ = std::make_unique<Worker>(world_, *this);
  runs_since_ = std::max(runs_since_, world_.events.now());
}

void Machine::KillWorker() {
  if (!worker_) return;
  world_.Note(name_ + ": worker killed");
  ++worker_life_;
  worker_.reset();
  for (const auto& [pid, rank] : processes_) rank->OnWorkerGone();
}

void Machine::PowerOff() {
  if (!up_) return;
  world_.Note(name_ + ": power off");
  ++power_;
  ++worker_life_;
  up_ = false;
  frozen_until_ = {};
  worker_.reset();
  for (const auto& [pid, rank] : processes_) {
    if (rank->alive()) world_.ledger.OnProcessEnd(rank->key(), SIGKILL);
  }
  processes_.clear();
  rank_files.clear();  // of another boot: worthless
  exit_records.clear();
}

void Machine::PowerOn() {
  if (up_) return;
  world_.Note(name_ + ": power on");
  up_ = true;
  ++boots_;
  StartWorker();
}

}  // namespace vicreg::simulation
