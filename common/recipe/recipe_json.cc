#include "common/recipe/recipe_json.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "common/files.h"

namespace vicreg::recipe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kNewest = 5;

const char* Name(Stem stem) {
  switch (stem) {
    case Stem::kSmall:
      return "small";
    case Stem::kStandard:
      return "standard";
    case Stem::kSmallPadding2:
      return "small_padding2";
  }
  return "";
}

const char* Name(DataFormat format) { return format == DataFormat::kIdx ? "idx" : "npy"; }

const char* Name(ExpanderNorm norm) { return norm == ExpanderNorm::kBatchNorm ? "batch_norm" : "none"; }

Json ToJson(const Length& length) {
  if (length.epochs > 0) return {{"epochs", length.epochs}};
  return {{"steps", length.steps}};
}

Length LengthFrom(const Json& json) {
  if (json.contains("epochs")) return {0, json.at("epochs")};
  return {json.at("steps"), 0};
}

Json ToJson(const Encoder& encoder) {
  Json json = {{"name", encoder.name}, {"stem", Name(encoder.stem)}, {"width", encoder.width}};
  if (!encoder.zero_init_residual) json["zero_init_residual"] = false;
  return json;
}

Json ToJson(const Optimizer& optimizer) {
  Json json = {
      {"name", Name(optimizer.kind)}, {"peak_lr", optimizer.peak_lr}, {"weight_decay", optimizer.weight_decay}};
  if (optimizer.kind == OptimizerKind::kLarc) {
    json["eta"] = optimizer.eta;
    json["clip"] = optimizer.clip;
  }
  return json;
}

Json ToJson(const Augmentation& views) { return {{"preset", views.preset}, {"size", views.size}}; }

Json ToJson(const Branch& b) {
  Json json = {{"name", b.name}, {"part", b.part}};
  if (b.shared) {
    json["weights"] = "shared";
  } else {
    json["encoder"] = ToJson(b.encoder);
    json["expander"] = b.expander;
    json["channels"] = b.channels;
  }
  json["mu"] = b.mu;
  json["nu"] = b.nu;
  json["augmentation"] = ToJson(b.augmentation);
  return json;
}

// One network for every view is what the first versions know.
void AddNetwork(const Recipe& r, Json& json) {
  if (r.branches.empty()) {
    json["encoder"] = ToJson(r.encoder);
    json["expander"] = r.expander;
    return;
  }
  for (const Branch& branch : r.branches) json["branches"].push_back(ToJson(branch));
}

Json DataJson(const Recipe& r) {
  Json json = {{"root", r.data.root}, {"path", r.data.path}, {"split", r.data.split}, {"limit", r.data.limit}};
  if (r.branches.empty()) json["channels"] = r.data.channels;
  if (r.data.format != DataFormat::kIdx) {
    json["format"] = Name(r.data.format);
    if (r.branches.empty()) json["part"] = r.data.part;
  }
  return json;
}

Json OtherLossJson(const Loss& loss) {
  Json json = {{"objective", Name(loss.objective)}, {"form", Name(loss.form)}};
  if (loss.objective == Objective::kBarlowTwins) {
    json["redundancy"] = loss.redundancy;
  } else {
    json["predictor"] = loss.predictor;
  }
  if (loss.momentum) json["momentum"] = *loss.momentum;
  const Regularize& regularize = loss.regularize;
  if (regularize.variance != 0 || regularize.covariance != 0) {
    json["regularize"] = {
        {"variance", regularize.variance}, {"covariance", regularize.covariance}, {"on", Name(regularize.on)}};
  }
  return json;
}

// VICReg's needs no name: the first versions know no other.
Json LossJson(const Recipe& r) {
  if (r.loss.objective != Objective::kVicreg) return OtherLossJson(r.loss);
  Json json = {{"convention", Name(r.loss.convention)}, {"lambda", r.loss.lambda_}};
  if (!r.loss.per_view.empty()) {
    for (const ViewWeights& view : r.loss.per_view) json["per_view"].push_back({{"mu", view.mu}, {"nu", view.nu}});
  } else if (r.branches.empty()) {
    json["mu_per_view"] = r.loss.mu_per_view;
    json["nu_per_view"] = r.loss.nu_per_view;
  }
  json["form"] = Name(r.loss.form);
  return json;
}

// The oldest version that can say it.
int Version(const Recipe& r) {
  if (r.loss.objective != Objective::kVicreg) return 5;
  if (r.views != 2 || !r.loss.per_view.empty() || !r.branches.empty() || r.data.format != DataFormat::kIdx) return 4;
  if (r.precision != Precision::kFp32) return 3;
  const bool first = r.encoder.zero_init_residual && r.expander_norm == ExpanderNorm::kBatchNorm &&
                     r.embedding_norm == EmbeddingNorm::kRaw;
  return first ? 1 : 2;
}

Json ToJson(const Recipe& r) {
  Json json = {
      {"version", Version(r)},
      {"seed", r.seed},
      {"data", DataJson(r)},
  };
  AddNetwork(r, json);
  if (r.views != 2 && r.branches.empty()) json["views"] = r.views;
  json["loss"] = LossJson(r);
  json["batch_size"] = r.batch_size;
  json["length"] = ToJson(r.length);
  json["optimizer"] = ToJson(r.optimizer);
  json["schedule"] = {{"warmup", ToJson(r.schedule.warmup)}, {"final", r.schedule.final_fraction}};
  if (r.branches.empty()) json["augmentation"] = ToJson(r.augmentation);
  json["checkpoint"] = {{"every", ToJson(r.checkpoint_every)}, {"keep", r.checkpoint_keep}};
  json["knn"] = {
      {"enabled", r.knn.enabled}, {"every", ToJson(r.knn.every)}, {"k", r.knn.k}, {"temperature", r.knn.temperature}};
  if (r.expander_norm != ExpanderNorm::kBatchNorm) json["expander_norm"] = Name(r.expander_norm);
  if (r.embedding_norm != EmbeddingNorm::kRaw) json["embedding_norm"] = Name(r.embedding_norm);
  if (r.precision != Precision::kFp32) json["precision"] = Name(r.precision);
  if (r.accumulate != 1) json["accumulate"] = r.accumulate;
  return json;
}

template <typename E>
E Parse(const std::string& name, std::initializer_list<E> all) {
  for (const E value : all) {
    if (name == Name(value)) return value;
  }
  throw std::invalid_argument("unknown name \"" + name + "\"");
}

Encoder EncoderFrom(const Json& json) {
  return {json.at("name"),
          Parse(json.at("stem").get<std::string>(), {Stem::kSmall, Stem::kStandard, Stem::kSmallPadding2}),
          json.at("width"), json.value("zero_init_residual", true)};
}

Augmentation AugmentationFrom(const Json& json) { return {json.at("preset"), json.at("size")}; }

Branch BranchFrom(const Json& json, const std::vector<Branch>& before) {
  Branch b;
  if (json.contains("weights")) {
    if (json.at("weights") != "shared" || before.empty())
      throw std::invalid_argument("branch weights " + json.at("weights").dump() +
                                  "; expected \"shared\", and not first");
    b = before.front();
    b.shared = true;
  } else {
    b.encoder = EncoderFrom(json.at("encoder"));
    b.expander = json.at("expander").get<std::vector<std::int64_t>>();
    b.channels = json.at("channels");
  }
  b.name = json.at("name");
  b.part = json.at("part");
  b.mu = json.at("mu");
  b.nu = json.at("nu");
  b.augmentation = AugmentationFrom(json.at("augmentation"));
  return b;
}

void NetworkFrom(const Json& json, Recipe& r) {
  if (json.contains("branches")) {
    for (const Json& branch : json.at("branches")) r.branches.push_back(BranchFrom(branch, r.branches));
    if (r.branches.size() < 2) throw std::invalid_argument("fewer than two branches");
    return;
  }
  r.encoder = EncoderFrom(json.at("encoder"));
  r.expander = json.at("expander").get<std::vector<std::int64_t>>();
  r.views = json.value("views", 2);
  if (r.views < 2) throw std::invalid_argument("fewer than two views");
  r.augmentation = AugmentationFrom(json.at("augmentation"));
}

Data DataFrom(const Json& json, bool branches) {
  Data data;
  data.root = json.at("root");
  data.path = json.at("path");
  data.split = json.at("split");
  data.limit = json.at("limit");
  if (!branches) data.channels = json.at("channels");
  data.format = Parse(json.value("format", std::string("idx")), {DataFormat::kIdx, DataFormat::kNpy});
  if (!branches && data.format != DataFormat::kIdx) data.part = json.at("part");
  return data;
}

Regularize RegularizeFrom(const Json& json) {
  return {json.at("variance"), json.at("covariance"),
          Parse(json.at("on").get<std::string>(), {RegularizeOn::kRaw, RegularizeOn::kL2})};
}

Loss LossFrom(const Json& json, bool branches) {
  Loss loss;
  loss.form = Parse(json.at("form").get<std::string>(), {LossForm::kAuto, LossForm::kGram, LossForm::kCovariance});
  if (json.contains("objective")) {
    loss.objective = Parse(json.at("objective").get<std::string>(),
                           {Objective::kBarlowTwins, Objective::kSimSiam, Objective::kByol});
    if (loss.objective == Objective::kBarlowTwins) {
      loss.redundancy = json.at("redundancy");
    } else {
      loss.predictor = json.at("predictor");
    }
    if (loss.objective == Objective::kByol) loss.momentum = json.at("momentum").get<double>();
    if (json.contains("regularize")) loss.regularize = RegularizeFrom(json.at("regularize"));
    return loss;
  }
  loss.convention = Parse(json.at("convention").get<std::string>(),
                          {Convention::kAuthors, Convention::kPaper, Convention::kVicregl, Convention::kPerView});
  loss.lambda_ = json.at("lambda");
  if (!branches && json.contains("per_view")) {
    for (const Json& view : json.at("per_view")) loss.per_view.push_back({view.at("mu"), view.at("nu")});
  } else if (!branches) {
    loss.mu_per_view = json.at("mu_per_view");
    loss.nu_per_view = json.at("nu_per_view");
  }
  return loss;
}

}  // namespace

const char* Name(Objective objective) {
  switch (objective) {
    case Objective::kVicreg:
      return "vicreg";
    case Objective::kBarlowTwins:
      return "barlow_twins";
    case Objective::kSimSiam:
      return "simsiam";
    case Objective::kByol:
      return "byol";
  }
  return "";
}

const char* Name(RegularizeOn on) { return on == RegularizeOn::kRaw ? "raw" : "l2"; }

const char* Name(Convention convention) {
  switch (convention) {
    case Convention::kAuthors:
      return "authors";
    case Convention::kPaper:
      return "paper";
    case Convention::kVicregl:
      return "vicregl";
    case Convention::kPerView:
      return "per_view";
  }
  return "";
}

const char* Name(LossForm form) {
  switch (form) {
    case LossForm::kAuto:
      return "auto";
    case LossForm::kGram:
      return "gram";
    case LossForm::kCovariance:
      return "covariance";
  }
  return "";
}

const char* Name(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kAdamW:
      return "adamw";
    case OptimizerKind::kLars:
      return "lars";
    case OptimizerKind::kLarc:
      return "larc";
    case OptimizerKind::kSgd:
      return "sgd";
  }
  return "";
}

const char* Name(EmbeddingNorm norm) {
  switch (norm) {
    case EmbeddingNorm::kRaw:
      return "raw";
    case EmbeddingNorm::kL2:
      return "l2";
    case EmbeddingNorm::kStd:
      return "std";
  }
  return "";
}

const char* Name(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kBf16:
      return "bf16";
    case Precision::kFp16:
      return "fp16";
  }
  return "";
}

std::string Serialize(const Recipe& recipe) { return ToJson(recipe).dump(); }

Recipe Deserialize(std::string_view text) {
  try {
    const Json json = Json::parse(text);
    const int version = json.at("version");
    if (version < 1 || version > kNewest) {
      throw std::invalid_argument("recipe version " + std::to_string(version) + "; this build reads 1 to " +
                                  std::to_string(kNewest));
    }
    Recipe r;
    r.seed = json.at("seed");
    NetworkFrom(json, r);
    r.data = DataFrom(json.at("data"), !r.branches.empty());
    r.expander_norm =
        Parse(json.value("expander_norm", std::string("batch_norm")), {ExpanderNorm::kBatchNorm, ExpanderNorm::kNone});
    r.embedding_norm = Parse(json.value("embedding_norm", std::string("raw")),
                             {EmbeddingNorm::kRaw, EmbeddingNorm::kL2, EmbeddingNorm::kStd});
    r.loss = LossFrom(json.at("loss"), !r.branches.empty());
    if (!r.loss.per_view.empty() && r.loss.per_view.size() != static_cast<std::size_t>(r.views)) {
      throw std::invalid_argument("weights of " + std::to_string(r.loss.per_view.size()) + " views for " +
                                  std::to_string(r.views));
    }
    r.batch_size = json.at("batch_size");
    r.length = LengthFrom(json.at("length"));
    const Json& optimizer = json.at("optimizer");
    r.optimizer = {Parse(optimizer.at("name").get<std::string>(),
                         {OptimizerKind::kAdamW, OptimizerKind::kLars, OptimizerKind::kLarc, OptimizerKind::kSgd}),
                   optimizer.at("peak_lr"), optimizer.at("weight_decay")};
    if (r.optimizer.kind == OptimizerKind::kLarc) {
      r.optimizer.eta = optimizer.at("eta");
      r.optimizer.clip = optimizer.at("clip");
    }
    r.schedule = {LengthFrom(json.at("schedule").at("warmup")), json.at("schedule").at("final")};
    r.precision =
        Parse(json.value("precision", std::string("fp32")), {Precision::kFp32, Precision::kBf16, Precision::kFp16});
    r.accumulate = json.value("accumulate", std::int64_t{1});
    r.checkpoint_every = LengthFrom(json.at("checkpoint").at("every"));
    r.checkpoint_keep = json.at("checkpoint").at("keep");
    const Json& knn = json.at("knn");
    r.knn = {knn.at("enabled"), LengthFrom(knn.at("every")), knn.at("k"), knn.at("temperature")};
    return r;
  } catch (const nlohmann::json::exception& error) {
    throw std::invalid_argument(std::string("recipe: ") + error.what());
  }
}

std::string Hash(const Recipe& recipe) {
  Json json = ToJson(recipe);
  json.erase("checkpoint");
  json.erase("knn");
  json.erase("accumulate");
  return Sha256Hex(json.dump());
}

}  // namespace vicreg::recipe
