#pragma once

// Host memory that a device copies from without a detour (page-locked, of torch's caching host allocator), as a memory
// resource: for batches, so that their copy does not hold the host up.

#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/Allocator.h>

#include <memory_resource>
#include <mutex>
#include <unordered_map>

namespace vicreg::train {

// Any thread. Outlives what it has given out.
class PinnedMemory : public std::pmr::memory_resource {
 public:
  // Throws c10::Error where torch has no such allocator for `device`.
  explicit PinnedMemory(at::DeviceType device);

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override;
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }

  at::HostAllocator* const allocator_;
  std::mutex mutex_;
  std::unordered_map<void*, c10::DataPtr> given_;
};

}  // namespace vicreg::train
