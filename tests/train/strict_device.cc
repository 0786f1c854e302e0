#include "tests/train/strict_device.h"

#include <ATen/ATen.h>
#include <ATen/NativeFunctions.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <stdexcept>

namespace vicreg::train {
namespace {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;
std::atomic<long> operations{0}, host_blocks{0};

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kType> {
  c10::Device getDevice() const override { return {kType, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return {kType, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(kType, 0));
  }
  c10::Stream exchangeStream(c10::Stream) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(kType, 0));
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* data = bytes == 0 ? nullptr : c10::alloc_cpu(bytes);
    return {data, data, &c10::free_cpu, c10::Device(kType, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
};
Allocator allocator;

class HostAllocator final : public at::HostAllocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    ++host_blocks;
    void* data = c10::alloc_cpu(bytes);
    return {data, data, raw_deleter(), at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* data) {
      --host_blocks;
      c10::free_cpu(data);
    };
  }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
  bool record_event(void*, void*, c10::Stream) override { return true; }
  void empty_cache() override {}
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};
HostAllocator host_allocator;

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DataPtr data = allocator.allocate(bytes);
    if (const size_t kept = std::min(bytes, storage.nbytes()); kept > 0) std::memcpy(data.get(), storage.data(), kept);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
    storage.set_nbytes(bytes);
  }
};
Hooks hooks;

at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> type,
                        std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           type.value_or(at::kFloat));
}

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   type.value_or(at::kFloat), format);
}

// The same memory as a tensor of the CPU.
at::Tensor OnCpu(const at::Tensor& t) {
  if (t.is_cpu()) return t;
  return at::from_blob(t.mutable_data_ptr(), t.sizes(), t.strides(), t.options().device(at::kCPU));
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool) {
  OnCpu(to).copy_(OnCpu(from));
  return to;
}

at::Tensor CopyFromAndResize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return CopyFrom(from, to, false);
}

at::Scalar LocalScalar(const at::Tensor& t) { return OnCpu(t).item(); }

void Refuse(const c10::OperatorHandle& op, const at::Tensor& t) {
  if (t.defined() && t.is_cpu() && t.dim() > 0) {
    throw std::runtime_error(op.schema().name() + " is given a tensor of " + std::to_string(t.numel()) +
                             " values on the CPU and one on the device");
  }
}

void Run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  ++operations;
  for (const c10::IValue& argument : torch::jit::last(stack, op.schema().arguments().size())) {
    if (argument.isTensor()) Refuse(op, argument.toTensor());
    if (argument.isTensorList()) {
      for (const at::Tensor& t : argument.toTensorVector()) Refuse(op, t);
    }
  }
  at::native::cpu_fallback(op, stack);
}

// What convolutions of a device outside torch are asked of.
at::Tensor Convolution(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& b,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  ++operations;
  if (x.is_cpu() || w.is_cpu()) throw std::runtime_error("convolution is given tensors on the CPU and on the device");
  const std::optional<at::Tensor> bias = b && b->defined() ? std::optional(OnCpu(*b)) : std::nullopt;
  return at::convolution(OnCpu(x), OnCpu(w), bias, stride, padding, dilation, transposed, output_padding, groups)
      .to(StrictDevice());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> ConvolutionBackward(const at::Tensor& dy, const at::Tensor& x,
                                                                   const at::Tensor& w, at::IntArrayRef stride,
                                                                   at::IntArrayRef padding, at::IntArrayRef dilation,
                                                                   bool transposed, at::IntArrayRef output_padding,
                                                                   int64_t groups, std::array<bool, 3> mask) {
  ++operations;
  const auto [dx, dw, db] = at::convolution_backward(
      OnCpu(dy), OnCpu(x), OnCpu(w), mask[2] ? at::OptionalIntArrayRef({w.size(0)}) : std::nullopt, stride, padding,
      dilation, transposed, output_padding, groups, mask);
  const auto back = [](const at::Tensor& t) { return t.defined() ? t.to(StrictDevice()) : t; };
  return {back(dx), back(dw), back(db)};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&Run>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &Empty);
  m.impl("empty_strided", &EmptyStrided);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("resize_", &at::native::resize_);
  m.impl("_copy_from", &CopyFrom);
  m.impl("_copy_from_and_resize", &CopyFromAndResize);
  m.impl("_local_scalar_dense", &LocalScalar);
  m.impl("convolution_overrideable", &Convolution);
  m.impl("convolution_backward_overrideable", &ConvolutionBackward);
}

at::Device StrictDevice() {
  static const bool registered = [] {
    c10::register_privateuse1_backend("strict");
    c10::SetAllocator(kType, &allocator);
    at::setHostAllocator(kType, &host_allocator);
    at::RegisterPrivateUse1HooksInterface(&hooks);
    return true;
  }();
  (void)registered;
  return {kType, 0};
}

long StrictOperations() { return operations; }

long StrictHostBlocks() { return host_blocks; }

}  // namespace vicreg::train
