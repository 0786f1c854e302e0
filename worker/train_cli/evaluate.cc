#include "worker/train_cli/evaluate.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "common/files.h"
#include "common/recipe/recipe_json.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/error.h"
#include "worker/train/eval/knn.h"
#include "worker/train/model/network.h"

namespace vicreg::train {
namespace {

constexpr std::int64_t kMaxQueries = 2000;
constexpr std::uint32_t kBlock = 256;

struct Export {
  std::string job;
  std::int64_t step = 0;
  recipe::Recipe recipe;
  std::vector<NamedTensor> encoder;
};

[[noreturn]] void Invalid(const std::string& folder, const std::string& text) {
  throw RankError(ExitReason::kNoValidCheckpoint, "export " + folder + ": " + text);
}

std::string ReadPart(const std::string& folder, const std::string& name) {
  auto bytes = ReadFile(folder + "/" + name);
  if (!bytes.ok()) Invalid(folder, name + " cannot be read: " + std::string(bytes.status().message()));
  return *std::move(bytes);
}

Export Open(const std::string& folder) {
  const std::string facts = ReadPart(folder, "export.json"), weights = ReadPart(folder, "encoder.safetensors");
  try {
    const nlohmann::json json = nlohmann::json::parse(facts);
    if (const std::string found = Sha256Hex(weights); found != json.at("encoder_sha256").get<std::string>()) {
      Invalid(folder, "encoder.safetensors has hash " + found + "; export.json expects " +
                          json.at("encoder_sha256").get<std::string>());
    }
    return {json.at("job"), json.at("step"), recipe::Deserialize(json.at("recipe").dump()), ParseSafetensors(weights)};
  } catch (const nlohmann::json::exception& error) {
    Invalid(folder, std::string("export.json: ") + error.what());
  } catch (const std::invalid_argument& error) {
    Invalid(folder, error.what());
  }
}

ImageSet Labelled(const std::string& root, const recipe::Data& data, const std::string& split, std::int64_t limit) {
  ImageSet set = ReadIdx(root, data.path, split, limit);
  if (set.labels.empty())
    throw RankError(ExitReason::kData, "split " + split + " in " + root + " has no labels; accuracy needs them");
  return set;
}

class Comparison {
 public:
  Comparison(const Export& exported, const ImageSet& bank, const ImageSet& queries, int shift)
      : recipe_(exported.recipe), bank_(bank), queries_(queries), shift_(shift) {}

  Score Pixels() {
    const int size = recipe_.augmentation.size;
    const auto flat = [&](const ImageSet& set, int shift) {
      return EvaluationImages(set, 0, set.count, size, shift).flatten(1);
    };
    const at::Tensor bank = flat(bank_, 0), mean = bank.mean(0, true);
    return Both("raw pixels", bank - mean, flat(queries_, 0) - mean, flat(queries_, shift_) - mean);
  }

  Score Untrained() {
    Network network(recipe_);
    for (std::uint32_t i = 0; i + 2 <= bank_.count; i += kBlock) {
      network.Encode(EvaluationImages(bank_, i, std::min(i + kBlock, bank_.count), recipe_.augmentation.size), 0,
                     group_);
    }
    return Encoded("untrained encoder", network);
  }

  Score Trained(const Export& exported) {
    Network network(recipe_);
    try {
      CopyInto(exported.encoder, EncoderTensors(network.parameters().all(), ""));
    } catch (const std::invalid_argument& error) {
      throw RankError(ExitReason::kNoValidCheckpoint,
                      std::string("encoder.safetensors does not fit export.json: ") + error.what());
    }
    return Encoded("trained encoder", network);
  }

 private:
  Score Encoded(const std::string& name, const Network& network) {
    const int size = recipe_.augmentation.size;
    return Both(name, Represent(network, bank_, size, group_), Represent(network, queries_, size, group_),
                Represent(network, queries_, size, group_, shift_));
  }

  Score Both(const std::string& name, const at::Tensor& bank, const at::Tensor& as_is, const at::Tensor& shifted) {
    const Evaluation protocol;
    const auto accuracy = [&](const at::Tensor& queries) {
      return KnnAccuracy(bank, bank_.labels, queries, queries_.labels, protocol.k, protocol.temperature);
    };
    return {name, accuracy(as_is), accuracy(shifted)};
  }

  const recipe::Recipe& recipe_;
  const ImageSet& bank_;
  const ImageSet& queries_;
  const int shift_;
  Group group_;
};

}  // namespace

Evaluation Evaluate(const EvaluateOptions& options) {
  at::set_num_threads(std::max(options.threads, 1));
  const at::NoGradGuard no_grad;
  const Export exported = Open(options.export_folder);
  const recipe::Data& data = exported.recipe.data;
  const auto root = options.data_roots.find(data.root);
  if (root == options.data_roots.end()) {
    throw RankError(ExitReason::kData, "the export was trained on data root " + data.root +
                                           ", which is not given: add --data-root " + data.root + "=PATH");
  }
  const ImageSet bank = Labelled(root->second, data, data.split, data.limit),
                 queries = Labelled(root->second, data, "test", kMaxQueries);
  Comparison comparison(exported, bank, queries, options.shift);
  Evaluation result;
  result.job = exported.job;
  result.step = exported.step;
  result.bank = bank.count;
  result.queries = queries.count;
  result.shift = options.shift;
  result.scores = {comparison.Pixels(), comparison.Untrained(), comparison.Trained(exported)};
  return result;
}

std::string Table(const Evaluation& e) {
  char line[160];
  std::string text;
  std::snprintf(line, sizeof line,
                "%d-NN accuracy in %% (T = %.2f): %u test images against %u training images, step %lld\n\n", e.k,
                e.temperature, e.queries, e.bank, static_cast<long long>(e.step));
  text += line;
  std::snprintf(line, sizeof line, "%-20s %8s  shifted by up to %d px\n", "features", "as is", e.shift);
  text += line;
  for (const Score& score : e.scores) {
    std::snprintf(line, sizeof line, "%-20s %8.1f  %8.1f\n", score.features.c_str(), 100 * score.as_is,
                  100 * score.shifted);
    text += line;
  }
  const Score &pixels = e.scores.front(), &trained = e.scores.back();
  std::snprintf(line, sizeof line,
                "\nRaw pixels are strong while the clothes are centred and lose %.1f points when they move; the "
                "trained encoder loses %.1f.\n",
                100 * (pixels.as_is - pixels.shifted), 100 * (trained.as_is - trained.shifted));
  return text + line;
}

std::string Json(const Evaluation& e) {
  nlohmann::ordered_json json = {
      {"job", e.job},   {"step", e.step},       {"k", e.k},        {"temperature", e.temperature},
      {"bank", e.bank}, {"queries", e.queries}, {"shift", e.shift}};
  for (const Score& score : e.scores)
    json["scores"].push_back({{"features", score.features}, {"as_is", score.as_is}, {"shifted", score.shifted}});
  return json.dump();
}

}  // namespace vicreg::train
