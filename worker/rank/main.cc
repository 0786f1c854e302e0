// vicreg-rank: one rank of one attempt. Started by a worker, never by hand.

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <deque>
#include <iostream>

#include "common/enum_names.h"
#include "common/exit_record.h"
#include "common/log.h"
#include "common/recipe/resolve.h"
#include "common/rpc/log.h"
#include "common/version.h"
#include "spdlog/spdlog.h"
#include "worker/rank/leave.h"
#include "worker/rank/link.h"
#include "worker/train/distributed/process_group.h"
#include "worker/train/host_memory.h"
#include "worker/train/trainer.h"

namespace {

using vicreg::rank::Link;
namespace v1 = vicreg::v1;
namespace train = vicreg::train;

// How long finished work waits for a coordinator that is away, and a rank trains on without a worker.
std::chrono::seconds orphan_grace = std::chrono::minutes(30);

train::StopFlag stop;

void OnTerm(int) { stop.requested = true; }

struct Ending {
  v1::ExitReason reason;
  int code;
};

Ending EndingOf(train::ExitReason reason) {
  switch (reason) {
    case train::ExitReason::kCompleted:
      return {v1::EXIT_REASON_COMPLETED, 0};
    case train::ExitReason::kStopped:
      return {v1::EXIT_REASON_STOPPED, 10};
    case train::ExitReason::kConfig:
      return {v1::EXIT_REASON_CONFIG, 20};
    case train::ExitReason::kData:
      return {v1::EXIT_REASON_DATA, 21};
    case train::ExitReason::kFingerprint:
      return {v1::EXIT_REASON_FINGERPRINT, 22};
    case train::ExitReason::kNoValidCheckpoint:
      return {v1::EXIT_REASON_NO_VALID_CHECKPOINT, 23};
    case train::ExitReason::kNumeric:
      return {v1::EXIT_REASON_NUMERIC, 24};
    case train::ExitReason::kMismatch:
      return {v1::EXIT_REASON_MISMATCH, 25};
    case train::ExitReason::kRendezvous:
      return {v1::EXIT_REASON_RENDEZVOUS, 30};
    case train::ExitReason::kCollective:
      return {v1::EXIT_REASON_COLLECTIVE, 31};
    case train::ExitReason::kStorage:
      return {v1::EXIT_REASON_STORAGE, 32};
    case train::ExitReason::kDevice:
      return {v1::EXIT_REASON_DEVICE, 33};
    case train::ExitReason::kDeviceOom:
      return {v1::EXIT_REASON_DEVICE_OOM, 27};
    case train::ExitReason::kInternal:
      break;
  }
  return {v1::EXIT_REASON_INTERNAL, 70};
}

train::Progress progress;

v1::Progress Where() {
  const train::Progress::Seen seen = progress.Look();
  v1::Progress out;
  out.set_phase(static_cast<v1::Progress::Phase>(seen.phase));
  out.set_step(seen.step);
  out.set_units(seen.units);
  out.set_collectives(seen.collectives);
  out.set_written_bytes(seen.written_bytes);
  out.set_waits_for_peers(seen.waits_for_peers);
  out.set_slowest_ms(static_cast<std::int32_t>(std::min<std::int64_t>(seen.slowest.count(), 86'400'000)));
  return out;
}

// Turns what the trainer tells into reports.
class Reporter : public train::Observer {
 public:
  explicit Reporter(Link& link) : link_(link) {}

  void OnConnected(std::int64_t resume_step, std::int64_t total_steps) override {
    spdlog::info("all ranks met; {} of {} steps done", resume_step, total_steps);
    v1::RankSays says;
    says.mutable_connected()->set_resume_step(resume_step);
    says.mutable_connected()->set_total_steps(total_steps);
    link_.Say(std::move(says));
  }
  void OnStepping(std::int64_t step) override {
    v1::RankSays says;
    says.mutable_stepping()->set_step(step);
    link_.Say(std::move(says));
  }
  void OnRow(const train::StepRow& row) override {
    v1::RankSays says;
    v1::MetricRow& out = *says.mutable_rows()->add_rows();
    out.set_step(row.step);
    out.set_epoch(row.epoch);
    out.set_loss(row.loss);
    out.set_invariance(row.invariance);
    out.set_variance(row.variance);
    out.set_covariance(row.covariance);
    out.set_invariance_weighted(row.invariance_weighted);
    out.set_variance_weighted(row.variance_weighted);
    out.set_covariance_weighted(row.covariance_weighted);
    out.set_z_std_mean(row.z_std_mean);
    out.set_z_std_min(row.z_std_min);
    out.set_z_std_below(row.z_std_below);
    out.set_grad_norm(row.grad_norm);
    out.set_learning_rate(row.learning_rate);
    out.set_images_per_second(row.images_per_second);
    out.set_step_seconds(row.step_seconds);
    out.set_covariance_noise_floor(row.covariance_noise_floor);
    out.set_mismatch(row.mismatch);
    out.set_redundancy(row.redundancy);
    out.set_loss_scale(row.loss_scale);
    out.set_skipped_steps(row.skipped_steps);
    if (row.knn_accuracy) out.set_knn_accuracy(*row.knn_accuracy);
    for (const train::BranchAccuracy& of : row.knn_by_branch) {
      v1::BranchAccuracy& branch = *out.add_knn_by_branch();
      branch.set_branch(of.branch);
      branch.set_accuracy(of.accuracy);
    }
    out.set_time_us(row.time_us);
    link_.Say(std::move(says));
  }
  void OnCheckpoint(const train::CheckpointInfo& info) override {
    spdlog::info("checkpoint of step {} written to {} ({} bytes)", info.step, info.path, info.bytes);
    v1::RankSays says;
    says.mutable_checkpoint()->set_step(info.step);
    says.mutable_checkpoint()->set_path(info.path);
    says.mutable_checkpoint()->set_hash(info.hash);
    says.mutable_checkpoint()->set_bytes(info.bytes);
    reported_.emplace_back(link_.Say(std::move(says)), info.step);
  }
  std::int64_t CommittedCheckpoint() override {
    const std::int64_t acked = link_.acked();
    while (!reported_.empty() && reported_.front().first <= acked) {
      committed_ = reported_.front().second;
      reported_.pop_front();
    }
    return committed_;
  }
  void OnExport(const std::string& path) override {
    spdlog::info("encoder exported to {}", path);
    v1::RankSays says;
    says.mutable_exported()->set_path(path);
    link_.Say(std::move(says));
  }
  void OnLog(const std::string& line) override { spdlog::info("{}", line); }

 private:
  Link& link_;
  std::deque<std::pair<std::int64_t, std::int64_t>> reported_;  // number and step of checkpoints not known as committed
  std::int64_t committed_ = 0;
};

std::string exit_record;  // path

// For a worker that did not start this process.
void Record(int code, const std::string& message, std::int64_t nonfinite_step = 0) {
  if (!vicreg::SaveExitRecord(exit_record, {code, nonfinite_step, message.substr(0, 4000)}))
    spdlog::warn("cannot leave {}", exit_record);
}

[[noreturn]] void Leave(Link& link, train::Outcome outcome) {
  progress.Enter(train::Progress::Phase::kLeaving);
  Ending ending = EndingOf(outcome.reason);
  spdlog::info("{}: {}", vicreg::ShortName(ending.reason), outcome.message);
  const bool good = outcome.reason == train::ExitReason::kCompleted || outcome.reason == train::ExitReason::kStopped;
  // Nothing is done until it is durable; a failure has no such claim on our patience.
  const bool committed = link.WaitForAcks(good ? orphan_grace : std::chrono::seconds(10));
  if (!committed) spdlog::error("the coordinator did not confirm all reports in time");
  if (!committed && outcome.reason == train::ExitReason::kStopped && link.HandedOver()) {
    outcome.message += "; its worker keeps what no coordinator has confirmed";
  } else if (!committed && good) {
    // Its last reports may end with this process: a claim to have finished would hide them. The next attempt goes on
    // from what is committed.
    ending = {v1::EXIT_REASON_ABORTED, 12};
    outcome.message += "; left without the coordinator's confirmation of all reports";
  }
  v1::Exited exited;
  exited.set_reason(ending.reason);
  exited.set_message(outcome.message.substr(0, 4000));
  exited.set_code(ending.code);
  exited.set_nonfinite_step(outcome.nonfinite_step);
  Record(ending.code, outcome.message, outcome.nonfinite_step);
  link.Leave(exited);
  // Not exit(): a collective library's destructors may wait for peers that are gone.
  std::cerr.flush();
  if (!good) vicreg::rank::AbortAndExit(ending.code, train::AbortCollectives);
  _exit(ending.code);
}

Link* to_worker = nullptr;  // for OnLost

// The thread that trains may be waiting for the GPU for ever: this one says why and leaves.
void OnLost(const std::string& what) {
  const Ending ending = EndingOf(train::ReasonOf(what));
  spdlog::error("{}: {}", vicreg::ShortName(ending.reason), what);
  Record(ending.code, what);
  vicreg::rank::AbortAndExit(ending.code, [&] {
    v1::Exited exited;
    exited.set_reason(ending.reason);
    exited.set_message(what.substr(0, 4000));
    exited.set_code(ending.code);
    if (to_worker != nullptr) to_worker->Leave(exited);
    train::AbortCollectives();
  });
}

void OnCommand(const v1::Command& command) {
  switch (command.kind()) {
    case v1::Command::KIND_STOP:
      spdlog::info("asked to stop: {}", command.cause());
      stop.requested = true;
      break;
    case v1::Command::KIND_ABORT:
      spdlog::warn("ABORTED: {}", command.cause());
      Record(12, command.cause());
      vicreg::rank::AbortAndExit(12, train::AbortCollectives);
    default:
      spdlog::warn("FENCED: {}", command.cause());
      Record(13, command.cause());
      vicreg::rank::AbortAndExit(13, train::AbortCollectives);
  }
}

// Asked by a worker before it offers GPUs.
int CheckDevice(const std::string& name) {
  const train::Device device = name == "gpu" ? train::Device::kGpu : train::Device::kCpu;
  for (const std::string& why : {train::WhyNotTheseLibraries(), train::WhyNot(device)}) {
    if (why.empty()) continue;
    std::cerr << why << std::endl;
    return 20;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string folder, socket_path, job, address = "127.0.0.1";
  int attempt = 0, rank = 0, collective_timeout = 60;
  std::int64_t grace = orphan_grace.count();
  CLI::App app("One rank of a training attempt; started by vicreg-worker.", "vicreg-rank");
  app.add_option("--dir", folder, "State folder of the worker")->required();
  app.add_option("--socket", socket_path, "The worker's Unix socket")->required();
  app.add_option("--job", job, "Job id")->required();
  app.add_option("--attempt", attempt, "Attempt number")->required();
  app.add_option("--rank", rank, "Rank")->required();
  app.add_option("--orphan-grace", grace,
                 "Seconds to train on without a worker, then checkpoint and leave; finished work waits as long for the "
                 "coordinator")
      ->capture_default_str()
      ->check(CLI::Range(1, 86'400));
  app.add_option("--address", address, "Address to listen on for peers")->capture_default_str();
  app.add_option("--collective-timeout", collective_timeout,
                 "Seconds to wait for peers at the rendezvous and in each collective")
      ->capture_default_str()
      ->check(CLI::Range(1, 3600));
  app.add_option_function<std::string>(
         "--check-device", [](const std::string& name) { _exit(CheckDevice(name)); },
         "cpu or gpu: only says, by exit code 0 or 20, whether this program can compute on it here")
      ->check(CLI::IsMember({"cpu", "gpu"}))
      ->trigger_on_parse();
  app.set_version_flag("--version", vicreg::kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 20;
  }
  train::KeepFreedMemory();
  train::ConfigureCollectives();
  orphan_grace = std::chrono::seconds(grace);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  vicreg::InitLog("vicreg-rank");
  vicreg::rpc::TakeOverGrpcLog();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGTERM, OnTerm);
  signal(SIGINT, SIG_IGN);
  vicreg::rank::ShowStackWhenAsked();

  char secret[32];
  if (read(3, secret, sizeof secret) != static_cast<ssize_t>(sizeof secret)) {
    std::cerr << "vicreg-rank: no secret on descriptor 3: ranks are started by vicreg-worker; submit a job instead\n";
    return 20;
  }
  close(3);
  exit_record = vicreg::ExitRecordPath(folder + "/ranks", job, attempt, rank);
  v1::Hello hello;
  hello.set_job_id(job);
  hello.set_attempt(attempt);
  hello.set_rank(rank);
  hello.set_pid(getpid());
  hello.set_build(vicreg::kVersion);
  hello.set_secret(std::string(secret, sizeof secret));
  Link link(socket_path, hello, OnCommand, orphan_grace, Where);
  to_worker = &link;
  vicreg::rank::OnLostThread(OnLost);
  const auto assignment = link.WaitForAssignment(std::chrono::seconds(60));
  if (!assignment.ok()) {
    std::cerr << "vicreg-rank: " << assignment.status().message() << "\n";
    return 13;
  }
  const auto resolved = vicreg::recipe::Resolve(assignment->spec());
  if (!resolved.ok()) Leave(link, {train::ExitReason::kConfig, std::string(resolved.status().message()), 0});
  if (resolved->hash != assignment->recipe_hash()) {
    Leave(link, {train::ExitReason::kConfig,
                 "this build resolves the job to recipe " + resolved->hash + ", the coordinator's to " +
                     assignment->recipe_hash() + ": use one version",
                 0});
  }
  train::RankContext context;
  context.rank = rank;
  context.world_size = assignment->world_size();
  context.address = address;
  context.device = assignment->spec().device() == v1::DEVICE_GPU ? train::Device::kGpu : train::Device::kCpu;
  context.collective_timeout = std::chrono::seconds(collective_timeout);
  context.attempt = attempt;
  context.job_id = job;
  context.project = assignment->project();
  context.recipe_hash = assignment->recipe_hash();
  context.data_root = assignment->data_root();
  context.artifact_root = assignment->artifact_root();
  context.threads = assignment->threads();
  if (assignment->has_resume())
    context.resume =
        train::ResumePoint{assignment->resume().step(), assignment->resume().path(), assignment->resume().hash()};
  context.substituted_step = assignment->substituted_step();
  context.store = vicreg::rank::MakeStore(link);
  context.progress = &progress;
  spdlog::info("job {} attempt {} rank {} of {}, {} threads", job, attempt, rank, context.world_size, context.threads);
  Reporter reporter(link);
  Leave(link, train::Run(resolved->recipe, context, stop, reporter));
}
