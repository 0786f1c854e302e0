#include "worker/train_cli/rank.h"

#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/files.h"
#include "common/recipe/recipe_json.h"
#include "worker/train/distributed/process_group.h"
#include "worker/train/host_memory.h"
#include "worker/train/trainer.h"
#include "worker/train_cli/file_store.h"

namespace vicreg::train {
namespace {

StopFlag stop;  // a signal handler reaches nothing else; setting a lock-free atomic is all it does

nlohmann::ordered_json RowJson(const StepRow& row) {
  nlohmann::ordered_json json = {{"step", row.step},
                                 {"epoch", row.epoch},
                                 {"loss", row.loss},
                                 {"invariance", row.invariance},
                                 {"variance", row.variance},
                                 {"covariance", row.covariance},
                                 {"invariance_weighted", row.invariance_weighted},
                                 {"variance_weighted", row.variance_weighted},
                                 {"covariance_weighted", row.covariance_weighted},
                                 {"z_std_mean", row.z_std_mean},
                                 {"z_std_min", row.z_std_min},
                                 {"z_std_below", row.z_std_below},
                                 {"mismatch", row.mismatch},
                                 {"redundancy", row.redundancy},
                                 {"covariance_noise_floor", row.covariance_noise_floor},
                                 {"grad_norm", row.grad_norm},
                                 {"loss_scale", row.loss_scale},
                                 {"skipped_steps", row.skipped_steps},
                                 {"learning_rate", row.learning_rate},
                                 {"images_per_second", row.images_per_second},
                                 {"step_seconds", row.step_seconds},
                                 {"time_us", row.time_us}};
  if (row.knn_accuracy) json["knn_accuracy"] = *row.knn_accuracy;
  for (const BranchAccuracy& of : row.knn_by_branch)
    json["knn_by_branch"].push_back({{"branch", of.branch}, {"accuracy", of.accuracy}});
  return json;
}

class Printer : public Observer {
 public:
  explicit Printer(bool lead) : lead_(lead) {}
  void OnConnected(std::int64_t, std::int64_t) override {}
  void OnStepping(std::int64_t) override {}
  void OnRow(const StepRow& row) override { std::cout << RowJson(row).dump() << std::endl; }
  void OnCheckpoint(const CheckpointInfo& info) override {
    OnLog("checkpoint of step " + std::to_string(info.step) + " in " + info.path);
    newest_ = info.step;
  }
  // Nobody commits here: what is on the disk counts.
  std::int64_t CommittedCheckpoint() override { return newest_; }
  void OnExport(const std::string& path) override { OnLog("export in " + path); }
  void OnLog(const std::string& line) override {
    if (lead_) std::cerr << line << std::endl;
  }

 private:
  const bool lead_;
  std::int64_t newest_ = 0;
};

}  // namespace

int RunLocalRank(const LocalRank& options) {
  KeepFreedMemory();
  ConfigureCollectives();
  for (const int number : {SIGINT, SIGTERM}) std::signal(number, [](int) { stop.requested.store(true); });
  const auto text = ReadFile(options.folder + "/recipe.json");
  if (!text.ok()) {
    std::cerr << "error: " << text.status().message() << std::endl;
    return 1;
  }
  RankContext context;
  context.rank = options.rank;
  context.world_size = options.world_size;
  context.device = options.gpu ? Device::kGpu : Device::kCpu;
  context.job_id = options.job;
  context.recipe_hash = options.recipe_hash;
  context.data_root = options.data_root;
  context.artifact_root = options.artifacts;
  context.threads = options.threads;
  context.store = std::make_shared<FileStore>(options.folder);
  Printer printer(options.rank == 0);
  const Outcome outcome = Run(recipe::Deserialize(*text), context, stop, printer);
  if (outcome.reason == ExitReason::kCompleted) {
    printer.OnLog(outcome.message);
    return 0;
  }
  std::cerr << (outcome.reason == ExitReason::kStopped ? "" : "error: ") << outcome.message << std::endl;
  return outcome.reason == ExitReason::kStopped ? 3 : 1;
}

}  // namespace vicreg::train
