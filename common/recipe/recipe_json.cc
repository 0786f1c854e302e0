#include "common/recipe/recipe_json.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "common/files.h"

namespace vicreg::recipe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kNewest = 3;

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

// The oldest version that can say it.
int Version(const Recipe& r) {
  if (r.precision != Precision::kFp32) return 3;
  const bool first = r.encoder.zero_init_residual && r.expander_norm == ExpanderNorm::kBatchNorm &&
                     r.embedding_norm == EmbeddingNorm::kRaw;
  return first ? 1 : 2;
}

Json ToJson(const Recipe& r) {
  Json json = {
      {"version", Version(r)},
      {"seed", r.seed},
      {"data",
       {{"root", r.data.root},
        {"path", r.data.path},
        {"split", r.data.split},
        {"limit", r.data.limit},
        {"channels", r.data.channels}}},
      {"encoder", ToJson(r.encoder)},
      {"expander", r.expander},
      {"loss",
       {{"convention", Name(r.loss.convention)},
        {"lambda", r.loss.lambda_},
        {"mu_per_view", r.loss.mu_per_view},
        {"nu_per_view", r.loss.nu_per_view},
        {"form", Name(r.loss.form)}}},
      {"batch_size", r.batch_size},
      {"length", ToJson(r.length)},
      {"optimizer", ToJson(r.optimizer)},
      {"schedule", {{"warmup", ToJson(r.schedule.warmup)}, {"final", r.schedule.final_fraction}}},
      {"augmentation", {{"preset", r.augmentation.preset}, {"size", r.augmentation.size}}},
      {"checkpoint", {{"every", ToJson(r.checkpoint_every)}, {"keep", r.checkpoint_keep}}},
      {"knn",
       {{"enabled", r.knn.enabled},
        {"every", ToJson(r.knn.every)},
        {"k", r.knn.k},
        {"temperature", r.knn.temperature}}},
  };
  if (r.expander_norm != ExpanderNorm::kBatchNorm) json["expander_norm"] = Name(r.expander_norm);
  if (r.embedding_norm != EmbeddingNorm::kRaw) json["embedding_norm"] = Name(r.embedding_norm);
  if (r.precision != Precision::kFp32) json["precision"] = Name(r.precision);
  return json;
}

template <typename E>
E Parse(const std::string& name, std::initializer_list<E> all) {
  for (const E value : all) {
    if (name == Name(value)) return value;
  }
  throw std::invalid_argument("unknown name \"" + name + "\"");
}

}  // namespace

const char* Name(Convention convention) {
  switch (convention) {
    case Convention::kAuthors:
      return "authors";
    case Convention::kPaper:
      return "paper";
    case Convention::kVicregl:
      return "vicregl";
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
    const Json& data = json.at("data");
    r.data = {data.at("root"), data.at("path"), data.at("split"), data.at("limit"), data.at("channels")};
    const Json& encoder = json.at("encoder");
    r.encoder = {encoder.at("name"),
                 Parse(encoder.at("stem").get<std::string>(), {Stem::kSmall, Stem::kStandard, Stem::kSmallPadding2}),
                 encoder.at("width"), encoder.value("zero_init_residual", true)};
    r.expander = json.at("expander").get<std::vector<std::int64_t>>();
    r.expander_norm =
        Parse(json.value("expander_norm", std::string("batch_norm")), {ExpanderNorm::kBatchNorm, ExpanderNorm::kNone});
    r.embedding_norm = Parse(json.value("embedding_norm", std::string("raw")),
                             {EmbeddingNorm::kRaw, EmbeddingNorm::kL2, EmbeddingNorm::kStd});
    const Json& loss = json.at("loss");
    r.loss = {Parse(loss.at("convention").get<std::string>(),
                    {Convention::kAuthors, Convention::kPaper, Convention::kVicregl}),
              loss.at("lambda"), loss.at("mu_per_view"), loss.at("nu_per_view"),
              Parse(loss.at("form").get<std::string>(), {LossForm::kAuto, LossForm::kGram, LossForm::kCovariance})};
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
    r.augmentation = {json.at("augmentation").at("preset"), json.at("augmentation").at("size")};
    r.precision =
        Parse(json.value("precision", std::string("fp32")), {Precision::kFp32, Precision::kBf16, Precision::kFp16});
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
  return Sha256Hex(json.dump());
}

}  // namespace vicreg::recipe
