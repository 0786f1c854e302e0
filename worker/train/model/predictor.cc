#include "worker/train/model/predictor.h"

#include <ATen/ATen.h>

namespace vicreg::train {

Predictor::Predictor(const recipe::Recipe& recipe, int64_t width, Parameters& parameters)
    : hidden_(parameters, "predictor.0", width, recipe.loss.predictor, /*bias=*/true,
              /*bn=*/recipe.expander_norm == recipe::ExpanderNorm::kBatchNorm),
      out_(parameters, "predictor.1", recipe.loss.predictor, width, /*bias=*/true, /*bn=*/false) {}

std::vector<at::Tensor> Predictor::Forward(const std::vector<at::Tensor>& embeddings, Group& group) {
  const int views = static_cast<int>(embeddings.size());
  const at::Tensor hidden = hidden_.Forward(at::cat(embeddings), views, group, Activation::kRelu);
  return out_.Forward(hidden, views, group, Activation::kNone).chunk(views);
}

}  // namespace vicreg::train
