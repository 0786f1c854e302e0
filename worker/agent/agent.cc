#include "worker/agent/agent.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "common/enum_names.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/version.h"
#include "worker/agent/rank_files.h"
#include "worker/agent/rank_log.h"

namespace vicreg::agent {
namespace {

using std::chrono::milliseconds;
// Time a dead rank's last words may still be on the socket.
constexpr milliseconds kLastWords{300};
// Between asking a rank to leave at once and SIGKILL: peers must be gone within 2 s of a rank's death.
constexpr milliseconds kAbortGrace{1000};
// Before the deadline of a stop: SIGTERM, for a rank that does not listen to its socket.
constexpr milliseconds kTermLead{40'000};
constexpr milliseconds kLogCheck{1000};

std::chrono::steady_clock::time_point Now() { return std::chrono::steady_clock::now(); }

std::string Text(const std::tuple<std::string, int, int>& key) {
  return "job " + std::get<0>(key) + " attempt " + std::to_string(std::get<1>(key)) + " rank " +
         std::to_string(std::get<2>(key));
}

}  // namespace

Agent::Agent(AgentOptions options)
    : options_(std::move(options)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      supervisor_([this] { Supervise(); }) {}

Agent::~Agent() {
  {
    const std::lock_guard lock(mutex_);
    quit_ = true;
  }
  eventfd_write(wake_, 1);
  supervisor_.join();
  close(wake_);
}

void Agent::SetOutlet(ToCoordinator outlet) {
  std::map<std::int64_t, StoreWaiter> lost;
  {
    const std::lock_guard lock(mutex_);
    outlet_ = std::move(outlet);
    welcomed_ = false;
    lost.swap(store_calls_);
  }
  // A rendezvous call asked on the old stream would wait for an answer that cannot come.
  for (auto& [id, waiter] : lost) {
    v1::StoreReply reply;
    reply.set_error("the coordinator is away");
    waiter.done(std::move(reply));
  }
}

v1::Register Agent::MakeRegister() const {
  const std::lock_guard lock(mutex_);
  v1::Register message;
  message.set_node(options_.node);
  message.set_boot_id(BootId());
  message.set_build(kVersion);
  message.set_incarnation(incarnation_);
  message.set_cpu_slots(options_.cpu_slots);
  for (const std::string& gpu : options_.gpus) message.add_gpu_uuids(gpu);
  for (const auto& [name, path] : options_.data_roots) message.add_data_roots(name);
  message.mutable_labels()->Assign(options_.labels.begin(), options_.labels.end());
  for (const auto& [key, rank] : ranks_) {
    v1::HeldRank& held = *message.add_held();
    held.set_job_id(std::get<0>(key));
    held.set_attempt(std::get<1>(key));
    held.set_rank(std::get<2>(key));
    held.set_slot(rank.slot);
    held.set_pid(rank.process.pid);
  }
  return message;
}

v1::Heartbeat Agent::MakeHeartbeat() {
  const std::lock_guard lock(mutex_);
  v1::Heartbeat message;
  message.set_sequence(++heartbeat_);
  return message;
}

void Agent::ForgetIncarnation() {
  const std::lock_guard lock(mutex_);
  incarnation_ = 0;
}

void Agent::OnMessage(const v1::ConnectResponse& message) {
  switch (message.message_case()) {
    case v1::ConnectResponse::kWelcome:
      OnWelcome(message.welcome());
      break;
    case v1::ConnectResponse::kPrepare:
      OnPrepare(message.prepare());
      break;
    case v1::ConnectResponse::kLaunch:
      Launch(message.launch());
      break;
    case v1::ConnectResponse::kAck:
      OnAck(message.ack());
      break;
    case v1::ConnectResponse::kReadLog:
      OnReadLog(message.read_log());
      break;
    case v1::ConnectResponse::kStop: {
      const std::lock_guard lock(mutex_);
      for (auto& [key, rank] : ranks_) {
        if (std::get<0>(key) == message.stop().job_id() && std::get<1>(key) == message.stop().attempt()) {
          Command(rank, v1::Command::KIND_STOP, message.stop().cause(),
                  milliseconds(static_cast<std::int64_t>(message.stop().grace_seconds() * 1000)));
        }
      }
      break;
    }
    case v1::ConnectResponse::kAbort: {
      const std::lock_guard lock(mutex_);
      for (auto& [key, rank] : ranks_) {
        if (std::get<0>(key) == message.abort().job_id() && std::get<1>(key) == message.abort().attempt()) {
          Command(rank, v1::Command::KIND_ABORT, message.abort().cause(), kAbortGrace);
        }
      }
      break;
    }
    case v1::ConnectResponse::kStoreReply: {
      std::function<void(v1::StoreReply)> done;
      {
        const std::lock_guard lock(mutex_);
        const auto found = store_calls_.find(message.store_reply().call_id());
        if (found == store_calls_.end()) break;
        done = std::move(found->second.done);
        store_calls_.erase(found);
      }
      done(message.store_reply());
      break;
    }
    default:
      break;
  }
}

void Agent::OnWelcome(const v1::Welcome& welcome) {
  const std::lock_guard lock(mutex_);
  incarnation_ = welcome.incarnation();
  welcomed_ = outlet_ != nullptr;
  for (auto& [key, rank] : ranks_) {
    const bool kept = std::any_of(welcome.keep().begin(), welcome.keep().end(), [&](const v1::HeldRank& h) {
      return h.job_id() == std::get<0>(key) && h.attempt() == std::get<1>(key) && h.rank() == std::get<2>(key);
    });
    if (kept) {
      rank.reports.ForEach([&](const v1::RankReport& report) {
        v1::ConnectRequest message;
        *message.mutable_report() = report;
        Send(std::move(message));
      });
      continue;
    }
    spdlog::warn("{}: the coordinator no longer wants it, ending it", Text(key));
    rank.reports = ReportBuffer();
    rank.exit_reported = true;  // nobody to report to
    if (!rank.wait_status) Command(rank, v1::Command::KIND_FENCE, "fenced", kAbortGrace);
  }
  std::erase_if(ranks_, [](const auto& entry) { return entry.second.forgotten(); });
  changed_.notify_all();
}

void Agent::OnPrepare(const v1::Prepare& prepare) {
  const std::lock_guard lock(mutex_);
  std::string refusal;
  if (stopping_) refusal = "it is stopping";
  if (options_.data_roots.count(prepare.data_root()) == 0) refusal = "it offers no data root " + prepare.data_root();
  const bool on_gpu = prepare.device() == v1::DEVICE_GPU;
  for (const v1::RankAssignment& assignment : prepare.ranks()) {
    if (on_gpu && GpuOf(assignment.slot()).empty())
      refusal = "it has no GPU for slot " + std::to_string(assignment.slot());
    for (const auto& [key, rank] : ranks_) {
      // Slots of each kind are counted from 0.
      if (rank.on_gpu() == on_gpu && rank.slot == assignment.slot() && !rank.wait_status)
        refusal =
            std::string(on_gpu ? "GPU" : "CPU") + " slot " + std::to_string(rank.slot) + " still holds " + Text(key);
    }
  }
  v1::ConnectRequest answer;
  answer.mutable_prepared()->set_job_id(prepare.job_id());
  answer.mutable_prepared()->set_attempt(prepare.attempt());
  answer.mutable_prepared()->set_refusal(refusal);
  Send(std::move(answer));
}

void Agent::Launch(const v1::Launch& launch) {
  const std::lock_guard lock(mutex_);
  for (const v1::RankAssignment& assignment : launch.ranks()) {
    // Idempotent: the same Launch may come again after a reconnect.
    if (ranks_.count({launch.job_id(), launch.attempt(), assignment.rank()}) == 0) Start(launch, assignment);
  }
  eventfd_write(wake_, 1);
}

void Agent::Start(const v1::Launch& launch, const v1::RankAssignment& assignment) {
  const Key key{launch.job_id(), launch.attempt(), assignment.rank()};
  Rank& rank = ranks_[key];
  rank.launch = launch;
  rank.rank = assignment.rank();
  rank.slot = assignment.slot();
  const absl::Status status = StartProcess(key, rank);
  v1::RankReport report;
  if (status.ok()) {
    spdlog::info("{}: started as process {}", Text(key), rank.process.pid);
    report.mutable_spawned()->set_pid(rank.process.pid);
  } else {
    spdlog::error("{}: {}", Text(key), std::string(status.message()));
    report.mutable_exited()->set_reason(v1::EXIT_REASON_START_FAILED);
    report.mutable_exited()->set_message(std::string(status.message()));
    rank.exit_reported = true;
    if (rank.process.pid == 0) rank.wait_status = 0;
  }
  Report(key, rank, std::move(report), 0);
}

std::string Agent::GpuOf(int slot) const {
  const auto index = static_cast<std::size_t>(slot);
  return slot >= 0 && index < options_.gpus.size() ? options_.gpus[index] : "";
}

absl::Status Agent::StartProcess(const Key& key, Rank& rank) {
  const auto& [job_id, attempt, number] = key;
  // A Launch that was on its way when StopAll told every rank to go: nobody would end this one.
  if (stopping_) return absl::UnavailableError("node " + options_.node + " is stopping: it starts no rank");
  const std::string& root = rank.launch.spec().data().root();
  const auto folder = options_.data_roots.find(root);
  if (folder == options_.data_roots.end())
    return absl::NotFoundError("node " + options_.node + " offers no data root \"" + root +
                               "\": start its worker with --data-root " + root + "=PATH");
  rank.data_root = folder->second;
  rank.secret = RandomBytes(32);
  ProcessSpec spec;
  spec.program = options_.rank_program;
  spec.arguments = {"--dir",     options_.folder,         "--socket", options_.socket_path,  "--job", job_id,
                    "--attempt", std::to_string(attempt), "--rank",   std::to_string(number)};
  spec.arguments.insert(spec.arguments.end(), {"--collective-timeout", std::to_string(options_.collective_timeout_s)});
  const std::string threads = std::to_string(options_.threads_per_rank);
  // Built, not inherited: nothing of the worker's environment changes an experiment.
  spec.environment = {
      {"PATH", "/usr/bin:/bin"},    {"LANG", "C.UTF-8"},          {"HOME", "/nonexistent"},      {"TMPDIR", "/tmp"},
      {"OMP_NUM_THREADS", threads}, {"MKL_NUM_THREADS", threads}, {"OMP_WAIT_POLICY", "PASSIVE"}};
  // A rank sees the GPU of its slot and no other; one on a CPU slot sees none.
  if (rank.on_gpu() && GpuOf(rank.slot).empty())
    return absl::NotFoundError("node " + options_.node + " has no GPU for slot " + std::to_string(rank.slot));
  spec.environment.emplace_back("CUDA_VISIBLE_DEVICES", rank.on_gpu() ? GpuOf(rank.slot) : "");
  spec.log_path = RankLogPath(options_.folder, job_id, attempt, number);
  spec.secret = rank.secret;
  RETURN_IF_ERROR(MakeFolders(spec.log_path.substr(0, spec.log_path.rfind('/'))));
  ASSIGN_OR_RETURN(rank.process, Spawn(spec));
  // Without this file a restarted worker could not find the process.
  const absl::Status saved = SaveRankFile(
      options_.folder + "/ranks", {job_id, attempt, number, rank.process.pid, StartTime(rank.process.pid), BootId()});
  if (!saved.ok()) kill(-rank.process.pid, SIGKILL);
  return saved;
}

void Agent::Report(const Key& key, Rank& rank, v1::RankReport report, std::int64_t rank_sequence) {
  report.set_job_id(std::get<0>(key));
  report.set_attempt(std::get<1>(key));
  report.set_rank(std::get<2>(key));
  v1::ConnectRequest message;
  *message.mutable_report() = rank.reports.Add(std::move(report), rank_sequence);
  Send(std::move(message));
}

void Agent::OnAck(const v1::ReportAck& ack) {
  const std::lock_guard lock(mutex_);
  const Key key{ack.job_id(), ack.attempt(), ack.rank()};
  const auto found = ranks_.find(key);
  if (found == ranks_.end()) return;
  Rank& rank = found->second;
  if (ack.fenced()) {
    spdlog::warn("{}: fenced by the coordinator, ending it", Text(key));
    rank.reports = ReportBuffer();
    rank.exit_reported = true;
    if (!rank.wait_status) Command(rank, v1::Command::KIND_FENCE, "fenced", kAbortGrace);
  } else if (const std::int64_t newest = rank.reports.Ack(ack.sequence()); newest > 0 && rank.link) {
    v1::AttachResponse answer;
    answer.mutable_ack()->set_sequence(newest);
    rank.link->Send(std::move(answer));
  }
  if (rank.paused && rank.link && !rank.reports.full()) {
    rank.paused = false;
    rank.link->Resume();
  }
  if (rank.forgotten()) {
    ranks_.erase(found);
    changed_.notify_all();
  }
}

void Agent::Command(Rank& rank, v1::Command::Kind kind, const std::string& cause,
                    std::chrono::milliseconds kill_after) {
  if (rank.wait_status) return;
  const TimePoint now = Now();
  rank.kill_at = std::min(rank.kill_at, now + kill_after);
  if (kind == v1::Command::KIND_STOP) rank.term_at = std::max(now, rank.kill_at - kTermLead);
  rank.asked.emplace();
  rank.asked->set_kind(kind);
  rank.asked->set_cause(cause);
  if (rank.link) {
    v1::AttachResponse message;
    *message.mutable_command() = *rank.asked;
    rank.link->Send(std::move(message));
  } else if (kind != v1::Command::KIND_STOP) {
    rank.kill_at = now;  // it cannot hear
  }
  eventfd_write(wake_, 1);
}

bool Agent::OnHello(const v1::Hello& hello, std::shared_ptr<RankLink> link) {
  const std::lock_guard lock(mutex_);
  const auto found = ranks_.find({hello.job_id(), hello.attempt(), hello.rank()});
  // No process, no secret: an empty one must not match.
  if (found == ranks_.end() || found->second.process.pid == 0 || found->second.secret != hello.secret() ||
      found->second.process.pid != hello.pid())
    return false;
  Rank& rank = found->second;
  rank.link = std::move(link);
  rank.paused = false;
  v1::AttachResponse answer;
  v1::Assignment& assignment = *answer.mutable_assignment();
  *assignment.mutable_spec() = rank.launch.spec();
  assignment.set_world_size(rank.launch.world_size());
  assignment.set_recipe_hash(rank.launch.recipe_hash());
  assignment.set_data_root(rank.data_root);
  assignment.set_artifact_root(options_.artifact_root);
  if (rank.launch.has_resume()) *assignment.mutable_resume() = rank.launch.resume();
  assignment.set_substituted_step(rank.launch.substituted_step());
  assignment.set_threads(options_.threads_per_rank);
  assignment.set_project(rank.launch.spec().project());
  rank.link->Send(answer);
  // What was sent to it while it was not connected.
  if (rank.reports.committed_rank() > 0) {
    answer.mutable_ack()->set_sequence(rank.reports.committed_rank());
    rank.link->Send(answer);
  }
  if (rank.asked) {
    *answer.mutable_command() = *rank.asked;
    rank.link->Send(answer);
  }
  return true;
}

bool Agent::OnSays(const v1::Hello& from, const v1::RankSays& says) {
  const std::lock_guard lock(mutex_);
  const Key key{from.job_id(), from.attempt(), from.rank()};
  const auto found = ranks_.find(key);
  if (found == ranks_.end() || found->second.exit_reported) return true;
  Rank& rank = found->second;
  if (says.has_leaving()) {
    rank.leaving = says.leaving();
    return true;
  }
  if (rank.reports.IsRepeat(says.sequence())) return true;
  v1::RankReport report;
  switch (says.what_case()) {
    case v1::RankSays::kConnected:
      *report.mutable_connected() = says.connected();
      break;
    case v1::RankSays::kRows:
      *report.mutable_rows() = says.rows();
      break;
    case v1::RankSays::kCheckpoint:
      *report.mutable_checkpoint() = says.checkpoint();
      break;
    case v1::RankSays::kExported:
      *report.mutable_exported() = says.exported();
      break;
    case v1::RankSays::kStepping:
      *report.mutable_stepping() = says.stepping();
      break;
    default:
      return true;
  }
  Report(key, rank, std::move(report), says.sequence());
  // An ended process says no more than its socket still holds.
  rank.paused = rank.reports.full() && !rank.wait_status;
  return !rank.paused;
}

void Agent::OnRankStreamEnd(const v1::Hello& from, const RankLink* link) {
  const std::lock_guard lock(mutex_);
  const auto found = ranks_.find({from.job_id(), from.attempt(), from.rank()});
  if (found == ranks_.end() || found->second.link.get() != link) return;
  found->second.link = nullptr;
  found->second.paused = false;
  eventfd_write(wake_, 1);  // an ended process had its say
}

void Agent::OnRendezvous(const v1::RendezvousRequest& request, std::function<void(v1::StoreReply)> done) {
  std::string refusal;
  {
    const std::lock_guard lock(mutex_);
    const Key key{request.job_id(), request.attempt(), request.rank()};
    const auto found = ranks_.find(key);
    if (found == ranks_.end() || found->second.process.pid == 0 || found->second.secret != request.secret()) {
      refusal = "fenced";
    } else if (!welcomed_) {
      refusal = "the coordinator is away";
    } else {
      v1::ConnectRequest message;
      v1::StoreCall& call = *message.mutable_store_call();
      call.set_call_id(next_call_++);
      call.set_job_id(request.job_id());
      call.set_attempt(request.attempt());
      call.set_rank(request.rank());
      *call.mutable_operation() = request.operation();
      store_calls_[call.call_id()] = {key, std::move(done)};
      Send(std::move(message));
      return;
    }
  }
  v1::StoreReply reply;
  reply.set_error(refusal);
  done(std::move(reply));
}

void Agent::AbortPeers(const Key& gone, const std::string& cause) {
  for (auto& [key, rank] : ranks_) {
    if (key == gone || std::get<0>(key) != std::get<0>(gone) || std::get<1>(key) != std::get<1>(gone)) continue;
    // The first cause is the one to tell: the others end because of it.
    const bool leaving_now = rank.asked && rank.asked->kind() != v1::Command::KIND_STOP;
    if (!leaving_now) Command(rank, v1::Command::KIND_ABORT, cause, kAbortGrace);
  }
}

// The process has ended. Peers hear of it now; the report waits for the rank's last words.
void Agent::Reap(const Key& key, Rank& rank) {
  siginfo_t ended{};
  if (waitid(P_PID, static_cast<id_t>(rank.process.pid), &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      ended.si_pid != rank.process.pid)
    return;
  kill(-rank.process.pid, SIGKILL);  // whatever it may have left in its group, whose number is ours until it is reaped
  int status = 0;
  if (waitpid(rank.process.pid, &status, WNOHANG) != rank.process.pid) return;
  rank.wait_status = status;
  rank.finalize_at = Now() + kLastWords;
  if (rank.paused) {
    rank.paused = false;
    rank.link->Resume();
  }
  std::string message;
  int code = 0;
  if (!EndsWell(ReasonOfStatus(status, message, code))) AbortPeers(key, Text(key) + " ended: " + message);
}

void Agent::Finalize(const Key& key, Rank& rank) {
  v1::RankReport report;
  v1::Exited& exited = *report.mutable_exited();
  std::string message;
  int code = 0;
  exited.set_reason(ReasonOfStatus(*rank.wait_status, message, code));
  exited.set_code(code);
  exited.set_message(message);
  // Its own words say more than a code, unless a signal cut it short after them.
  if (rank.leaving && exited.reason() != v1::EXIT_REASON_SIGNALLED) *exited.mutable_message() = rank.leaving->message();
  if (rank.leaving && exited.reason() == v1::EXIT_REASON_NUMERIC)
    exited.set_nonfinite_step(rank.leaving->nonfinite_step());
  spdlog::info("{}: process {} ended with {}: {}", Text(key), rank.process.pid, ShortName(exited.reason()),
               exited.message());
  close(rank.process.pidfd);
  rank.process.pidfd = -1;
  RemoveRankFile(options_.folder + "/ranks", std::get<0>(key), std::get<1>(key), std::get<2>(key));
  if (rank.exit_reported) return;
  rank.exit_reported = true;
  Report(key, rank, std::move(report), 0);
}

void Agent::Supervise() {
  TimePoint next_log_check{};
  while (true) {
    std::vector<pollfd> polled = {{wake_, POLLIN, 0}};
    std::vector<std::string> logs;
    int timeout = 1000;
    {
      const std::lock_guard lock(mutex_);
      if (quit_) return;
      const TimePoint now = Now();
      const bool check_logs = now >= next_log_check;
      if (check_logs) next_log_check = now + kLogCheck;
      for (auto& [key, rank] : ranks_) {
        if (rank.process.pidfd < 0) continue;
        if (!rank.wait_status && rank.term_at <= now) {
          spdlog::info("{}: SIGTERM to process {}", Text(key), rank.process.pid);
          kill(rank.process.pid, SIGTERM);
          rank.term_at = TimePoint::max();
        }
        if (!rank.wait_status && rank.kill_at <= now) {
          spdlog::warn("{}: killing process {}", Text(key), rank.process.pid);
          kill(-rank.process.pid, SIGKILL);
          rank.kill_at = now + std::chrono::seconds(1);
        }
        if (!rank.wait_status) Reap(key, rank);
        if (rank.wait_status && (!rank.link || rank.finalize_at <= now)) {
          Finalize(key, rank);
          logs.push_back(RankLogPath(options_.folder, std::get<0>(key), std::get<1>(key),
                                     rank.rank));  // what it wrote since the last look
          continue;
        }
        const TimePoint next = rank.wait_status ? rank.finalize_at : std::min(rank.term_at, rank.kill_at);
        if (next != TimePoint::max())
          timeout = std::clamp<std::int64_t>(std::chrono::ceil<milliseconds>(next - now).count(), 0, timeout);
        if (rank.wait_status) continue;
        polled.push_back({rank.process.pidfd, POLLIN, 0});
        if (check_logs) logs.push_back(RankLogPath(options_.folder, std::get<0>(key), std::get<1>(key), rank.rank));
      }
      std::erase_if(ranks_, [](const auto& e) { return e.second.forgotten(); });
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

void Agent::OnReadLog(const v1::ReadLog& read) {
  v1::ConnectRequest message;
  v1::LogChunk& chunk = *message.mutable_log_chunk();
  chunk.set_call_id(read.call_id());
  chunk.set_offset(read.offset());
  bool ended = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = ranks_.find({read.job_id(), read.attempt(), read.rank()});
    ended = found == ranks_.end() || found->second.wait_status.has_value();
  }
  // A job id is part of a path here: only a UUID may be.
  absl::StatusOr<LogPart> part = absl::NotFoundError("not a job id");
  if (IsUuid(read.job_id()))
    part = ReadRankLog(RankLogPath(options_.folder, read.job_id(), read.attempt(), read.rank()), read.offset(),
                       read.max_bytes());
  if (part.ok()) {
    chunk.set_offset(part->offset);
    chunk.set_end(part->data.empty() && ended);
    *chunk.mutable_data() = std::move(part->data);
  } else {
    chunk.set_error("node " + options_.node + " has no log of rank " + std::to_string(read.rank()) + " in attempt " +
                    std::to_string(read.attempt()));
  }
  const std::lock_guard lock(mutex_);
  Send(std::move(message));
}

void Agent::StopAll(std::chrono::milliseconds grace) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  for (auto& [key, rank] : ranks_) Command(rank, v1::Command::KIND_STOP, "the worker is stopping", grace);
  const auto running = [&] {
    return std::any_of(ranks_.begin(), ranks_.end(), [](const auto& e) { return e.second.process.pidfd >= 0; });
  };
  changed_.wait_for(lock, grace + std::chrono::seconds(3), [&] { return !running(); });
  // What they said last may still be on its way to the coordinator.
  changed_.wait_for(lock, std::chrono::seconds(1), [&] { return ranks_.empty(); });
}

}  // namespace vicreg::agent
