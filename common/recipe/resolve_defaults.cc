// What a job file leaves out: the preset's keys first, then the defaults that job.proto names.

#include "common/recipe/resolver.h"

namespace vicreg::recipe {
namespace {

// vicreg demo: Fashion-MNIST sized images on CPUs in about two minutes.
constexpr char kDemoCpu[] = R"(
encoder: {name: tiny}
expander: [1024, 1024, 1024]
loss: {objective: vicreg, convention: authors, lambda: 25, mu: 25, nu: 1, form: auto}
batch_size: 256
length: {steps: 300}
optimizer: {name: adamw, lr: 1.0e-3, weight_decay: 1.0e-4}
augmentation: {preset: cifar, size: 28}
checkpoint: {every: 100 steps, keep: 3}
evaluation: {knn: {every: 100 steps, k: 20, temperature: 0.07}}
)";

const std::vector<std::string> kPresets = {"demo-cpu"};

// lars with base_lr left out: the paper's own rates (appendix C.4 and table 13, 100 epochs; 1000 epochs for table 1).
// 0: none published.
double PublishedRate(std::int64_t batch_size, double epochs) {
  if (batch_size == 2048 && epochs == 1000) return 0.2;
  switch (batch_size) {
    case 128:
      return 0.8;
    case 256:
      return 0.5;
    case 512:
      return 0.4;
    case 1024:
    case 2048:
    case 4096:
      return 0.3;
    default:
      return 0;
  }
}

}  // namespace

// Keys of an optimizer and of an objective belong together: a job that names its own does not inherit the preset's rate
// or coefficients.
void Resolver::ApplyPreset() {
  if (given_.preset().empty()) {
    s() = given_;
    return;
  }
  if (given_.preset() != "demo-cpu") {
    Bad("preset", Suggest(given_.preset(), kPresets));
    s() = given_;
    return;
  }
  s() = *spec::ParseJob(kDemoCpu, "preset demo-cpu");
  if (given_.expander_size() > 0 || Written("expander")) s().clear_expander();
  // Networks of the job's own read what they read, and are drawn for as that is.
  const Architecture* named = FindArchitecture(given_.encoder().name());
  if (named != nullptr && named->input != Input::kImages) s().clear_augmentation();
  if (given_.branches_size() > 0) {
    s().clear_encoder();
    s().clear_expander();
    s().clear_augmentation();
  }
  if (given_.has_length()) s().clear_length();
  if (given_.has_optimizer() && !given_.optimizer().name().empty()) s().clear_optimizer();
  if (given_.loss().objective() != v1::OBJECTIVE_UNSPECIFIED && given_.loss().objective() != s().loss().objective())
    s().clear_loss();
  if (PerView()) {
    s().mutable_loss()->clear_convention();
    s().mutable_loss()->clear_mu();
    s().mutable_loss()->clear_nu();
  }
  if (given_.checkpoint().has_every()) s().mutable_checkpoint()->clear_every();
  if (given_.evaluation().knn().has_every()) s().mutable_evaluation()->mutable_knn()->clear_every();
  s().MergeFrom(given_);
  // Merging passes over zeros.
  if (Written("batch_size")) s().set_batch_size(given_.batch_size());
  if (Written("augmentation.size")) s().mutable_augmentation()->set_size(given_.augmentation().size());
  if (Written("checkpoint.keep")) s().mutable_checkpoint()->set_keep(given_.checkpoint().keep());
  if (Written("evaluation.knn.k")) s().mutable_evaluation()->mutable_knn()->set_k(given_.evaluation().knn().k());
}

void Resolver::FillDefaults() {
  v1::JobSpec& j = s();
  if (j.project().empty()) j.set_project("default");
  if (j.queue().empty()) j.set_queue("default");
  if (!j.has_seed()) j.set_seed(1);
  if (!j.has_world_size()) {
    j.mutable_world_size()->set_min(1);
    j.mutable_world_size()->set_max(1);
  }
  if (j.placement().topology() == v1::TOPOLOGY_LEVEL_UNSPECIFIED)
    j.mutable_placement()->set_topology(v1::TOPOLOGY_LEVEL_NODE);
  if (j.device() == v1::DEVICE_UNSPECIFIED) j.set_device(v1::DEVICE_CPU);
  v1::DataSpec& data = *j.mutable_data();
  if (data.format() == v1::DATA_FORMAT_UNSPECIFIED) data.set_format(v1::DATA_FORMAT_IDX);
  if (data.split() == v1::DATA_SPLIT_UNSPECIFIED) data.set_split(v1::DATA_SPLIT_TRAIN);
  if (j.branches_size() > 0) {
    FillBranches();
  } else {
    v1::EncoderSpec& encoder = *j.mutable_encoder();
    if (encoder.name().empty()) encoder.set_name("resnet18");
    FillView(kOwnKeys, encoder, *j.mutable_augmentation());
    const Architecture* a = FindArchitecture(encoder.name());
    const Input input = a == nullptr || data.format() == v1::DATA_FORMAT_IDX ? Input::kImages : a->input;
    if (data.channels() == 0 && !Written("data.channels") && input != Input::kVectors) data.set_channels(1);
    if (data.part().empty() && !Written("data.part"))
      data.set_part(input == Input::kImages ? "image" : input == Input::kWaveforms ? "wave" : "vector");
    if (j.views() == 0 && !Written("views")) j.set_views(2);
  }
  FillObjective();
  if (j.expander_norm() == v1::EXPANDER_NORM_UNSPECIFIED) j.set_expander_norm(v1::EXPANDER_NORM_BATCH_NORM);
  if (j.embedding_norm() == v1::EMBEDDING_NORM_UNSPECIFIED) j.set_embedding_norm(v1::EMBEDDING_NORM_RAW);
  if (j.accumulate() == 0 && !Written("accumulate")) j.set_accumulate(1);
  FillOptimizer();
  if (j.precision() == v1::PRECISION_UNSPECIFIED) j.set_precision(v1::PRECISION_FP32);
  v1::CheckpointSpec& checkpoint = *j.mutable_checkpoint();
  if (!checkpoint.has_every()) checkpoint.mutable_every()->set_steps(100);
  if (checkpoint.keep() == 0 && !Written("checkpoint.keep")) checkpoint.set_keep(3);
  if (j.evaluation().has_knn()) {
    v1::KnnSpec& knn = *j.mutable_evaluation()->mutable_knn();
    if (!knn.has_every()) knn.mutable_every()->set_epochs(1);
    if (knn.k() == 0 && !Written("evaluation.knn.k")) knn.set_k(20);
    if (!knn.has_temperature()) knn.set_temperature(0.07);
  }
  if (!j.restart().has_charges()) j.mutable_restart()->set_charges(3);
  if (!j.schedule().has_final()) j.mutable_schedule()->set_final(0);
}

void Resolver::FillView(const ViewKeys& keys, v1::EncoderSpec& encoder, v1::AugmentationSpec& views) {
  const Architecture* a = FindArchitecture(encoder.name());
  const Input input = a == nullptr ? Input::kImages : a->input;
  const bool images = input == Input::kImages;
  if (views.preset().empty()) views.set_preset(images ? "cifar" : input == Input::kWaveforms ? "wave" : "vector");
  if (images && views.size() == 0 && !Written(keys.augmentation + ".size")) views.set_size(32);
  if (a == nullptr) return;
  if (HasWidth(*a) && encoder.width() == 0 && !Written(keys.encoder + ".width")) encoder.set_width(a->width);
  if (a->family != Family::kResNet) return;
  if (encoder.stem() == v1::STEM_UNSPECIFIED)
    encoder.set_stem(views.size() > (images ? kSmallStemPixels : kSmallStemValues) ? v1::STEM_STANDARD
                                                                                   : v1::STEM_SMALL);
  if (!encoder.has_zero_init_residual()) encoder.set_zero_init_residual(true);
}

void Resolver::FillOptimizer() {
  v1::OptimizerSpec& optimizer = *s().mutable_optimizer();
  if (optimizer.name().empty()) return;
  if (!optimizer.has_weight_decay()) optimizer.set_weight_decay(optimizer.name() == "lars" ? 1e-6 : 1e-4);
  if (optimizer.name() == "larc") {  // as solo-learn trains VICReg on CIFAR-10
    if (!optimizer.has_eta()) optimizer.set_eta(0.02);
    if (!optimizer.has_clip()) optimizer.set_clip(true);
  }
  if (optimizer.name() == "lars" && !optimizer.has_base_lr()) {
    const double rate = PublishedRate(s().batch_size(), s().length().epochs());
    if (rate > 0) optimizer.set_base_lr(rate);
  }
}

}  // namespace vicreg::recipe
