#pragma once

// The tensors of a network by name, in the order they were made: one list for the optimizer, the reducer and
// checkpoints.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vicreg::train {

struct NamedTensor {
  std::string name;
  at::Tensor value;
};

class Parameters {
 public:
  Parameters(std::uint64_t seed, at::ScalarType dtype, at::Device device = at::kCPU)
      : seed_(seed), dtype_(dtype), device_(device) {}

  at::Device device() const { return device_; }

  // Initial values are a function of (seed, name) alone: every rank builds the same network, on any device and
  // whatever it was asked for before.
  at::Tensor Normal(const std::string& name, at::IntArrayRef shape, double deviation);
  at::Tensor Uniform(const std::string& name, at::IntArrayRef shape, double bound);
  at::Tensor Constant(const std::string& name, at::IntArrayRef shape, double value);
  // Not trained; saved all the same.
  at::Tensor Buffer(const std::string& name, at::IntArrayRef shape, double value);
  at::Tensor Counter(const std::string& name);  // int64 scalar buffer

  const std::vector<NamedTensor>& trained() const { return trained_; }
  // Trained ones and buffers, in the order they were made.
  const std::vector<NamedTensor>& all() const { return all_; }

 private:
  at::Tensor Train(const std::string& name, const at::Tensor& value);

  const std::uint64_t seed_;
  const at::ScalarType dtype_;
  const at::Device device_;
  std::vector<NamedTensor> trained_, all_;
};

}  // namespace vicreg::train
