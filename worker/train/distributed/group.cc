#include "worker/train/distributed/group.h"

#include <ATen/ATen.h>

#include "worker/train/distributed/process_group_handle.h"

namespace vicreg::train {

Group::Group(std::shared_ptr<ProcessGroupHandle> handle, int rank, int size, Progress* progress)
    : handle_(std::move(handle)), rank_(rank), size_(size), progress_(progress) {}

void Group::Count(const at::Tensor& tensor) {
  ++collectives_;
  bytes_ += tensor.numel() * tensor.element_size();
}

at::Tensor Gathering::Wait() {
  if (!wait_) return received_;
  wait_();
  wait_ = nullptr;  // what was sent may go
  return received_ = received_.view(shape_);
}

Gathering Group::StartAllGather(const at::Tensor& mine) {
  if (size_ == 1) return {mine.unsqueeze(0), {}, nullptr};
  Count(mine);
  at::Tensor input = mine.contiguous();
  std::vector<std::int64_t> stacked = {size_}, flat = {size_ * (input.dim() > 0 ? input.size(0) : 1)};
  stacked.insert(stacked.end(), input.sizes().begin(), input.sizes().end());
  if (input.dim() > 1) flat.insert(flat.end(), input.sizes().begin() + 1, input.sizes().end());
  at::Tensor received = at::empty(flat, input.options());
  const auto& backend = input.is_cpu() ? handle_->host : handle_->backend;
  const auto work = backend->_allgather_base(received, input);
  return {received, std::move(stacked), [work, input, progress = progress_] {
            const Progress::Waiting waiting(progress);
            work->wait();
          }};
}

void Group::AllReduceSum(at::Tensor& tensor) {
  if (size_ == 1) return;
  Count(tensor);
  std::vector<at::Tensor> tensors = {tensor};
  const Progress::Waiting waiting(progress_);
  handle_->backend->allreduce(tensors)->wait();
}

}  // namespace vicreg::train
