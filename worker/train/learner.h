#pragma once

// One update of the model from one batch: forward, objective, backward, guard, optimizer. The loop around it
// (trainer.cc) decides when to save, to evaluate and to stop.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/data/loader.h"
#include "worker/train/distributed/gradient_reducer.h"
#include "worker/train/distributed/group.h"
#include "worker/train/model/model.h"
#include "worker/train/objective/objective.h"
#include "worker/train/optim/loss_scaler.h"
#include "worker/train/optim/optimizer.h"

namespace vicreg::train {

struct Update {
  LossTerms terms;
  double grad_norm = 0;   // of the averaged gradient, without the loss scale; not finite where the update was skipped
  double loss_scale = 1;  // the factor of this update
};

// What a job cannot choose: for comparisons and tests.
struct LearnerOptions {
  std::size_t bucket_bytes = GradientReducer::kBucketBytes;  // of gradients that one all-reduce carries
  // Batch norm over this rank's own rows. Another number of ranks is then another experiment; it is how frameworks
  // train that have no synchronised batch norm on CPUs.
  bool own_rows_norms = false;
};

// Owned and called by one thread. Every rank builds the same network and takes the same updates.
class Learner {
 public:
  // `group` outlives it. Computes on `device`; batches come in host memory.
  Learner(const recipe::Recipe& recipe, Group& group, at::Device device, const LearnerOptions& options = {});
  ~Learner();

  // The update with this 1-based number, of `total`. All ranks decide alike from reduced values: RankError(kNumeric)
  // naming term and step when the loss or (outside fp16) the gradient is not finite, or an fp16 gradient has overflowed
  // 20 times in a row; then no rank has moved.
  Update Learn(Batch& batch, double learning_rate, std::int64_t step, std::int64_t total);

  const Network& network() const { return model_.network(); }
  // What a checkpoint holds; the tensors themselves, to be copied into when loading.
  const std::vector<NamedTensor>& model() const { return model_.parameters().all(); }
  std::vector<NamedTensor> optimizer_state() const;
  std::int64_t skipped() const { return scaler_.skipped(); }  // updates so far

  std::string phase = "setup";  // forward, backward, optimizer: where it is when something throws

 private:
  std::vector<at::Tensor> Samples(Batch& batch) const;
  Embedded Forward(const std::vector<at::Tensor>& views);
  // The whole batch, its parts one after the other, as leaves that collect their own gradients.
  Embedded ForwardInParts(const std::vector<at::Tensor>& views);
  // The parts again, with their graphs, from those gradients down.
  void BackwardInParts(const std::vector<at::Tensor>& views, const Embedded& whole);

  const recipe::Recipe& recipe_;
  Group& group_;
  Group alone_;
  Group& norms_;  // over whose rows the networks normalise: one of the two
  Model model_;
  std::unique_ptr<Objective> objective_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<GradientReducer> reducer_;
  LossScaler scaler_;
};

}  // namespace vicreg::train
