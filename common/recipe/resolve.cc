#include "common/recipe/resolve.h"

#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "common/recipe/networks.h"
#include "common/recipe/recipe_json.h"

namespace vicreg::recipe {
namespace {

using spec::Problem;

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

// Keeps infinity out, and products of two such numbers finite.
constexpr double kMost = 1e12;

// The small stem keeps a view at its full size through a whole stage.
constexpr int kSmallStemPixels = 64, kStandardStemPixels = 32;

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

bool HasWidth(const Architecture& a) { return a.family == Family::kResNet && std::string_view(a.name) != "resnet50x2"; }

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string Suggest(const std::string& found, const std::vector<std::string>& known) {
  std::string all;
  for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
  const std::string nearest = spec::Nearest(found, known);
  return "unknown name \"" + found + "\"; expected one of " + all +
         (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
}

// Collects problems while it resolves; every Check names the field, the limit, what was found and what to do.
class Resolver {
 public:
  // `keys`: what the job file holds, by path. A message cannot tell `keep: 0` from no `keep`, the file can.
  Resolver(const v1::JobSpec& given, const Roots& offered, const std::map<std::string, spec::Mark>& keys = {})
      : given_(given), offered_(offered), keys_(keys) {}

  std::vector<Problem> problems;
  Resolved out;

  void Run() {
    RefuseUnknown(given_, "");
    ApplyPreset();
    FillDefaults();
    Scheduling();
    DataAndViews();
    Network();
    Objective();
    Lengths();
    Optimizer();
    Evaluation();
    if (problems.empty()) {
      out.hash = Hash(out.recipe);
      Warn();
    }
  }

 private:
  v1::JobSpec& s() { return out.spec; }

  void Bad(const std::string& field, const std::string& text) { problems.push_back({{}, field, text}); }

  template <typename T>
  bool Range(const std::string& field, T value, T low, T high, const std::string& why = "") {
    if (value >= low && value <= high) return true;
    std::string number = std::to_string(value), least = std::to_string(low), most = std::to_string(high);
    Bad(field, "found " + number + "; expected " + least + " to " + most + (why.empty() ? "" : ": " + why));
    return false;
  }

  void CheckName(const std::string& field, const std::string& name) {
    const bool fine = !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    });
    if (!fine) Bad(field, "found \"" + name.substr(0, 80) + "\"; expected 1 to 63 of a-z, 0-9 and -");
  }

  bool Written(const std::string& key) const { return keys_.count(key) != 0; }

  // A newer client may send what this build has never heard of. Dropping it would train something else than was asked
  // for.
  void RefuseUnknown(const google::protobuf::Message& message, const std::string& path) {
    const auto& reflection = *message.GetReflection();
    const std::string prefix = path.empty() ? "" : path + ".";
    if (!reflection.GetUnknownFields(message).empty()) {
      Bad(path, "holds field number " + std::to_string(reflection.GetUnknownFields(message).field(0).number()) +
                    ", which this build does not know: use a client of this version");
    }
    std::vector<const google::protobuf::FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const auto* field : fields) {
      if (field->is_repeated()) continue;
      if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
        RefuseUnknown(reflection.GetMessage(message, field), prefix + field->name());
      } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_ENUM) {
        const int value = reflection.GetEnumValue(message, field);
        if (field->enum_type()->FindValueByNumber(value) == nullptr) {
          Bad(prefix + field->name(), "found value " + std::to_string(value) +
                                          ", which this build does not know: use a client of this version");
        }
      }
    }
  }

  // Optimizer keys belong together: a job that names its own optimizer does not inherit the preset's rate.
  void ApplyPreset() {
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
    if (given_.has_length()) s().clear_length();
    if (given_.has_optimizer() && !given_.optimizer().name().empty()) s().clear_optimizer();
    if (given_.checkpoint().has_every()) s().mutable_checkpoint()->clear_every();
    if (given_.evaluation().knn().has_every()) s().mutable_evaluation()->mutable_knn()->clear_every();
    s().MergeFrom(given_);
    // Merging passes over zeros.
    if (Written("batch_size")) s().set_batch_size(given_.batch_size());
    if (Written("augmentation.size")) s().mutable_augmentation()->set_size(given_.augmentation().size());
    if (Written("checkpoint.keep")) s().mutable_checkpoint()->set_keep(given_.checkpoint().keep());
    if (Written("evaluation.knn.k")) s().mutable_evaluation()->mutable_knn()->set_k(given_.evaluation().knn().k());
  }

  void FillDefaults() {
    v1::JobSpec& j = s();
    if (j.project().empty()) j.set_project("default");
    if (j.queue().empty()) j.set_queue("default");
    if (!j.has_seed()) j.set_seed(1);
    if (!j.has_world_size()) {
      j.mutable_world_size()->set_min(1);
      j.mutable_world_size()->set_max(1);
    }
    if (j.device() == v1::DEVICE_UNSPECIFIED) j.set_device(v1::DEVICE_CPU);
    v1::DataSpec& data = *j.mutable_data();
    if (data.format() == v1::DATA_FORMAT_UNSPECIFIED) data.set_format(v1::DATA_FORMAT_IDX);
    if (data.split() == v1::DATA_SPLIT_UNSPECIFIED) data.set_split(v1::DATA_SPLIT_TRAIN);
    if (data.channels() == 0 && !Written("data.channels")) data.set_channels(1);
    v1::EncoderSpec& encoder = *j.mutable_encoder();
    if (encoder.name().empty()) encoder.set_name("resnet18");
    v1::LossSpec& loss = *j.mutable_loss();
    if (loss.objective() == v1::OBJECTIVE_UNSPECIFIED) loss.set_objective(v1::OBJECTIVE_VICREG);
    if (loss.convention() == v1::CONVENTION_UNSPECIFIED) loss.set_convention(v1::CONVENTION_AUTHORS);
    if (!loss.has_lambda()) loss.set_lambda(25);
    if (!loss.has_mu()) loss.set_mu(25);
    if (!loss.has_nu()) loss.set_nu(1);
    if (loss.form() == v1::LOSS_FORM_UNSPECIFIED) loss.set_form(v1::LOSS_FORM_AUTO);
    if (j.expander_norm() == v1::EXPANDER_NORM_UNSPECIFIED) j.set_expander_norm(v1::EXPANDER_NORM_BATCH_NORM);
    if (j.embedding_norm() == v1::EMBEDDING_NORM_UNSPECIFIED) j.set_embedding_norm(v1::EMBEDDING_NORM_RAW);
    FillOptimizer();
    v1::AugmentationSpec& views = *j.mutable_augmentation();
    if (views.preset().empty()) views.set_preset("cifar");
    if (views.size() == 0 && !Written("augmentation.size")) views.set_size(32);
    if (const Architecture* a = FindArchitecture(encoder.name()); a != nullptr && a->family == Family::kResNet) {
      if (encoder.stem() == v1::STEM_UNSPECIFIED)
        encoder.set_stem(views.size() > kSmallStemPixels ? v1::STEM_STANDARD : v1::STEM_SMALL);
      if (!encoder.has_zero_init_residual()) encoder.set_zero_init_residual(true);
      if (HasWidth(*a) && encoder.width() == 0 && !Written("encoder.width")) encoder.set_width(a->width);
    }
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

  void FillOptimizer() {
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

  void Scheduling() {
    CheckName("name", s().name());
    CheckName("project", s().project());
    CheckName("queue", s().queue());
    Range("priority", s().priority(), -1000, 1000);
    const v1::WorldSize& world = s().world_size();
    const bool sized = Range("world_size", world.min(), 1, 4096);
    if (world.max() != world.min()) {
      Bad("world_size", "found min " + std::to_string(world.min()) + " and max " + std::to_string(world.max()) +
                            "; elastic sizes are not offered yet: give one number");
    }
    if (Range<std::int64_t>("batch_size", s().batch_size(), 2, 1048576, "variance needs at least two rows") && sized &&
        world.min() > s().batch_size()) {
      Bad("world_size", "found " + std::to_string(world.min()) + " ranks for a global batch of " +
                            std::to_string(s().batch_size()) +
                            " rows; expected at most one rank per row: lower world_size or raise batch_size");
    }
    Range("restart.charges", s().restart().charges(), 0, 100);
    out.recipe.seed = s().seed();
    out.recipe.batch_size = s().batch_size();
  }

  void CheckPath(const std::string& path) {
    if (path.empty()) return;
    bool fine = path.size() <= 512 && path.front() != '/' && path.back() != '/';
    std::size_t start = 0;
    while (fine && start <= path.size()) {
      const std::size_t end = std::min(path.find('/', start), path.size());
      const std::string part = path.substr(start, end - start);
      fine = !part.empty() && part != "." && part != ".." &&
             part.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
                 std::string::npos;
      start = end + 1;
    }
    if (!fine) {
      Bad("data.path",
          "found \"" + path.substr(0, 80) +
              "\"; expected a relative path of at most 512 bytes, its parts of A-Z a-z 0-9 . _ - and never ..");
    }
  }

  // A root that no worker offers is a slip of the pen.
  void CheckOffered(const std::string& root) {
    if (!offered_ || offered_->count(root) != 0) return;
    std::string list;
    for (const std::string& name : *offered_) list += (list.empty() ? "" : ", ") + name;
    Bad("data.root", "found \"" + root.substr(0, 80) +
                         "\", which no worker offers; expected one of: " + (list.empty() ? "(none is offered)" : list) +
                         "; or start a worker with --data-root " + root.substr(0, 80) + "=PATH");
  }

  void DataAndViews() {
    const v1::DataSpec& data = s().data();
    if (data.root().empty()) {
      Bad("data.root", "missing; expected the name of a data root a worker offers (--data-root NAME=PATH)");
    } else {
      CheckName("data.root", data.root());
      CheckOffered(data.root());
    }
    CheckPath(data.path());
    Range<std::int64_t>("data.limit", data.limit(), 0, std::int64_t{1} << 40);
    if (data.channels() != 1)
      Bad("data.channels", "found " + std::to_string(data.channels()) + "; expected 1: format idx holds grey images");
    if (data.limit() > 0 && data.limit() < s().batch_size()) {
      Bad("data.limit", "found " + std::to_string(data.limit()) + " samples for a batch of " +
                            std::to_string(s().batch_size()) +
                            "; expected at least one whole batch: raise it or lower batch_size");
    }
    const v1::AugmentationSpec& views = s().augmentation();
    static const std::vector<std::string> kViews = {"cifar", "none"};
    if (std::find(kViews.begin(), kViews.end(), views.preset()) == kViews.end())
      Bad("augmentation.preset", Suggest(views.preset(), kViews));
    Range("augmentation.size", views.size(), 8, 512);
    out.recipe.data = {data.root(), data.path(), data.split() == v1::DATA_SPLIT_TRAIN ? "train" : "test", data.limit(),
                       data.channels()};
    out.recipe.augmentation = {views.preset(), views.size()};
  }

  void Encoder() {
    const v1::EncoderSpec& encoder = s().encoder();
    const Architecture* found = FindArchitecture(encoder.name());
    if (found == nullptr) {
      std::vector<std::string> usable;
      for (const Architecture& a : Architectures()) {
        if (a.input == Input::kImages) usable.emplace_back(a.name);
      }
      Bad("encoder.name", Suggest(encoder.name(), usable));
      return;
    }
    const std::string name = found->name;
    if (found->input != Input::kImages) {
      Bad("encoder.name", name + " reads " + (found->input == Input::kWaveforms ? "waveforms" : "vectors") +
                              ", and no data format offers them yet (idx holds images); expected an encoder of images, "
                              "such as resnet18");
      return;
    }
    const int size = s().augmentation().size();
    if (found->family == Family::kResNet) {
      if (encoder.stem() == v1::STEM_STANDARD && size < kStandardStemPixels) {
        Bad("encoder.stem",
            "the standard stem shrinks " + std::to_string(size) +
                "-pixel views to less than one position; expected views of 32 pixels or more: use stem: small");
      } else if (encoder.stem() != v1::STEM_STANDARD && size > kSmallStemPixels && size <= 512) {
        Bad("encoder.stem", "a small stem keeps " + std::to_string(size) +
                                "-pixel views at full size; expected views of at most 64 pixels: use stem: standard");
      }
    } else {
      if (encoder.stem() != v1::STEM_UNSPECIFIED)
        Bad("encoder.stem", name + " has no stem to choose: remove the key, or use resnet18");
      if (encoder.has_zero_init_residual())
        Bad("encoder.zero_init_residual", name + " has no such blocks: remove the key, or use resnet18");
    }
    if (HasWidth(*found)) {
      Range("encoder.width", encoder.width(), 8, 512);
    } else if (encoder.width() != 0 || Written("encoder.width")) {
      Bad("encoder.width",
          name + " has no width to choose: remove the key, or use " + (name == "resnet50x2" ? "resnet50" : "resnet18"));
    }
    if (found->family == Family::kVit && size % kVitPatch != 0 && size >= 8 && size <= 512) {
      Bad("augmentation.size",
          "found " + std::to_string(size) + " pixels; expected a multiple of 16, the patches of " + name);
    }
    out.recipe.encoder.name = name;
    if (found->family != Family::kResNet) return;
    out.recipe.encoder.stem = encoder.stem() == v1::STEM_STANDARD         ? Stem::kStandard
                              : encoder.stem() == v1::STEM_SMALL_PADDING2 ? Stem::kSmallPadding2
                                                                          : Stem::kSmall;
    out.recipe.encoder.width = HasWidth(*found) ? encoder.width() : found->width;
    out.recipe.encoder.zero_init_residual = encoder.zero_init_residual();
    // One experiment, however it is spelled.
    if (name == "resnet50x2") out.recipe.encoder.name = "resnet50";
  }

  void Network() {
    Encoder();
    if (s().expander_size() == 0) Bad("expander", "missing; expected 1 to 16 layer widths, such as [1024, 1024, 1024]");
    if (s().expander_size() > 16)
      Bad("expander", "found " + std::to_string(s().expander_size()) + " layers; expected at most 16");
    for (int i = 0; i < s().expander_size(); ++i) {
      Range<std::int64_t>("expander[" + std::to_string(i) + "]", s().expander(i), 1, 65536);
      out.recipe.expander.push_back(s().expander(i));
    }
    out.recipe.expander_norm =
        s().expander_norm() == v1::EXPANDER_NORM_NONE ? ExpanderNorm::kNone : ExpanderNorm::kBatchNorm;
    out.recipe.embedding_norm = s().embedding_norm() == v1::EMBEDDING_NORM_L2    ? EmbeddingNorm::kL2
                                : s().embedding_norm() == v1::EMBEDDING_NORM_STD ? EmbeddingNorm::kStd
                                                                                 : EmbeddingNorm::kRaw;
    if (s().device() == v1::DEVICE_GPU) Bad("device", "this build trains on CPU slots only: write device: cpu");
  }

  void Objective() {
    const v1::LossSpec& loss = s().loss();
    const auto coefficient = [&](const char* field, double value) {
      if (!(value >= 0 && value <= kMost)) Bad(field, "found " + Number(value) + "; expected a number from 0 to 1e12");
    };
    coefficient("loss.lambda", loss.lambda());
    coefficient("loss.mu", loss.mu());
    coefficient("loss.nu", loss.nu());
    Loss& out_loss = out.recipe.loss;
    out_loss.lambda_ = loss.lambda();
    // vicreg: the published code halves mu by averaging both views' hinge, the paper does not, VICRegL halves nu as
    // well.
    switch (loss.convention()) {
      case v1::CONVENTION_PAPER:
        out_loss.convention = Convention::kPaper;
        out_loss.mu_per_view = loss.mu();
        out_loss.nu_per_view = loss.nu();
        break;
      case v1::CONVENTION_VICREGL:
        out_loss.convention = Convention::kVicregl;
        out_loss.mu_per_view = loss.mu() / 2;
        out_loss.nu_per_view = loss.nu() / 2;
        break;
      default:
        out_loss.convention = Convention::kAuthors;
        out_loss.mu_per_view = loss.mu() / 2;
        out_loss.nu_per_view = loss.nu();
    }
    out_loss.form = loss.form() == v1::LOSS_FORM_GRAM         ? LossForm::kGram
                    : loss.form() == v1::LOSS_FORM_COVARIANCE ? LossForm::kCovariance
                                                              : LossForm::kAuto;
  }

  Length CheckLength(const std::string& field, const v1::Length& length, std::int64_t least) {
    if (length.unit_case() == v1::Length::kEpochs) {
      if (!(length.epochs() > 0 && length.epochs() <= 1e6))
        Bad(field, "found " + Number(length.epochs()) + " epochs; expected more than 0, at most 1000000");
      return {0, length.epochs()};
    }
    Range<std::int64_t>(field, length.steps(), least, std::int64_t{1} << 40);
    return {length.steps(), 0};
  }

  void Lengths() {
    const std::size_t problems_before = problems.size();
    if (s().length().unit_case() == v1::Length::UNIT_NOT_SET) {
      Bad("length", "missing; expected {steps: 300} or {epochs: 100}");
    } else {
      out.recipe.length = CheckLength("length", s().length(), 1);
    }
    const bool length_is_fine = problems.size() == problems_before;
    v1::Length& warmup = *s().mutable_schedule()->mutable_warmup();
    if (warmup.unit_case() == v1::Length::UNIT_NOT_SET) {
      if (out.recipe.length.epochs > 0) {
        warmup.set_epochs(out.recipe.length.epochs / 10);
      } else {
        warmup.set_steps(out.recipe.length.steps / 10);
      }
    }
    // Steps and epochs are only comparable once the samples are counted.
    if (given_.schedule().has_warmup() || length_is_fine)
      out.recipe.schedule.warmup = CheckLength("schedule.warmup", warmup, 0);
    const Length &all = out.recipe.length, &rise = out.recipe.schedule.warmup;
    const bool comparable = length_is_fine && warmup.unit_case() == s().length().unit_case();
    if (comparable && (rise.steps > all.steps || rise.epochs > all.epochs)) {
      const auto text = [](const Length& l) {
        return l.epochs > 0 ? Number(l.epochs) + " epochs" : std::to_string(l.steps) + " steps";
      };
      Bad("schedule.warmup",
          "found " + text(rise) + " for a training of " + text(all) + "; expected no more: shorten it");
    }
    const double last = s().schedule().final();
    if (!(last >= 0 && last <= 1))
      Bad("schedule.final", "found " + Number(last) + "; expected a fraction of the peak, 0 to 1");
    out.recipe.schedule.final_fraction = last;
    out.recipe.checkpoint_every = CheckLength("checkpoint.every", s().checkpoint().every(), 1);
    Range("checkpoint.keep", s().checkpoint().keep(), 2, 1000, "the newest and one to fall back on");
    out.recipe.checkpoint_keep = s().checkpoint().keep();
  }

  void Optimizer() {
    const v1::OptimizerSpec& optimizer = s().optimizer();
    static const std::map<std::string, OptimizerKind> kKinds = {{"adamw", OptimizerKind::kAdamW},
                                                                {"larc", OptimizerKind::kLarc},
                                                                {"lars", OptimizerKind::kLars},
                                                                {"sgd", OptimizerKind::kSgd}};
    const std::string& name = optimizer.name();
    const auto rate = [&](const char* field, bool has, double value, const std::string& missing) {
      if (!has) {
        Bad(std::string("optimizer.") + field, "missing; " + missing);
      } else if (!(value > 0 && value <= kMost)) {
        Bad(std::string("optimizer.") + field, "found " + Number(value) + "; expected more than 0, at most 1e12");
      }
    };
    if (name.empty()) {
      Bad("optimizer.name", "missing; expected adamw, larc, lars or sgd");
    } else if (kKinds.count(name) == 0) {
      Bad("optimizer.name", Suggest(name, {"adamw", "larc", "lars", "sgd"}));
    } else if (name == "adamw") {
      rate("lr", optimizer.has_lr(), optimizer.lr(), "adamw needs it");
      if (optimizer.has_base_lr()) Bad("optimizer.base_lr", "adamw takes its rate as it is: write lr instead");
      out.recipe.optimizer = {OptimizerKind::kAdamW, optimizer.lr(), optimizer.weight_decay()};
    } else {
      rate("base_lr", optimizer.has_base_lr(), optimizer.base_lr(),
           name == "lars"
               ? "the paper has rates for batches of 128, 256, 512, 1024, 2048 and 4096 alone, found batch_size " +
                     std::to_string(s().batch_size()) + ": write base_lr"
               : name + " needs it");
      if (optimizer.has_lr()) Bad("optimizer.lr", name + " scales its rate with the batch: write base_lr instead");
      out.recipe.optimizer = {kKinds.at(name), optimizer.base_lr() * static_cast<double>(s().batch_size()) / 256,
                              optimizer.weight_decay()};
    }
    if (name == "larc") {
      rate("eta", optimizer.has_eta(), optimizer.eta(), "");
      out.recipe.optimizer.eta = optimizer.eta();
      out.recipe.optimizer.clip = optimizer.clip();
    } else if (kKinds.count(name) != 0) {
      if (optimizer.has_eta()) Bad("optimizer.eta", name + " has no eta to choose: remove the key, or use larc");
      if (optimizer.has_clip()) Bad("optimizer.clip", name + " has nothing to clip: remove the key, or use larc");
    }
    if (!(optimizer.weight_decay() >= 0 && optimizer.weight_decay() <= kMost)) {
      Bad("optimizer.weight_decay", "found " + Number(optimizer.weight_decay()) + "; expected a number from 0 to 1e12");
    }
  }

  void Evaluation() {
    if (!s().evaluation().has_knn()) return;
    const v1::KnnSpec& knn = s().evaluation().knn();
    out.recipe.knn.enabled = true;
    out.recipe.knn.every = CheckLength("evaluation.knn.every", knn.every(), 1);
    Range("evaluation.knn.k", knn.k(), 1, 1000);
    if (!(knn.temperature() > 0 && knn.temperature() <= kMost)) {
      Bad("evaluation.knn.temperature", "found " + Number(knn.temperature()) + "; expected more than 0, at most 1e12");
    }
    out.recipe.knn.k = knn.k();
    out.recipe.knn.temperature = knn.temperature();
  }

  void Warn() {
    const v1::LossSpec& loss = s().loss();
    const auto warn = [&](const std::string& text) { out.warnings.push_back(text); };
    if (loss.lambda() == 0 || loss.mu() == 0 || loss.nu() == 0) {
      warn(
          "a loss coefficient is 0: without invariance views stay unrelated, without variance embeddings collapse, "
          "without covariance "
          "dimensions repeat each other");
    }
    if (loss.nu() >= loss.mu())
      warn("nu >= mu: the covariance term can pull the spread to zero faster than the variance term holds it");
    if (loss.lambda() != loss.mu())
      warn("lambda != mu: the published results use equal weights for invariance and variance");
    if (s().batch_size() < 128) {
      warn("batch_size " + std::to_string(s().batch_size()) +
           " is small: the covariance term is then mostly sampling noise (published results start at 128)");
    }
    if (s().batch_size() % s().world_size().min() != 0) {
      warn("batch_size " + std::to_string(s().batch_size()) + " does not divide by " +
           std::to_string(s().world_size().min()) + " ranks: exact all the same, but the largest rank sets the pace");
    }
  }

  const v1::JobSpec& given_;
  const Roots& offered_;
  const std::map<std::string, spec::Mark> keys_;
};

}  // namespace

absl::StatusOr<Resolved> Resolve(const v1::JobSpec& spec, const Roots& offered) {
  Resolver resolver(spec, offered);
  resolver.Run();
  if (resolver.problems.empty()) return std::move(resolver.out);
  std::string text;
  for (const Problem& p : resolver.problems) text += (text.empty() ? "" : "\n") + p.field + ": " + p.text;
  return absl::InvalidArgumentError(text);
}

absl::StatusOr<Resolved> ResolveText(std::string_view text, const std::string& filename,
                                     const std::vector<std::string>& sets, const Roots& offered) {
  spec::Parsed parsed = spec::ParseJobWithMarks(text, sets);
  Resolver resolver(parsed.spec, offered, parsed.marks);
  resolver.Run();
  std::vector<Problem> problems = parsed.problems;
  std::set<std::string> said;
  for (const Problem& p : problems) said.insert(p.field);
  for (Problem p : resolver.problems) {
    // A value that could not be read is not also missing, nor is anything of a file that is no YAML at all.
    if (said.count(p.field) != 0 || (parsed.marks.empty() && !parsed.problems.empty())) continue;
    // The nearest thing that stands in the file: the field, or what it belongs to.
    for (std::string path = p.field; !path.empty();
         path = path.substr(0, path.find_last_of('.') == std::string::npos ? 0 : path.find_last_of('.'))) {
      if (const auto mark = parsed.marks.find(path); mark != parsed.marks.end()) {
        p.mark = mark->second;
        break;
      }
    }
    problems.push_back(std::move(p));
  }
  if (problems.empty()) return std::move(resolver.out);
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    return std::pair(a.mark.line, a.mark.column) < std::pair(b.mark.line, b.mark.column);
  });
  return absl::InvalidArgumentError(spec::Format(problems, filename));
}

}  // namespace vicreg::recipe
