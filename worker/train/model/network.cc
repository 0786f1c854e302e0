#include "worker/train/model/network.h"

#include <ATen/ATen.h>

#include <cmath>
#include <stdexcept>

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

// (Linear with bias, BN if the recipe has it, ReLU) for all widths but the last, then Linear without bias or BN (paper,
// section 4.2).
class Expander {
 public:
  Expander(Parameters& p, const std::string& prefix, int64_t in, const std::vector<int64_t>& widths, bool bn) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const bool last = i + 1 == widths.size();
      layers_.emplace_back(p, prefix + std::to_string(i), in, widths[i], /*bias=*/!last, /*bn=*/!last && bn);
      in = widths[i];
    }
  }

  at::Tensor Forward(at::Tensor x, int views, Group& group) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      x = layers_[i].Forward(x, views, group, i + 1 < layers_.size() ? Activation::kRelu : Activation::kNone);
    }
    return x;
  }

 private:
  std::vector<DenseLayer> layers_;
};

std::string Prefix(const std::string& branch) { return branch.empty() ? "" : branch + "."; }

}  // namespace

std::vector<NamedTensor> EncoderTensors(const std::vector<NamedTensor>& model, const std::string& branch) {
  const std::string prefix = Prefix(branch) + "encoder.";
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& t : model) {
    if (t.name.rfind(prefix, 0) == 0) tensors.push_back({t.name.substr(prefix.size()), t.value});
  }
  return tensors;
}

// An encoder and its expander.
class Network::Branch {
 public:
  Branch(const recipe::Branch& b, recipe::ExpanderNorm norm, Parameters& p)
      : encoder(MakeEncoder(b.encoder, b.channels, b.augmentation.size, Prefix(b.name) + "encoder.", p)),
        expander(p, Prefix(b.name) + "expander.", encoder->width(), b.expander,
                 norm == recipe::ExpanderNorm::kBatchNorm) {}

  const std::unique_ptr<Encoder> encoder;
  Expander expander;
};

Network::Network(const recipe::Recipe& recipe, at::ScalarType dtype, at::Device device)
    : embedding_norm_(recipe.embedding_norm), parameters_(recipe.seed, dtype, device) {
  for (const recipe::Branch& view : recipe::Views(recipe)) {
    if (!view.shared) branches_.push_back(std::make_unique<Branch>(view, recipe.expander_norm, parameters_));
    branch_of_.push_back(view.shared ? 0 : branches_.size() - 1);
  }
}

Network::~Network() = default;

std::vector<at::Tensor> Network::Forward(const std::vector<at::Tensor>& views, Group& group) {
  if (views.size() != branch_of_.size()) {
    throw std::invalid_argument("found " + std::to_string(views.size()) + " batches for " +
                                std::to_string(branch_of_.size()) + " views");
  }
  for (const at::Tensor& view : views) {
    if (view.size(0) != views[0].size(0)) {
      throw std::invalid_argument("views of " + std::to_string(views[0].size(0)) + " and " +
                                  std::to_string(view.size(0)) + " rows");
    }
  }
  std::vector<at::Tensor> embeddings(views.size());
  for (size_t b = 0; b < branches_.size(); ++b) {
    std::vector<at::Tensor> own;
    for (size_t v = 0; v < views.size(); ++v) {
      if (branch_of_[v] == b) own.push_back(views[v]);
    }
    const int count = static_cast<int>(own.size());
    const at::Tensor x = count == 1 ? own[0] : at::cat(own);
    const at::Tensor z = branches_[b]->expander.Forward(branches_[b]->encoder->Forward(x, count, group), count, group);
    const std::vector<at::Tensor> parts = NormaliseEmbeddings(z, embedding_norm_, count, group).chunk(count);
    for (size_t v = 0, next = 0; v < views.size(); ++v) {
      if (branch_of_[v] == b) embeddings[v] = parts[next++];
    }
  }
  return embeddings;
}

at::Tensor Network::Encode(const at::Tensor& samples, int view, Group& group) {
  return branches_[branch_of_.at(static_cast<size_t>(view))]->encoder->Forward(samples, 1, group);
}

at::Tensor Network::Represent(const at::Tensor& samples, int view) const {
  return branches_[branch_of_.at(static_cast<size_t>(view))]->encoder->Evaluate(samples);
}

}  // namespace vicreg::train
