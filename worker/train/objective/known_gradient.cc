#include "worker/train/objective/known_gradient.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <stdexcept>

namespace vicreg::train {
namespace {

// Autograd takes every tensor and TensorList argument for an input; what stands in a struct it leaves alone.
struct Known {
  std::vector<at::Tensor> gradients;
  at::ScalarType input_type;
  double value;
};

struct KnownGradient : torch::autograd::Function<KnownGradient> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList inputs, const Known& known) {
    (void)inputs;
    context->saved_data["input_type"] = static_cast<std::int64_t>(known.input_type);
    context->save_for_backward(known.gradients);
    return at::full({}, known.value, known.gradients[0].options());
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list above) {
    if (at::GradMode::is_enabled()) throw std::logic_error("the VICReg loss has no second derivative");
    const auto type = static_cast<at::ScalarType>(context->saved_data["input_type"].toInt());
    torch::autograd::tensor_list gradients;
    // Rounded after the loss scale was applied: a half-precision gradient may need it.
    for (const at::Tensor& g : context->get_saved_variables()) gradients.push_back((g * above[0]).to(type));
    gradients.emplace_back();  // of `known`
    return gradients;
  }
};

}  // namespace

at::Tensor WithKnownGradient(const std::vector<at::Tensor>& inputs, std::vector<at::Tensor> gradients, double value) {
  return KnownGradient::apply(at::TensorList(inputs), Known{std::move(gradients), inputs[0].scalar_type(), value});
}

}  // namespace vicreg::train
