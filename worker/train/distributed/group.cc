#include "worker/train/distributed/group.h"

#include <ATen/ATen.h>

#include "worker/train/distributed/process_group_handle.h"

namespace vicreg::train {

Group::Group(std::shared_ptr<ProcessGroupHandle> handle, int rank, int size)
    : handle_(std::move(handle)), rank_(rank), size_(size) {}

void Group::Count(const at::Tensor& tensor) {
  ++collectives_;
  bytes_ += tensor.numel() * tensor.element_size();
}

at::Tensor Group::AllGather(const at::Tensor& mine) {
  if (size_ == 1) return mine.unsqueeze(0);
  Count(mine);
  at::Tensor input = mine.contiguous();
  std::vector<int64_t> shape = {size_ * (input.dim() > 0 ? input.size(0) : 1)};
  for (int64_t i = 1; i < input.dim(); ++i) shape.push_back(input.size(i));
  at::Tensor output = at::empty(shape, input.options());
  handle_->backend->_allgather_base(output, input)->wait();
  std::vector<int64_t> stacked = {size_};
  stacked.insert(stacked.end(), input.sizes().begin(), input.sizes().end());
  return output.view(stacked);
}

void Group::AllReduceSum(at::Tensor& tensor) {
  if (size_ == 1) return;
  Count(tensor);
  std::vector<at::Tensor> tensors = {tensor};
  handle_->backend->allreduce(tensors)->wait();
}

}  // namespace vicreg::train
