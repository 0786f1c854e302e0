#include "worker/core/supervisor.h"

#include <algorithm>

#include "common/enum_names.h"
#include "common/planted.h"
#include "worker/core/exit.h"

namespace vicreg::worker {
namespace {

using std::chrono::milliseconds;
// Time a dead rank's last words may still be on the socket.
constexpr milliseconds kLastWords{300};

bool Is(const v1::HeldRank& held, const Key& key) {
  return held.job_id() == std::get<0>(key) && held.attempt() == std::get<1>(key) && held.rank() == std::get<2>(key);
}

// The newest report that the coordinator has of a rank.
std::int64_t CursorOf(const v1::Welcome& welcome, const Key& key) {
  for (const v1::ReportAck& cursor : welcome.cursors()) {
    if (cursor.job_id() == std::get<0>(key) && cursor.attempt() == std::get<1>(key) &&
        cursor.rank() == std::get<2>(key))
      return cursor.sequence();
  }
  return 0;
}

}  // namespace

std::string Text(const Key& key) {
  return "job " + std::get<0>(key) + " attempt " + std::to_string(std::get<1>(key)) + " rank " +
         std::to_string(std::get<2>(key));
}

// ---- the coordinator's stream ----

void Supervisor::OnStream(bool open) {
  open_ = open;
  welcomed_ = rejoining_ = false;
}

v1::Register Supervisor::MakeRegister(TimePoint now) {
  lease_.RegisterSent(now);
  v1::Register message;
  message.set_node(offer_.node);
  message.set_boot_id(offer_.boot_id);
  message.set_build(offer_.build);
  message.set_incarnation(incarnation_);
  message.set_cpu_slots(offer_.cpu_slots);
  for (const std::string& gpu : offer_.gpus) message.add_gpu_uuids(gpu);
  for (const auto& [name, path] : offer_.data_roots) message.add_data_roots(name);
  message.mutable_labels()->Assign(offer_.labels.begin(), offer_.labels.end());
  for (const auto& [key, rank] : ranks_) {
    v1::HeldRank& held = *message.add_held();
    held.set_job_id(std::get<0>(key));
    held.set_attempt(std::get<1>(key));
    held.set_rank(std::get<2>(key));
    held.set_slot(rank.slot);
    held.set_pid(rank.pid);
  }
  return message;
}

v1::Heartbeat Supervisor::MakeHeartbeat(TimePoint now) {
  lease_.HeartbeatSent(now, heartbeat_ + 1);
  v1::Heartbeat message;
  message.set_sequence(++heartbeat_);
  return message;
}

Effects Supervisor::OnMessage(TimePoint now, const v1::ConnectResponse& message) {
  if (Planted(Plant::kOneWayRenewal)) {
    lease_.RegisterSent(now);
    lease_.Welcomed(0);
  }
  switch (message.message_case()) {
    case v1::ConnectResponse::kWelcome:
      OnWelcome(now, message.welcome());
      break;
    case v1::ConnectResponse::kHeartbeat:
      lease_.Answered(message.heartbeat().sequence(), message.heartbeat().heartbeat_ms());
      break;
    case v1::ConnectResponse::kPrepare:
      if (MayStart(now)) OnPrepare(message.prepare());
      break;
    case v1::ConnectResponse::kLaunch:
      if (MayStart(now)) OnLaunch(message.launch());
      break;
    case v1::ConnectResponse::kAck:
      OnAck(now, message.ack());
      break;
    case v1::ConnectResponse::kStop:
      CommandAll(now, message.stop().job_id(), message.stop().attempt(), v1::Command::KIND_STOP, message.stop().cause(),
                 milliseconds(static_cast<std::int64_t>(message.stop().grace_seconds() * 1000)));
      break;
    case v1::ConnectResponse::kAbort:
      CommandAll(now, message.abort().job_id(), message.abort().attempt(), v1::Command::KIND_ABORT,
                 message.abort().cause(), kAbortGrace);
      break;
    default:
      break;
  }
  return Take();
}

bool Supervisor::MayStart(TimePoint now) {
  if (lease_.Holds(now)) return true;
  if (std::exchange(rejoining_, true)) return false;
  Logs(Log::Level::kWarning,
       "told to start ranks, but the lease has lapsed: the coordinator may have given this node up; registering again");
  effects_.push_back(Rejoin{});
  return false;
}

void Supervisor::OnWelcome(TimePoint now, const v1::Welcome& welcome) {
  lease_.Welcomed(welcome.heartbeat_ms());
  incarnation_ = welcome.incarnation();
  welcomed_ = open_;
  for (auto& [key, rank] : ranks_) {
    if (std::any_of(welcome.keep().begin(), welcome.keep().end(),
                    [&key = key](const auto& held) { return Is(held, key); })) {
      if (rank.adopted && !std::exchange(rank.renumbered, true)) rank.reports.StartAfter(CursorOf(welcome, key));
      if (Planted(Plant::kReportsNotRepeated)) continue;
      rank.reports.ForEach([&](const v1::RankReport& report) {
        v1::ConnectRequest message;
        *message.mutable_report() = report;
        Tells(std::move(message));
      });
      continue;
    }
    Logs(Log::Level::kWarning, Text(key) + ": the coordinator no longer wants it, ending it");
    Fence(now, key, rank);
  }
  std::erase_if(ranks_, [](const auto& entry) { return entry.second.forgotten(); });
}

void Supervisor::OnPrepare(const v1::Prepare& prepare) {
  std::string refusal;
  if (stopping_) refusal = "it is stopping";
  if (offer_.data_roots.count(prepare.data_root()) == 0) refusal = "it offers no data root " + prepare.data_root();
  const bool on_gpu = prepare.device() == v1::DEVICE_GPU;
  for (const v1::RankAssignment& assignment : prepare.ranks()) {
    if (on_gpu && GpuOf(assignment.slot()).empty())
      refusal = "it has no GPU for slot " + std::to_string(assignment.slot());
    for (const auto& [key, rank] : ranks_) {
      // Slots of each kind are counted from 0.
      if (rank.on_gpu() == on_gpu && rank.slot == assignment.slot() && !rank.wait_status &&
          !Planted(Plant::kSlotNotChecked))
        refusal =
            std::string(on_gpu ? "GPU" : "CPU") + " slot " + std::to_string(rank.slot) + " still holds " + Text(key);
    }
  }
  v1::ConnectRequest answer;
  answer.mutable_prepared()->set_job_id(prepare.job_id());
  answer.mutable_prepared()->set_attempt(prepare.attempt());
  answer.mutable_prepared()->set_refusal(refusal);
  Tells(std::move(answer));
}

void Supervisor::OnLaunch(const v1::Launch& launch) {
  for (const v1::RankAssignment& assignment : launch.ranks()) {
    const Key key{launch.job_id(), launch.attempt(), assignment.rank()};
    // Idempotent: the same Launch may come again after a reconnect.
    const auto [entry, added] = ranks_.try_emplace(key);
    if (!added) continue;
    Rank& rank = entry->second;
    rank.launch = launch;
    rank.launch.clear_ranks();
    rank.watch = ProgressWatch(hang_);
    rank.slot = assignment.slot();
    if (const std::string why = WhyNot(rank); !why.empty()) {
      rank.wait_status = 0;
      rank.cleared = true;
      ReportNotStarted(key, rank, why);
    } else {
      effects_.push_back(Start{key, rank.slot, rank.on_gpu() ? GpuOf(rank.slot) : "", rank.launch.SerializeAsString()});
    }
  }
}

void Supervisor::OnAck(TimePoint now, const v1::ReportAck& ack) {
  const Key key{ack.job_id(), ack.attempt(), ack.rank()};
  const auto found = ranks_.find(key);
  if (found == ranks_.end()) return;
  Rank& rank = found->second;
  if (ack.fenced()) {
    Logs(Log::Level::kWarning, Text(key) + ": fenced by the coordinator, ending it");
    Fence(now, key, rank);
  } else if (const std::int64_t newest = rank.reports.Ack(ack.sequence()); newest > 0 && rank.connected) {
    v1::AttachResponse answer;
    answer.mutable_ack()->set_sequence(newest);
    Says(key, std::move(answer));
  }
  if (rank.paused && rank.connected && !rank.reports.full()) {
    rank.paused = false;
    effects_.push_back(ReadOn{key});
  }
  if (rank.forgotten()) ranks_.erase(found);
}

void Supervisor::Tells(v1::ConnectRequest message) {
  if (welcomed_) effects_.push_back(Tell{std::move(message)});
}

// ---- processes ----

std::string Supervisor::GpuOf(int slot) const {
  const auto index = static_cast<std::size_t>(slot);
  return slot >= 0 && index < offer_.gpus.size() ? offer_.gpus[index] : "";
}

std::string Supervisor::WhyNot(const Rank& rank) const {
  // A Launch that was on its way when StopAll told every rank to go: nobody would end this one.
  if (stopping_) return "node " + offer_.node + " is stopping: it starts no rank";
  const std::string& root = rank.launch.spec().data().root();
  if (offer_.data_roots.count(root) == 0)
    return "node " + offer_.node + " offers no data root \"" + root + "\": start its worker with --data-root " + root +
           "=PATH";
  if (rank.on_gpu() && GpuOf(rank.slot).empty())
    return "node " + offer_.node + " has no GPU for slot " + std::to_string(rank.slot);
  return "";
}

void Supervisor::Adopt(const Key& key, const v1::Launch& launch, int slot, int pid, const std::string& secret) {
  Rank& rank = ranks_[key];
  rank.launch = launch;
  rank.watch = ProgressWatch(hang_);
  rank.slot = slot;
  rank.pid = pid;
  rank.secret = secret;
  rank.adopted = true;
}

void Supervisor::OnLastWords(const Key& key, const v1::Exited& words) {
  Rank& rank = ranks_.at(key);
  if (!rank.leaving) rank.leaving = words;
}

Effects Supervisor::OnStarted(const Key& key, int pid, const std::string& secret) {
  Rank& rank = ranks_.at(key);
  rank.pid = pid;
  rank.secret = secret;
  Logs(Log::Level::kInfo, Text(key) + ": started as process " + std::to_string(pid));
  v1::RankReport report;
  report.mutable_spawned()->set_pid(pid);
  Report(key, rank, std::move(report), 0);
  return Take();
}

Effects Supervisor::OnNotStarted(const Key& key, int pid, const std::string& why) {
  Rank& rank = ranks_.at(key);
  rank.pid = pid;
  if (pid == 0) {
    rank.wait_status = 0;
    rank.cleared = true;
  }
  ReportNotStarted(key, rank, why);
  return Take();
}

void Supervisor::ReportNotStarted(const Key& key, Rank& rank, const std::string& why) {
  Logs(Log::Level::kError, Text(key) + ": " + why);
  v1::RankReport report;
  report.mutable_exited()->set_reason(v1::EXIT_REASON_START_FAILED);
  report.mutable_exited()->set_message(why);
  rank.exit_reported = true;
  Report(key, rank, std::move(report), 0);
}

void Supervisor::Report(const Key& key, Rank& rank, v1::RankReport report, std::int64_t rank_sequence) {
  report.set_job_id(std::get<0>(key));
  report.set_attempt(std::get<1>(key));
  report.set_rank(std::get<2>(key));
  v1::ConnectRequest message;
  *message.mutable_report() = rank.reports.Add(std::move(report), rank_sequence);
  Tells(std::move(message));
}

Effects Supervisor::OnExited(TimePoint now, const Key& key, int wait_status) {
  Rank& rank = ranks_.at(key);
  rank.wait_status = wait_status;
  rank.finalize_at = now + kLastWords;
  if (rank.paused) {
    rank.paused = false;
    effects_.push_back(ReadOn{key});
  }
  const v1::Exited end = EndOf(rank);
  if (!EndsWell(end.reason())) AbortPeers(now, key, Text(key) + " ended: " + end.message());
  return Take();
}

v1::Exited Supervisor::EndOf(const Rank& rank) {
  v1::Exited exited;
  std::string message;
  int code = 0;
  exited.set_reason(ReasonOfStatus(*rank.wait_status, message, code));
  exited.set_code(code);
  exited.set_message(message);
  // The signal was ours: it says nothing of what ended the attempt.
  if (rank.killed && exited.reason() == v1::EXIT_REASON_SIGNALLED) {
    exited.set_reason(v1::EXIT_REASON_ABORTED);
    exited.set_message("did not leave when told to (" + rank.asked->cause() + "): killed");
  }
  if (!rank.hung.empty() && !EndsWell(exited.reason())) {
    if (rank.leaving && rank.leaving->reason() != v1::EXIT_REASON_UNSPECIFIED) {
      exited = *rank.leaving;
      exited.set_message(rank.leaving->message() + "; its process did not end by itself and was killed");
      return exited;
    }
    exited.set_reason(v1::EXIT_REASON_HUNG);
    exited.set_message(rank.hung);
    return exited;
  }
  // Its own words say more than a code, unless a signal cut it short after them.
  if (rank.leaving && exited.reason() != v1::EXIT_REASON_SIGNALLED) exited.set_message(rank.leaving->message());
  if (rank.leaving && exited.reason() == v1::EXIT_REASON_NUMERIC)
    exited.set_nonfinite_step(rank.leaving->nonfinite_step());
  return exited;
}

void Supervisor::Finalize(const Key& key, Rank& rank) {
  v1::RankReport report;
  v1::Exited& exited = *report.mutable_exited();
  exited = EndOf(rank);
  exited.set_last_step(rank.watch.newest().step());
  Logs(Log::Level::kInfo, Text(key) + ": process " + std::to_string(rank.pid) + " ended with " +
                              std::string(ShortName(exited.reason())) + ": " + exited.message());
  effects_.push_back(Clear{key});
  rank.cleared = true;
  if (rank.exit_reported) return;
  rank.exit_reported = true;
  Report(key, rank, std::move(report), 0);
}

bool Supervisor::HasProcesses() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const auto& e) { return !e.second.cleared; });
}

bool Supervisor::HasEnded(const Key& key) const {
  const auto found = ranks_.find(key);
  return found == ranks_.end() || found->second.wait_status.has_value();
}

// ---- ranks ----

bool Supervisor::OnHello(const v1::Hello& hello, Effects& effects) {
  const Key key{hello.job_id(), hello.attempt(), hello.rank()};
  const auto found = ranks_.find(key);
  // No process, no secret: an empty one must not match.
  if (found == ranks_.end() || found->second.pid == 0 || found->second.secret.empty() ||
      found->second.secret != hello.secret() || found->second.pid != hello.pid())
    return false;
  Rank& rank = found->second;
  rank.connected = true;
  rank.paused = false;
  if (rank.adopted) Logs(Log::Level::kInfo, Text(key) + ": is connected to this worker");
  v1::AttachResponse answer;
  v1::Assignment& assignment = *answer.mutable_assignment();
  *assignment.mutable_spec() = rank.launch.spec();
  assignment.set_world_size(rank.launch.world_size());
  assignment.set_recipe_hash(rank.launch.recipe_hash());
  assignment.set_data_root(offer_.data_roots.at(rank.launch.spec().data().root()));
  assignment.set_artifact_root(offer_.artifact_root);
  if (rank.launch.has_resume()) *assignment.mutable_resume() = rank.launch.resume();
  assignment.set_substituted_step(rank.launch.substituted_step());
  assignment.set_threads(offer_.threads_per_rank);
  assignment.set_project(rank.launch.spec().project());
  Says(key, answer);
  // What was sent to it while it was not connected.
  if (rank.reports.committed_rank() > 0) {
    answer.mutable_ack()->set_sequence(rank.reports.committed_rank());
    Says(key, answer);
  }
  if (rank.asked) {
    *answer.mutable_command() = *rank.asked;
    Says(key, answer);
  }
  effects = Take();
  return true;
}

bool Supervisor::OnSays(const Key& key, const v1::RankSays& says, Effects& effects) {
  const auto found = ranks_.find(key);
  if (found == ranks_.end() || found->second.exit_reported) return true;
  Rank& rank = found->second;
  if (says.has_leaving()) {
    // Of one that was told to go because it stood still, they no longer say why.
    if (rank.hung.empty()) rank.leaving = says.leaving();
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
  effects = Take();
  return !rank.paused;
}

void Supervisor::OnProgress(TimePoint now, const Key& from, const v1::Progress& progress) {
  const auto found = ranks_.find(from);
  if (found != ranks_.end()) found->second.watch.OnProgress(now, progress);
}

void Supervisor::OnRankStreamEnd(const Key& key) {
  const auto found = ranks_.find(key);
  if (found == ranks_.end()) return;
  found->second.connected = false;
  found->second.paused = false;
}

std::string Supervisor::Refusal(const Key& from, const std::string& secret) const {
  const auto found = ranks_.find(from);
  if (found == ranks_.end() || found->second.pid == 0 || found->second.secret.empty() || found->second.secret != secret)
    return "fenced";
  return welcomed_ ? "" : "the coordinator is away";
}

}  // namespace vicreg::worker
