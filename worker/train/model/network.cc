#include "worker/train/model/network.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/train/model/layers.h"

namespace vicreg::train {
namespace {

at::Tensor NormaliseEmbeddings(const at::Tensor& z, recipe::EmbeddingNorm norm, int views, Group& group) {
  switch (norm) {
    case recipe::EmbeddingNorm::kRaw:
      return z;
    // A row of length sqrt(D) has coordinates of order 1, which is what the objective's gamma and eps are made for.
    case recipe::EmbeddingNorm::kL2:
      return z * (std::sqrt(static_cast<double>(z.size(1))) / z.norm(2, {1}, true).clamp_min(1e-12));
    case recipe::EmbeddingNorm::kStd:
      return Standardise(z, views, group);
  }
  return z;
}

}  // namespace

// (Linear with bias, BN if the recipe has it, ReLU) for all widths but the last, then Linear without bias or BN (paper,
// section 4.2).
class Network::Expander {
 public:
  Expander(Parameters& p, int64_t in, const recipe::Recipe& recipe) {
    const std::vector<int64_t>& widths = recipe.expander;
    for (size_t i = 0; i < widths.size(); ++i) {
      const bool last = i + 1 == widths.size();
      layers_.emplace_back(p, "expander." + std::to_string(i), in, widths[i], /*bias=*/!last,
                           /*bn=*/!last && recipe.expander_norm == recipe::ExpanderNorm::kBatchNorm);
      in = widths[i];
    }
  }

  at::Tensor Forward(at::Tensor x, int views, Group& group) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      x = layers_[i].Forward(x, views, group);
      if (i + 1 < layers_.size()) x = x.relu();
    }
    return x;
  }

 private:
  std::vector<DenseLayer> layers_;
};

Network::Network(const recipe::Recipe& recipe, at::ScalarType dtype)
    : embedding_norm_(recipe.embedding_norm),
      parameters_(recipe.seed, dtype),
      encoder_(MakeEncoder(recipe.encoder, recipe.data.channels, recipe.augmentation.size, "encoder.", parameters_)),
      expander_(std::make_unique<Expander>(parameters_, encoder_->width(), recipe)) {}

Network::~Network() = default;

at::Tensor Network::Forward(const at::Tensor& images, int views, Group& group) {
  return NormaliseEmbeddings(expander_->Forward(encoder_->Forward(images, views, group), views, group), embedding_norm_,
                             views, group);
}

at::Tensor Network::Represent(const at::Tensor& images) const { return encoder_->Evaluate(images); }

}  // namespace vicreg::train
