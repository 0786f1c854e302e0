#include "worker/agent/agent.h"

#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "common/exit_record.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/version.h"
#include "worker/agent/probe.h"
#include "worker/agent/rank_log.h"
#include "worker/agent/thread_dump.h"

namespace vicreg::agent {
namespace {

using std::chrono::milliseconds;
using TimePoint = worker::TimePoint;
constexpr milliseconds kLogCheck{1000};
// Waiting for an answer: more, and the oldest gets none.
constexpr std::size_t kMaxProbes = 16;

TimePoint Now() { return std::chrono::steady_clock::now(); }

template <typename Message>
worker::Key KeyOf(const Message& message) {
  return {message.job_id(), message.attempt(), message.rank()};
}

worker::Offer OfferOf(const AgentOptions& options) {
  return {options.node,          BootId(),           kVersion,
          options.artifact_root, options.cpu_slots,  options.threads_per_rank,
          options.gpus,          options.data_roots, options.labels};
}

v1::StoreReply Refused(const std::string& why) {
  v1::StoreReply reply;
  reply.set_error(why);
  return reply;
}

// Without a descriptor it had ended before it was found.
bool HasEnded(const Process& process) {
  pollfd watch{process.pidfd, POLLIN, 0};
  return process.pidfd < 0 || poll(&watch, 1, 0) == 1;
}

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

Agent::Agent(AgentOptions options)
    : options_(std::move(options)),
      supervisor_(OfferOf(options_)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      watcher_([this] { Watch(); }) {}

Agent::~Agent() {
  {
    const std::lock_guard lock(mutex_);
    quit_ = true;
  }
  Wake();
  watcher_.join();
  if (prober_.joinable()) prober_.join();
  close(wake_);
}

void Agent::Wake() { eventfd_write(wake_, 1); }

absl::Status Agent::AdoptRanks() {
  ASSIGN_OR_RETURN(const std::vector<Found> found, FindRanks(options_.folder + "/ranks"));
  {
    const std::lock_guard lock(mutex_);
    for (const Found& rank : found) RETURN_IF_ERROR(Adopt(rank));
  }
  Wake();
  return absl::OkStatus();
}

absl::Status Agent::Adopt(const Found& found) {
  const RankFile& file = found.file;
  const Key key{file.job_id, file.attempt, file.rank};
  v1::Launch launch;
  const bool readable = launch.ParseFromString(file.launch) && supervisor_.CanHold(launch);
  // Its number is ours to wait for only while the process is still the one that the file names.
  const int pidfd = found.lives ? PidfdOpen(file.pid) : -1;
  const bool lives = pidfd >= 0 && StartTime(file.pid) == file.start_time;
  if (!readable) {
    if (pidfd >= 0) close(pidfd);
    if (lives && !KillGroupAndWait(file.pid)) {
      return absl::DeadlineExceededError("process " + std::to_string(file.pid) +
                                         " of an earlier worker does not end after SIGKILL: its slot cannot be used; "
                                         "reboot this node");
    }
    spdlog::warn("{}: ended, as this worker does not offer what it needs", worker::Text(key));
    RemoveRankFile(options_.folder + "/ranks", file.job_id, file.attempt, file.rank);
    return absl::OkStatus();
  }
  supervisor_.Adopt(key, launch, file.slot, file.pid, file.secret);
  processes_[key] = {file.pid, pidfd};
  adopted_.insert(key);
  spdlog::info("{}: process {} of an earlier worker {}", worker::Text(key), file.pid,
               lives ? "adopted" : "has ended meanwhile");
  return absl::OkStatus();
}

// ---- the coordinator's stream ----

void Agent::SetOutlet(ToCoordinator outlet) {
  std::map<std::int64_t, std::function<void(v1::StoreReply)>> lost;
  {
    const std::lock_guard lock(mutex_);
    outlet_ = std::move(outlet);
    supervisor_.OnStream(outlet_ != nullptr);
    lost.swap(store_calls_);
  }
  // A rendezvous call asked on the old stream would wait for an answer that cannot come.
  for (auto& [id, done] : lost) done(Refused("the coordinator is away"));
}

v1::Register Agent::MakeRegister() {
  const std::lock_guard lock(mutex_);
  return supervisor_.MakeRegister(Now());
}

v1::Heartbeat Agent::MakeHeartbeat() {
  const std::lock_guard lock(mutex_);
  return supervisor_.MakeHeartbeat(Now());
}

void Agent::ForgetIncarnation() {
  const std::lock_guard lock(mutex_);
  supervisor_.ForgetIncarnation();
}

bool Agent::OnMessage(const v1::ConnectResponse& message) {
  if (message.has_read_log()) return OnReadLog(message.read_log()), true;
  if (message.has_probe()) return OnProbe(message.probe()), true;
  if (message.has_store_reply()) return OnStoreReply(message.store_reply()), true;
  bool rejoin = false;
  {
    const std::lock_guard lock(mutex_);
    Perform(supervisor_.OnMessage(Now(), message));
    rejoin = std::exchange(rejoin_, false);
  }
  changed_.notify_all();
  Wake();
  return !rejoin;
}

void Agent::OnStoreReply(const v1::StoreReply& reply) {
  std::function<void(v1::StoreReply)> done;
  {
    const std::lock_guard lock(mutex_);
    const auto found = store_calls_.find(reply.call_id());
    if (found == store_calls_.end()) return;
    done = std::move(found->second);
    store_calls_.erase(found);
  }
  done(reply);
}

std::string Agent::LogPath(const Key& key) const {
  return RankLogPath(options_.folder, std::get<0>(key), std::get<1>(key), std::get<2>(key));
}

void Agent::OnReadLog(const v1::ReadLog& read) {
  v1::ConnectRequest message;
  v1::LogChunk& chunk = *message.mutable_log_chunk();
  chunk.set_call_id(read.call_id());
  chunk.set_offset(read.offset());
  bool ended = false;
  {
    const std::lock_guard lock(mutex_);
    ended = supervisor_.HasEnded(KeyOf(read));
  }
  // A job id is part of a path here: only a UUID may be.
  absl::StatusOr<LogPart> part = absl::NotFoundError("not a job id");
  if (IsUuid(read.job_id())) part = ReadRankLog(LogPath(KeyOf(read)), read.offset(), read.max_bytes());
  if (part.ok()) {
    chunk.set_offset(part->offset);
    chunk.set_end(part->data.empty() && ended);
    *chunk.mutable_data() = std::move(part->data);
  } else {
    chunk.set_error("node " + options_.node + " has no log of rank " + std::to_string(read.rank()) + " in attempt " +
                    std::to_string(read.attempt()));
  }
  const std::lock_guard lock(mutex_);
  if (outlet_) outlet_(std::move(message));
}

// Not on the stream's thread: a Stop or Abort may not wait for it. One at a time; the next answers all who asked since.
void Agent::OnProbe(const v1::Probe& probe) {
  {
    const std::lock_guard lock(mutex_);
    if (probes_.size() == kMaxProbes) probes_.erase(probes_.begin());
    probes_.push_back(probe.call_id());
    if (std::exchange(probing_, true)) return;
  }
  if (prober_.joinable()) prober_.join();
  prober_ = std::thread([this] { AnswerProbes(); });
}

void Agent::AnswerProbes() {
  while (true) {
    std::vector<std::int64_t> asked;
    {
      const std::lock_guard lock(mutex_);
      asked.swap(probes_);
      if (asked.empty() || quit_) {
        probing_ = false;
        return;
      }
    }
    v1::ConnectRequest message;
    *message.mutable_probed() = Probe(options_);
    const std::lock_guard lock(mutex_);
    for (const std::int64_t id : asked) {
      message.mutable_probed()->set_call_id(id);
      if (outlet_) outlet_(message);
    }
  }
}

// ---- ranks ----

bool Agent::OnHello(const v1::Hello& hello, std::shared_ptr<RankLink> link) {
  const std::lock_guard lock(mutex_);
  worker::Effects effects;
  if (!supervisor_.OnHello(hello, effects)) return false;
  links_[KeyOf(hello)] = std::move(link);
  Perform(std::move(effects));
  return true;
}

bool Agent::OnSays(const v1::Hello& from, const v1::RankSays& says) {
  const std::lock_guard lock(mutex_);
  worker::Effects effects;
  const bool read_on = supervisor_.OnSays(KeyOf(from), says, effects);
  Perform(std::move(effects));
  return read_on;
}

void Agent::OnProgress(const v1::Hello& from, const v1::Progress& progress) {
  const std::lock_guard lock(mutex_);
  supervisor_.OnProgress(Now(), KeyOf(from), progress);
}

void Agent::OnRankStreamEnd(const v1::Hello& from, const RankLink* link) {
  const std::lock_guard lock(mutex_);
  const auto found = links_.find(KeyOf(from));
  if (found == links_.end() || found->second.get() != link) return;
  links_.erase(found);
  supervisor_.OnRankStreamEnd(KeyOf(from));
  Wake();  // an ended process had its say
}

void Agent::OnRendezvous(const v1::RendezvousRequest& request, std::function<void(v1::StoreReply)> done) {
  std::string refusal;
  {
    const std::lock_guard lock(mutex_);
    refusal = supervisor_.Refusal(KeyOf(request), request.secret());
    if (refusal.empty()) {
      v1::ConnectRequest message;
      v1::StoreCall& call = *message.mutable_store_call();
      call.set_call_id(next_call_++);
      call.set_job_id(request.job_id());
      call.set_attempt(request.attempt());
      call.set_rank(request.rank());
      *call.mutable_operation() = request.operation();
      store_calls_[call.call_id()] = std::move(done);
      outlet_(std::move(message));
      return;
    }
  }
  done(Refused(refusal));
}

// ---- effects ----

void Agent::Perform(worker::Effects effects) {
  const auto send = [this](const Key& key, const auto& call) {
    if (const auto found = links_.find(key); found != links_.end()) call(*found->second);
  };
  for (worker::Effect& effect : effects) {
    std::visit(Overloaded{
                   [&](worker::Tell& tell) { outlet_(std::move(tell.message)); },
                   [&](worker::Say& say) { send(say.key, [&](RankLink& link) { link.Send(std::move(say.message)); }); },
                   [&](worker::ReadOn& on) { send(on.key, [](RankLink& link) { link.Resume(); }); },
                   [&](worker::Start& start) { Start(start); },
                   [&](worker::Signal& s) {
                     // The number of a process that is not our child may be a stranger's once it has ended.
                     if (adopted_.count(s.key) == 0 || !HasEnded(processes_.at(s.key)))
                       kill(s.group ? -s.pid : s.pid, s.number);
                   },
                   [&](worker::Dump& dump) { DumpThreads(dump.pid, LogPath(dump.key)); },
                   [&](worker::Clear& clear) { Clear(clear.key); },
                   [&](worker::Rejoin&) { rejoin_ = true; },
                   [&](worker::Log& log) {
                     static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::info, spdlog::level::warn,
                                                                             spdlog::level::err};
                     spdlog::log(kLevels[static_cast<int>(log.level)], log.sentence);
                   },
               },
               effect);
  }
}

void Agent::Start(const worker::Start& start) {
  const std::string secret = RandomBytes(32);
  const absl::Status status = StartProcess(start, secret);
  const auto process = processes_.find(start.key);
  const int pid = process == processes_.end() ? 0 : process->second.pid;
  Perform(status.ok() ? supervisor_.OnStarted(start.key, pid, secret)
                      : supervisor_.OnNotStarted(start.key, pid, std::string(status.message())));
}

absl::Status Agent::StartProcess(const worker::Start& start, const std::string& secret) {
  const auto& [job_id, attempt, rank] = start.key;
  ProcessSpec spec;
  spec.program = options_.rank_program;
  spec.arguments = {"--dir",     options_.folder,         "--socket", options_.socket_path, "--job", job_id,
                    "--attempt", std::to_string(attempt), "--rank",   std::to_string(rank)};
  spec.arguments.insert(spec.arguments.end(), {"--collective-timeout", std::to_string(options_.collective_timeout_s),
                                               "--address", options_.rank_address});
  const std::string threads = std::to_string(options_.threads_per_rank);
  // Built, not inherited: nothing of the worker's environment changes an experiment.
  spec.environment = {
      {"PATH", "/usr/bin:/bin"},    {"LANG", "C.UTF-8"},          {"HOME", "/nonexistent"},      {"TMPDIR", "/tmp"},
      {"OMP_NUM_THREADS", threads}, {"MKL_NUM_THREADS", threads}, {"OMP_WAIT_POLICY", "PASSIVE"}};
  // A rank sees the GPU of its slot and no other; one on a CPU slot sees none.
  spec.environment.emplace_back("CUDA_VISIBLE_DEVICES", start.gpu);
  spec.log_path = LogPath(start.key);
  spec.secret = secret;
  RETURN_IF_ERROR(MakeFolders(spec.log_path.substr(0, spec.log_path.rfind('/'))));
  ASSIGN_OR_RETURN(const Process process, Spawn(spec));
  processes_[start.key] = process;
  // Without this file a restarted worker could not find the process.
  absl::Status saved = SaveRankFile(
      options_.folder + "/ranks",
      {job_id, attempt, rank, process.pid, StartTime(process.pid), BootId(), start.slot, secret, start.launch});
  if (!saved.ok()) kill(-process.pid, SIGKILL);
  return saved;
}

void Agent::Clear(const Key& key) {
  const auto found = processes_.find(key);
  if (found->second.pidfd >= 0) close(found->second.pidfd);
  processes_.erase(found);
  adopted_.erase(key);
  cleared_logs_.push_back(LogPath(key));  // what it wrote since the last look
  RemoveRankFile(options_.folder + "/ranks", std::get<0>(key), std::get<1>(key), std::get<2>(key));
}

// ---- processes ----

void Agent::Reap() {
  for (const auto& [key, process] : processes_) {
    if (supervisor_.HasEnded(key)) continue;
    if (adopted_.count(key) != 0) {
      if (HasEnded(process)) ReapAdopted(key, process);
      continue;
    }
    siginfo_t ended{};
    if (waitid(P_PID, static_cast<id_t>(process.pid), &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        ended.si_pid != process.pid)
      continue;
    kill(-process.pid, SIGKILL);  // whatever it may have left in its group, whose number is ours until it is reaped
    int status = 0;
    if (waitpid(process.pid, &status, WNOHANG) != process.pid) continue;
    Perform(supervisor_.OnExited(Now(), key, status));
  }
}

// The rank's own record says how it ended; without one something killed it.
void Agent::ReapAdopted(const Key& key, const Process& process) {
  const auto& [job_id, attempt, rank] = key;
  const auto record = LoadExitRecord(ExitRecordPath(options_.folder + "/ranks", job_id, attempt, rank));
  if (record) {
    v1::Exited words;
    words.set_message(record->message);
    words.set_nonfinite_step(record->nonfinite_step);
    supervisor_.OnLastWords(key, words);
  }
  spdlog::info("{}: adopted process {} ended {}", worker::Text(key), process.pid,
               record ? "with code " + std::to_string(record->code) : "without an exit record");
  Perform(supervisor_.OnExited(Now(), key, record ? W_EXITCODE(record->code, 0) : SIGKILL));
}

// Only this thread clears processes away, so that no descriptor it polls is closed meanwhile.
void Agent::Watch() {
  TimePoint next_log_check{};
  while (true) {
    std::vector<pollfd> polled = {{wake_, POLLIN, 0}};
    std::vector<std::string> logs;
    int timeout = 1000;
    {
      const std::lock_guard lock(mutex_);
      if (quit_) return;
      Reap();
      const TimePoint now = Now();
      Perform(supervisor_.OnTime(now));
      logs.swap(cleared_logs_);
      const bool check_logs = now >= next_log_check;
      if (check_logs) next_log_check = now + kLogCheck;
      for (const auto& [key, process] : processes_) {
        if (supervisor_.HasEnded(key)) continue;
        if (process.pidfd >= 0) polled.push_back({process.pidfd, POLLIN, 0});
        if (check_logs) logs.push_back(LogPath(key));
      }
      if (const TimePoint next = supervisor_.NextTimer(); next != TimePoint::max())
        timeout =
            static_cast<int>(std::clamp<std::int64_t>(std::chrono::ceil<milliseconds>(next - now).count(), 0, timeout));
    }
    changed_.notify_all();
    CapLogs(logs);
    poll(polled.data(), polled.size(), timeout);
    eventfd_t ignored;
    eventfd_read(wake_, &ignored);
  }
}

void Agent::CapLogs(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    const absl::StatusOr<bool> cut = CapRankLog(path);
    if (cut.ok() && *cut) spdlog::info("{}: cut its middle", path);
    if (cut.ok() || cap_warned_) continue;
    cap_warned_ = true;
    spdlog::warn("{}; said once", std::string(cut.status().message()));
  }
}

void Agent::StopAll(std::chrono::milliseconds grace) {
  std::unique_lock lock(mutex_);
  Perform(supervisor_.StopAll(Now(), grace));
  Wake();
  changed_.wait_for(lock, grace + std::chrono::seconds(3), [&] { return !supervisor_.HasProcesses(); });
  // What they said last may still be on its way to the coordinator.
  changed_.wait_for(lock, std::chrono::seconds(1), [&] { return supervisor_.empty(); });
}

}  // namespace vicreg::agent
