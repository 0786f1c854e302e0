#include "worker/train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>

#include "worker/train/checkpoint/checkpoint.h"
#include "worker/train/data/loader.h"
#include "worker/train/eval/knn.h"
#include "worker/train/learner.h"
#include "worker/train/pinned_memory.h"
#include "worker/train/torch_device.h"

namespace vicreg::train {
namespace {

using Steady = std::chrono::steady_clock;

constexpr std::int64_t kMaxQueries = 2000;  // test samples used for the online kNN

double Seconds(Steady::time_point from, Steady::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// One rank's run. `phase` and `step` say where it is when something throws.
class Training {
 public:
  Training(const recipe::Recipe& recipe, const RankContext& context, const StopFlag& stop, Observer& observer)
      : recipe_(recipe), context_(context), stop_(stop), observer_(observer) {}

  std::string phase = "setup";
  std::int64_t step = 0;  // finished updates
  std::string Where() const { return phase == "learn" ? learner_->phase : phase; }

  Outcome Go() {
    Open();
    observer_.OnConnected(step, total_steps_);
    while (step < total_steps_) {
      if (StopAgreed()) {
        if (step > last_checkpoint_) Checkpoint();
        return {ExitReason::kStopped, "stopped after step " + std::to_string(step), step};
      }
      Step();
    }
    if (step > last_checkpoint_) Checkpoint();
    Export();
    return {ExitReason::kCompleted, "finished " + std::to_string(step) + " steps", step};
  }

 private:
  bool lead() const { return group_.rank() == 0; }

  void Enter(Progress::Phase next) {
    if (context_.progress != nullptr) context_.progress->Enter(next);
  }
  void Done() {
    if (context_.progress != nullptr) context_.progress->Done(step);
  }

  void Open() {
    for (const std::string& why : {WhyNotTheseLibraries(), WhyNot(context_.device)}) {
      if (!why.empty()) throw RankError(ExitReason::kConfig, why);
    }
    phase = "data";
    samples_ = OpenSamples(context_.data_root, recipe_, recipe_.data.split, recipe_.data.limit);
    if (recipe_.knn.enabled) OpenQueries();
    phase = "rendezvous";
    if (context_.world_size > 1) {
      const Progress::Waiting waiting(context_.progress);
      ProcessGroupOptions options;
      options.rank = context_.rank;
      options.world_size = context_.world_size;
      options.host = context_.address;
      options.device = context_.device;
      options.timeout = context_.collective_timeout;
      group_ = Group(MakeProcessGroup(context_.store, options), context_.rank, context_.world_size, context_.progress);
    }
    phase = "setup";
    learner_ = std::make_unique<Learner>(recipe_, group_, TorchDevice(context_.device));
    total_steps_ = recipe::InSteps(recipe_.length, samples_.count, recipe_.batch_size, 1);
    warmup_ = recipe::InSteps(recipe_.schedule.warmup, samples_.count, recipe_.batch_size, 0);
    checkpoint_every_ = recipe::InSteps(recipe_.checkpoint_every, samples_.count, recipe_.batch_size, 1);
    knn_every_ = recipe::InSteps(recipe_.knn.every, samples_.count, recipe_.batch_size, 1);
    if (context_.resume) {
      phase = "resume";
      LoadCheckpoint(context_.artifact_root, context_.resume->path, context_.resume->hash, context_.resume->step,
                     context_.recipe_hash, learner_->model(), learner_->optimizer_state());
      step = last_checkpoint_ = context_.resume->step;
      observer_.OnLog("resumed from " + context_.resume->path);
    }
    LoaderOptions options;
    options.seed = recipe_.seed;
    options.batch_size = recipe_.batch_size;
    options.rank = context_.rank;
    options.world_size = context_.world_size;
    options.threads = std::max(context_.threads - 1, 1);
    options.first_step = step;
    options.substituted_step = context_.substituted_step - 1;
    if (context_.device == Device::kGpu) {
      pinned_ = std::make_unique<PinnedMemory>(TorchDevice(context_.device).type());
      options.memory = pinned_.get();
    }
    loader_ = std::make_unique<Loader>(samples_, options);
    last_row_ = Steady::now();
  }

  void OpenQueries() {
    const auto labelled = [](const SampleSet& set, const std::string& which) {
      if (!set.labels.empty()) return;
      throw RankError(ExitReason::kData,
                      "evaluation.knn needs labels, and the " + which + " samples have none: remove evaluation.knn");
    };
    labelled(samples_, "training");
    queries_ = OpenSamples(context_.data_root, recipe_, "test", kMaxQueries, &samples_);
    labelled(queries_, "test");
  }

  // All ranks stop after the same step: one tiny all-gather of the wish, between the hosts.
  bool StopAgreed() {
    phase = "control";
    const at::Tensor wish = at::full({1}, stop_.requested.load() ? 1 : 0, at::TensorOptions().dtype(at::kLong));
    return group_.AllGather(wish).max().item<std::int64_t>() != 0;
  }

  void Step() {
    const auto begin = Steady::now();
    Enter(Progress::Phase::kStep);
    phase = "data";
    Batch batch = loader_->Next();
    phase = "learn";
    const double rate =
        LearningRate(step, total_steps_, warmup_, recipe_.optimizer.peak_lr, recipe_.schedule.final_fraction);
    const Update update = learner_->Learn(batch, rate, step + 1, total_steps_);
    ++step;
    Done();
    if (!stepping_) {
      stepping_ = true;
      observer_.OnStepping(step);
    }
    const auto end = Steady::now();
    StepRow row = Row(update, rate, Seconds(begin, end));
    if (recipe_.knn.enabled && (step % knn_every_ == 0 || step == total_steps_)) Knn(row);
    if (lead()) {
      observer_.OnRow(row);
    }
    if (step % checkpoint_every_ == 0) Checkpoint();
  }

  StepRow Row(const Update& update, double rate, double seconds) {
    const LossTerms& t = update.terms;
    StepRow row;
    row.step = step;
    row.epoch = static_cast<double>(step) / static_cast<double>(loader_->steps_per_epoch());
    row.loss = t.loss;
    row.invariance = t.invariance;
    row.variance = t.variance;
    row.covariance = t.covariance;
    row.invariance_weighted = t.invariance_weighted;
    row.variance_weighted = t.variance_weighted;
    row.covariance_weighted = t.covariance_weighted;
    row.z_std_mean = t.z_std_mean;
    row.z_std_min = t.z_std_min;
    row.z_std_below = t.z_std_below;
    row.grad_norm = update.grad_norm;
    row.loss_scale = update.loss_scale;
    row.skipped_steps = learner_->skipped();
    row.learning_rate = rate;
    row.covariance_noise_floor = t.covariance_noise_floor;
    row.mismatch = t.mismatch;
    row.redundancy = t.redundancy;
    row.step_seconds = seconds;
    const auto now = Steady::now();
    row.images_per_second = static_cast<double>(recipe_.batch_size) / std::max(Seconds(last_row_, now), 1e-9);
    last_row_ = now;
    row.time_us =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
            .count();
    return row;
  }

  // Of each network; with branches also their mean.
  void Knn(StepRow& row) {
    phase = "evaluation";
    Enter(Progress::Phase::kEvaluation);
    const std::vector<recipe::Branch> views = recipe::Views(recipe_);
    double sum = 0;
    int networks = 0;
    for (std::size_t v = 0; v < views.size(); ++v) {
      if (views[v].shared) continue;
      const double accuracy = KnnOfView(static_cast<int>(v));
      observer_.OnLog("step " + std::to_string(step) + ": " +
                      (views[v].name.empty() ? "" : "branch " + views[v].name + ", ") + std::to_string(recipe_.knn.k) +
                      "-NN accuracy " + std::to_string(accuracy));
      if (!views[v].name.empty()) row.knn_by_branch.push_back({views[v].name, accuracy});
      sum += accuracy;
      ++networks;
    }
    row.knn_accuracy = sum / networks;
    last_row_ = Steady::now();  // the rate is the steps' alone
  }

  double KnnOfView(int view) {
    const at::Tensor bank = Represent(learner_->network(), samples_, view, group_);
    const at::Tensor queries = Represent(learner_->network(), queries_, view, group_);
    return KnnAccuracy(bank, samples_.labels, queries, queries_.labels, recipe_.knn.k, recipe_.knn.temperature);
  }

  CheckpointId Id() const { return {context_.project, context_.job_id, context_.attempt, step, context_.recipe_hash}; }

  void Checkpoint() {
    phase = "checkpoint";
    last_checkpoint_ = step;
    if (!lead()) return;
    Enter(Progress::Phase::kCheckpoint);
    const SavedCheckpoint saved =
        SaveCheckpoint(context_.artifact_root, Id(), learner_->model(), learner_->optimizer_state(), context_.progress);
    observer_.OnCheckpoint({step, saved.path, saved.hash, saved.bytes});
    Done();
    // Only this attempt's own older ones; the one it resumed from stays until the coordinator no longer needs it. While
    // the coordinator is away nothing new is committed, and more than `keep` may lie here.
    written_.push_back({step, saved.path, saved.hash, saved.bytes});
    const std::int64_t committed = observer_.CommittedCheckpoint();
    while (written_.size() > static_cast<std::size_t>(recipe_.checkpoint_keep) && written_.front().step < committed) {
      RemoveCheckpoint(context_.artifact_root, written_.front().path);
      written_.pop_front();
    }
  }

  void Export() {
    phase = "export";
    if (!lead()) return;
    Enter(Progress::Phase::kCheckpoint);
    observer_.OnExport(SaveExport(context_.artifact_root, Id(), learner_->model(), recipe_, context_.progress));
  }

  const recipe::Recipe& recipe_;
  const RankContext& context_;
  const StopFlag& stop_;
  Observer& observer_;

  SampleSet samples_, queries_;
  Group group_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<PinnedMemory> pinned_;  // on a GPU
  std::unique_ptr<Loader> loader_;
  std::int64_t total_steps_ = 0, warmup_ = 0, checkpoint_every_ = 1, knn_every_ = 1, last_checkpoint_ = 0;
  bool stepping_ = false;
  std::deque<CheckpointInfo> written_;
  Steady::time_point last_row_;
};

}  // namespace

Outcome Run(const recipe::Recipe& recipe, const RankContext& context, const StopFlag& stop, Observer& observer) {
  at::set_num_threads(std::max(context.threads, 1));
  Training training(recipe, context, stop, observer);
  const auto where = [&] {
    return " (rank " + std::to_string(context.rank) + ", step " + std::to_string(training.step) + ", " +
           training.Where() + ")";
  };
  try {
    return training.Go();
  } catch (const NumericError& error) {
    return {error.reason, error.what() + where(), training.step, error.step};
  } catch (const RankError& error) {
    return {error.reason, error.what() + where(), training.step};
  } catch (const std::exception& error) {
    std::string text = error.what();
    text = text.substr(0, text.find('\n'));  // torch appends a stack trace
    return {training.phase == "rendezvous" ? ExitReason::kRendezvous : ReasonOf(text), text + where(), training.step};
  }
}

}  // namespace vicreg::train
