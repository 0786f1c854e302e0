#pragma once

// The small network on top of the expander that SimSiam (arXiv 2011.10566) and BYOL (arXiv 2006.07733) compare by:
// Linear with bias, BN if the recipe's expander has it, ReLU, Linear with bias back to the embedding's width. One for
// all views, each with its own statistics. Trained like the rest, never exported.

#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/model/layers.h"

namespace vicreg::train {

class Predictor {
 public:
  // On embeddings of `width`; its tensors are "predictor.0.*" and "predictor.1.*". loss.predictor > 0.
  Predictor(const recipe::Recipe& recipe, int64_t width, Parameters& parameters);

  // [n_r, D] per view -> the same shapes.
  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& embeddings, Group& group);

 private:
  DenseLayer hidden_, out_;
};

}  // namespace vicreg::train
