// How a job is trained: lengths, optimizer, evaluation; and what to warn of.

#include "common/recipe/resolver.h"

namespace vicreg::recipe {

Length Resolver::CheckLength(const std::string& field, const v1::Length& length, std::int64_t least) {
  if (length.unit_case() == v1::Length::kEpochs) {
    if (!(length.epochs() > 0 && length.epochs() <= 1e6))
      Bad(field, "found " + Number(length.epochs()) + " epochs; expected more than 0, at most 1000000");
    return {0, length.epochs()};
  }
  Range<std::int64_t>(field, length.steps(), least, std::int64_t{1} << 40);
  return {length.steps(), 0};
}

void Resolver::Lengths() {
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

void Resolver::Optimizer() {
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

void Resolver::Evaluation() {
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

void Resolver::Precision() {
  out.recipe.precision = s().precision() == v1::PRECISION_BF16   ? recipe::Precision::kBf16
                         : s().precision() == v1::PRECISION_FP16 ? recipe::Precision::kFp16
                                                                 : recipe::Precision::kFp32;
  if (s().precision() == v1::PRECISION_FP16 && s().device() != v1::DEVICE_GPU)
    Bad("precision", "found fp16 on CPU slots; expected fp32 or bf16 there, or device: gpu");
}

void Resolver::Warn() {
  WarnOfObjective();
  const auto warn = [&](const std::string& text) { out.warnings.push_back(text); };
  if (s().batch_size() < 128) {
    warn("batch_size " + std::to_string(s().batch_size()) +
         " is small: the covariance term is then mostly sampling noise (published results start at 128)");
  }
  if (s().batch_size() % s().world_size().min() != 0) {
    warn("batch_size " + std::to_string(s().batch_size()) + " does not divide by " +
         std::to_string(s().world_size().min()) + " ranks: exact all the same, but the largest rank sets the pace");
  }
}

}  // namespace vicreg::recipe
