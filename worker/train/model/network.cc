#include "worker/train/model/network.h"

#include <ATen/ATen.h>

#include <cmath>
#include <optional>

#include "worker/train/model/sync_batch_norm.h"

namespace vicreg::train {

// (Linear with bias, BN, ReLU) for all widths but the last, then Linear without bias or BN (paper, section 4.2).
class Network::Expander {
 public:
  Expander(Parameters& p, int64_t in, const std::vector<int64_t>& widths) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string name = "expander." + std::to_string(i);
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      Layer layer{p.Uniform(name + ".linear.weight", {widths[i], in}, bound), {}, std::nullopt};
      if (i + 1 < widths.size()) {
        layer.bias = p.Uniform(name + ".linear.bias", {widths[i]}, bound);
        layer.bn.emplace(p, name + ".bn", widths[i]);
      }
      layers_.push_back(std::move(layer));
      in = widths[i];
    }
  }

  at::Tensor Forward(at::Tensor x, int views, Group& group) {
    for (Layer& layer : layers_) {
      x = layer.bias.defined() ? at::linear(x, layer.weight, layer.bias) : at::linear(x, layer.weight);
      if (layer.bn) x = layer.bn->Forward(x, views, group).relu();
    }
    return x;
  }

 private:
  struct Layer {
    at::Tensor weight, bias;
    std::optional<SyncBatchNorm> bn;
  };
  std::vector<Layer> layers_;
};

Network::Network(const recipe::Recipe& recipe, at::ScalarType dtype)
    : parameters_(recipe.seed, dtype), encoder_(MakeEncoder(recipe.encoder, recipe.data.channels, "encoder.", parameters_)) {
  expander_ = std::make_unique<Expander>(parameters_, encoder_->width(), recipe.expander);
}

Network::~Network() = default;

at::Tensor Network::Forward(const at::Tensor& images, int views, Group& group) {
  return expander_->Forward(encoder_->Forward(images, views, group), views, group);
}

at::Tensor Network::Represent(const at::Tensor& images) const { return encoder_->Evaluate(images); }

}  // namespace vicreg::train
