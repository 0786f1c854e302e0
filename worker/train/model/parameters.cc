#include "worker/train/model/parameters.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "common/files.h"

namespace vicreg::train {
namespace {

// The first 60 bits of SHA-256("seed/name"): positive, and unrelated for neighbouring seeds.
at::Generator GeneratorFor(std::uint64_t seed, const std::string& name) {
  const std::string digest = Sha256Hex(std::to_string(seed) + "/" + name);
  return at::make_generator<at::CPUGeneratorImpl>(std::stoull(digest.substr(0, 15), nullptr, 16));
}

// The values of a 1 x 1 kernel lie the same with channels innermost and outermost. Its gradient comes with the strides
// of the former, and c10d's reducer warns of strides that are not the parameter's own.
at::Tensor ChannelsInnermostIfSame(const at::Tensor& value) {
  if (value.dim() != 4 || value.size(2) != 1 || value.size(3) != 1) return value;
  const int64_t in = value.size(1);
  return at::empty_strided(value.sizes(), {in, 1, in, in}, value.options()).copy_(value);
}

}  // namespace

at::Tensor Parameters::Train(const std::string& name, const at::Tensor& value) {
  // Drawn in fp32 on the CPU for any dtype and device, so that all start from the same weights.
  at::Tensor tensor =
      ChannelsInnermostIfSame(value).to(at::TensorOptions().dtype(dtype_).device(device_)).set_requires_grad(true);
  trained_.push_back({name, tensor});
  all_.push_back({name, tensor});
  return tensor;
}

at::Tensor Parameters::Normal(const std::string& name, at::IntArrayRef shape, double deviation) {
  return Train(name, at::empty(shape, at::kFloat).normal_(0, deviation, GeneratorFor(seed_, name)));
}

at::Tensor Parameters::Uniform(const std::string& name, at::IntArrayRef shape, double bound) {
  return Train(name, at::empty(shape, at::kFloat).uniform_(-bound, bound, GeneratorFor(seed_, name)));
}

at::Tensor Parameters::Constant(const std::string& name, at::IntArrayRef shape, double value) {
  return Train(name, at::full(shape, value, at::kFloat));
}

at::Tensor Parameters::Buffer(const std::string& name, at::IntArrayRef shape, double value) {
  all_.push_back({name, at::full(shape, value, at::TensorOptions().dtype(dtype_).device(device_))});
  return all_.back().value;
}

at::Tensor Parameters::Counter(const std::string& name) {
  all_.push_back({name, at::zeros({}, at::TensorOptions().dtype(at::kLong).device(device_))});
  return all_.back().value;
}

}  // namespace vicreg::train
