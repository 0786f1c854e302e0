#pragma once

// Encoder (kept) and expander (discarded after training). Names of the encoder's tensors are torchvision's behind
// "encoder.".

#include <memory>

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

class Network {
 public:
  explicit Network(const recipe::Recipe& recipe, at::ScalarType dtype = at::kFloat);
  ~Network();

  // Embeddings of `views` batches on top of each other, normalised as the recipe says.
  at::Tensor Forward(const at::Tensor& images, int views, Group& group);
  // Representations in eval mode.
  at::Tensor Represent(const at::Tensor& images) const;

  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

 private:
  class Expander;
  const recipe::EmbeddingNorm embedding_norm_;
  Parameters parameters_;
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Expander> expander_;
};

}  // namespace vicreg::train
