#include "worker/train/distributed/gradient_reducer.h"

#include <algorithm>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "worker/train/distributed/process_group_handle.h"

namespace vicreg::train {

struct GradientReducer::Impl {
  std::unique_ptr<c10d::Reducer> reducer;
};

GradientReducer::GradientReducer(const std::vector<at::Tensor>& parameters, Group& group, std::size_t bucket_bytes) {
  if (group.size() == 1) return;
  const size_t first_bucket = bucket_bytes == kBucketBytes ? 1 << 20 : bucket_bytes;
  // Last layers first: their gradients are ready first.
  std::vector<std::vector<size_t>> buckets =
      std::get<0>(c10d::compute_bucket_assignment_by_size(parameters, {first_bucket, bucket_bytes}));
  std::reverse(buckets.begin(), buckets.end());
  impl_ = std::make_unique<Impl>();
  impl_->reducer = std::make_unique<c10d::Reducer>(
      parameters, buckets, group.handle()->group, std::vector<bool>(parameters.size(), false),
      static_cast<int64_t>(bucket_bytes),
      /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true, std::unordered_map<size_t, std::string>(),
      static_cast<int64_t>(first_bucket),
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>());
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::Prepare(const at::Tensor& loss) {
  if (impl_) impl_->reducer->prepare_for_backward({loss});
}

}  // namespace vicreg::train
