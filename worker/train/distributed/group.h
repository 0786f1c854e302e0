#pragma once

// The ranks of one attempt, as the objective and SyncBN see them. Collectives are called by every rank in the same
// order, from one thread at a time; a peer that died or a timeout is an exception. A group of one does nothing and
// needs no backend.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "worker/train/distributed/process_group.h"
#include "worker/train/progress.h"

namespace vicreg::train {

// An all-gather under way: other work may be done before Wait.
class Gathering {
 public:
  Gathering(at::Tensor received, std::vector<std::int64_t> shape, std::function<void()> wait)
      : received_(std::move(received)), shape_(std::move(shape)), wait_(std::move(wait)) {}

  // [W, shape...] in rank order. Once. On a GPU the host does not wait: what is computed with the result does.
  at::Tensor Wait();

 private:
  at::Tensor received_;
  std::vector<std::int64_t> shape_;
  std::function<void()> wait_;
};

class Group {
 public:
  Group() = default;  // of one
  // `progress` is told when this rank waits for its peers; it outlives the group, or is null.
  Group(std::shared_ptr<ProcessGroupHandle> handle, int rank, int size, Progress* progress = nullptr);

  int rank() const { return rank_; }
  int size() const { return size_; }

  // [W, shape...] in rank order; every rank passes the same shape, dtype and device. `mine` must not change before
  // Wait. Tensors on the CPU go between the hosts, also where ranks compute on GPUs.
  Gathering StartAllGather(const at::Tensor& mine);
  at::Tensor AllGather(const at::Tensor& mine) { return StartAllGather(mine).Wait(); }
  // Sum over ranks, the same bits on every rank. In place; contiguous; on the device the ranks compute on.
  void AllReduceSum(at::Tensor& tensor);

  // Counted for tests and explanations: calls, and payload bytes this rank passed in.
  std::int64_t collectives() const { return collectives_; }
  std::int64_t bytes() const { return bytes_; }

  Progress* progress() const { return progress_; }  // may be null

  // Null for a group of one.
  const std::shared_ptr<ProcessGroupHandle>& handle() const { return handle_; }

 private:
  void Count(const at::Tensor& tensor);

  std::shared_ptr<ProcessGroupHandle> handle_;
  int rank_ = 0, size_ = 1;
  Progress* progress_ = nullptr;
  std::int64_t collectives_ = 0, bytes_ = 0;
};

}  // namespace vicreg::train
