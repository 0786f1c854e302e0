#include "worker/train/distributed/gradient_reducer.h"

#include <algorithm>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "worker/train/distributed/process_group_handle.h"

namespace vicreg::train {

struct GradientReducer::Impl {
  std::unique_ptr<c10d::Reducer> reducer;
};

GradientReducer::GradientReducer(const std::vector<at::Tensor>& parameters, Group& group) {
  if (group.size() == 1) return;
  constexpr size_t kFirstBucket = 1 << 20, kBucket = 25 << 20;
  // Last layers first: their gradients are ready first.
  std::vector<std::vector<size_t>> buckets =
      std::get<0>(c10d::compute_bucket_assignment_by_size(parameters, {kFirstBucket, kBucket}));
  std::reverse(buckets.begin(), buckets.end());
  impl_ = std::make_unique<Impl>();
  impl_->reducer = std::make_unique<c10d::Reducer>(
      parameters, buckets, group.handle()->group, std::vector<bool>(parameters.size(), false), kBucket,
      /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/false, std::unordered_map<size_t, std::string>(),
      kFirstBucket,
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>());
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::Prepare(const at::Tensor& loss) {
  if (impl_) impl_->reducer->prepare_for_backward({loss});
}

}  // namespace vicreg::train
