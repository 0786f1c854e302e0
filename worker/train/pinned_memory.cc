#include "worker/train/pinned_memory.h"

namespace vicreg::train {

PinnedMemory::PinnedMemory(at::DeviceType device) : allocator_(at::getHostAllocator(device)) {}

// Pages are aligned for anything.
void* PinnedMemory::do_allocate(std::size_t bytes, std::size_t) {
  c10::DataPtr block = allocator_->allocate(bytes);
  void* const memory = block.get();
  const std::lock_guard lock(mutex_);
  given_.emplace(memory, std::move(block));
  return memory;
}

// The allocator gives the block out again only when the copies from it that torch has noted are over.
void PinnedMemory::do_deallocate(void* memory, std::size_t, std::size_t) {
  const std::lock_guard lock(mutex_);
  given_.erase(memory);
}

}  // namespace vicreg::train
