#pragma once

// One rank's whole training run: the seam between the process around it (worker/rank, worker/train_cli) and torch.
// Nothing here includes torch, gRPC or protobuf.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/device.h"
#include "worker/train/distributed/key_value_store.h"
#include "worker/train/error.h"
#include "worker/train/progress.h"

namespace vicreg::train {

struct BranchAccuracy {
  std::string branch;
  double accuracy = 0;
};

// Row of one finished optimizer step; same meaning as vicreg.v1.MetricRow (proto/vicreg/v1/metrics.proto), without
// attempt.
struct StepRow {
  std::int64_t step = 0;  // 1-based
  double epoch = 0, loss = 0;
  double invariance = 0, variance = 0, covariance = 0;
  double invariance_weighted = 0, variance_weighted = 0, covariance_weighted = 0;
  double z_std_mean = 0, z_std_min = 0, z_std_below = 0;
  double grad_norm = 0, learning_rate = 0, images_per_second = 0, step_seconds = 0;
  double covariance_noise_floor = 0, mismatch = 0, redundancy = 0;
  double loss_scale = 1;               // fp16's factor of this step
  std::int64_t skipped_steps = 0;      // of this attempt and those it resumed from: fp16 gradients that overflowed
  std::optional<double> knn_accuracy;  // with branches their mean
  std::vector<BranchAccuracy> knn_by_branch;  // empty for a job without branches
  std::int64_t time_us = 0;
};

struct CheckpointInfo {
  std::int64_t step = 0;
  std::string path;  // relative to the artifact root
  std::string hash;  // SHA-256 of manifest.json, hex
  std::int64_t bytes = 0;
};

// Told by the trainer, on its own thread; must not block longer than a local write.
class Observer {
 public:
  virtual ~Observer() = default;
  // Rendezvous done, data open, model built.
  virtual void OnConnected(std::int64_t resume_step, std::int64_t total_steps) = 0;
  virtual void OnStepping(std::int64_t step) = 0;             // every rank, after its first finished step
  virtual void OnRow(const StepRow& row) = 0;                 // rank 0, every step, in order
  virtual void OnCheckpoint(const CheckpointInfo& info) = 0;  // rank 0; files are durable
  // Rank 0: newest step told by OnCheckpoint that is committed, 0 for none yet. The next attempt may resume from it, or
  // from any newer one: only older ones are removed.
  virtual std::int64_t CommittedCheckpoint() = 0;
  virtual void OnExport(const std::string& path) = 0;  // rank 0; folder relative to the artifact root
  virtual void OnLog(const std::string& line) = 0;
};

// Set from another thread; the ranks agree at the next step boundary, save a checkpoint and leave together.
struct StopFlag {
  std::atomic<bool> requested{false};
};

struct ResumePoint {
  std::int64_t step = 0;
  std::string path, hash;
};

struct RankContext {
  int rank = 0, world_size = 1;
  Device device = Device::kCpu;
  std::chrono::milliseconds collective_timeout{60'000};
  std::string address = "127.0.0.1";  // listened on for peers
  int attempt = 1;
  std::string job_id = "local", project = "default";
  std::string recipe_hash;
  std::string data_root;      // absolute folder of recipe.data.root
  std::string artifact_root;  // absolute; checkpoints go to <project>/<job>/a<attempt>/step-<n>, the export to
                              // <project>/<job>/export
  int threads = 1;            // cores this rank may use: OpenMP and loader threads
  std::optional<ResumePoint> resume;
  std::int64_t substituted_step = 0;     // 1-based: its batch is replaced by another draw; 0: none
  std::shared_ptr<KeyValueStore> store;  // rendezvous; may be null when world_size is 1
  Progress* progress = nullptr;          // told where the run is; outlives it
};

struct Outcome {
  ExitReason reason = ExitReason::kInternal;
  std::string message;  // one sentence with phase, step and what was found
  std::int64_t step = 0;
  std::int64_t nonfinite_step = 0;  // kNumeric: the 1-based update whose loss or gradient was not finite
};

// Trains from the resume point (or step 0) to the end of the recipe, or until `stop`. Never throws; called once per
// process.
Outcome Run(const recipe::Recipe& recipe, const RankContext& context, const StopFlag& stop, Observer& observer);

}  // namespace vicreg::train
