#pragma once

// What a job trains: for every branch an encoder (kept) and an expander (discarded after training). Names of an
// encoder's tensors are torchvision's behind "encoder.", or "<branch>.encoder." where the job lists branches.

#include <memory>
#include <string>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/distributed/group.h"
#include "worker/train/model/parameters.h"

namespace vicreg::train {

class Encoder {
 public:
  virtual ~Encoder() = default;
  // [views * n, C, H, W] -> [views * n, width]; statistics per view, over all ranks. Waveforms are [views * n, C, L],
  // vectors [views * n, F].
  virtual at::Tensor Forward(const at::Tensor& samples, int views, Group& group) = 0;
  // Running statistics, no gradient: what an exported encoder computes.
  virtual at::Tensor Evaluate(const at::Tensor& samples) const = 0;
  virtual int64_t width() const = 0;
};

// Any of recipe::Architectures(), for samples of `channels` (vectors: features) and images of `size` pixels a side;
// names beneath `prefix` ("encoder."). Throws std::invalid_argument for another name, or a size that the encoder cannot
// read.
std::unique_ptr<Encoder> MakeEncoder(const recipe::Encoder& encoder, int channels, int size, const std::string& prefix,
                                     Parameters& parameters);

// Tensors of the encoder of a branch, without the prefix: what an export holds. `branch` as in recipe::Branch::name.
std::vector<NamedTensor> EncoderTensors(const std::vector<NamedTensor>& model, const std::string& branch);

class Network {
 public:
  // Its tensors, and those it is given, lie on `device`.
  explicit Network(const recipe::Recipe& recipe, at::ScalarType dtype = at::kFloat, at::Device device = at::kCPU);
  ~Network();

  // One batch [n, ...] per view, in the order of recipe::Views, row i of all of one sample -> their embeddings [n, D],
  // normalised as the recipe says. Views of one network pass it together, each with its own statistics. Throws
  // std::invalid_argument when there are not as many batches as views, or their rows differ.
  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& views, Group& group);
  // Representations of one batch of view `view` as in training: its own statistics, which move the running ones.
  at::Tensor Encode(const at::Tensor& samples, int view, Group& group);
  // Representations of samples of view `view`, in eval mode.
  at::Tensor Represent(const at::Tensor& samples, int view = 0) const;

  at::Device device() const { return parameters_.device(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

 private:
  class Branch;
  const recipe::EmbeddingNorm embedding_norm_;
  Parameters parameters_;
  std::vector<std::unique_ptr<Branch>> branches_;  // those with weights of their own, in view order
  std::vector<size_t> branch_of_;                  // by view
};

}  // namespace vicreg::train
