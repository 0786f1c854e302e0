#pragma once

// The autograd node of a loss whose forward has computed the gradient already.

#include <ATen/core/Tensor.h>

#include <vector>

namespace vicreg::train {

// A scalar of this value whose backward gives gradients[k] times what comes from above for inputs[k], in the type of
// inputs[k]. No collective, no buffer but the gradients; std::logic_error for a second derivative.
at::Tensor WithKnownGradient(const std::vector<at::Tensor>& inputs, std::vector<at::Tensor> gradients, double value);

}  // namespace vicreg::train
