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
  std::map<std::string, std::vector<NamedTensor>> encoders;  // by branch
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
  const std::string facts = ReadPart(folder, "export.json");
  try {
    const nlohmann::json json = nlohmann::json::parse(facts);
    Export exported{json.at("job"), json.at("step"), recipe::Deserialize(json.at("recipe").dump()), {}};
    for (const recipe::Branch& branch : recipe::Networks(exported.recipe)) {
      const std::string name = recipe::EncoderFile(branch.name), weights = ReadPart(folder, name);
      const auto expected = json.at("files").at(name).at("sha256").get<std::string>();
      if (const std::string found = Sha256Hex(weights); found != expected)
        Invalid(folder, name + " has hash " + found + "; export.json expects " + expected);
      exported.encoders[branch.name] = ParseSafetensors(weights);
    }
    return exported;
  } catch (const nlohmann::json::exception& error) {
    Invalid(folder, std::string("export.json: ") + error.what());
  } catch (const std::invalid_argument& error) {
    Invalid(folder, error.what());
  }
}

SampleSet Labelled(const std::string& root, const recipe::Recipe& recipe, const std::string& split, std::int64_t limit,
                   const SampleSet* like) {
  SampleSet set = OpenSamples(root, recipe, split, limit, like);
  if (set.labels.empty())
    throw RankError(ExitReason::kData, "split " + split + " in " + root + " has no labels; accuracy needs them");
  return set;
}

// One branch of the job, which is its view number `view`.
class Comparison {
 public:
  Comparison(const Export& exported, const SampleSet& bank, const SampleSet& queries, int view, int shift)
      : exported_(exported),
        branch_(recipe::Views(exported.recipe).at(static_cast<std::size_t>(view))),
        bank_(bank),
        queries_(queries),
        view_(view),
        shift_(shift) {}

  BranchScores Scores() { return {branch_.name, {Raw(), Untrained(), Trained()}}; }

 private:
  Score Raw() {
    const auto flat = [&](const SampleSet& set, int shift) {
      return EvaluationSamples(Of(set), 0, set.count, shift).flatten(1);
    };
    const at::Tensor bank = flat(bank_, 0), mean = bank.mean(0, true);
    return Both(Of(bank_).shape().size() == 3 ? "raw pixels" : "raw values", bank - mean, flat(queries_, 0) - mean,
                flat(queries_, shift_) - mean);
  }

  Score Untrained() {
    Network network(exported_.recipe);
    for (std::uint32_t i = 0; i + 2 <= bank_.count; i += kBlock)
      network.Encode(EvaluationSamples(Of(bank_), i, std::min(i + kBlock, bank_.count)), view_, group_);
    return Encoded("untrained encoder", network);
  }

  Score Trained() {
    Network network(exported_.recipe);
    try {
      CopyInto(exported_.encoders.at(branch_.name), EncoderTensors(network.parameters().all(), branch_.name));
    } catch (const std::invalid_argument& error) {
      throw RankError(ExitReason::kNoValidCheckpoint,
                      recipe::EncoderFile(branch_.name) + " does not fit export.json: " + error.what());
    }
    return Encoded("trained encoder", network);
  }

  const View& Of(const SampleSet& set) const { return *set.views[static_cast<std::size_t>(view_)]; }

  Score Encoded(const std::string& name, const Network& network) {
    return Both(name, Represent(network, bank_, view_, group_), Represent(network, queries_, view_, group_),
                Represent(network, queries_, view_, group_, shift_));
  }

  Score Both(const std::string& name, const at::Tensor& bank, const at::Tensor& as_is, const at::Tensor& shifted) {
    const Evaluation protocol;
    const auto accuracy = [&](const at::Tensor& queries) {
      return KnnAccuracy(bank, bank_.labels, queries, queries_.labels, protocol.k, protocol.temperature);
    };
    Score score{name, accuracy(as_is), std::nullopt};
    if (Of(bank_).shape().size() > 1) score.shifted = accuracy(shifted);
    return score;
  }

  const Export& exported_;
  const recipe::Branch branch_;
  const SampleSet& bank_;
  const SampleSet& queries_;
  const int view_, shift_;
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
  const SampleSet bank = Labelled(root->second, exported.recipe, data.split, data.limit, nullptr),
                  queries = Labelled(root->second, exported.recipe, "test", kMaxQueries, &bank);
  Evaluation result;
  result.job = exported.job;
  result.step = exported.step;
  result.bank = bank.count;
  result.queries = queries.count;
  result.shift = options.shift;
  const std::vector<recipe::Branch> views = recipe::Views(exported.recipe);
  for (std::size_t v = 0; v < views.size(); ++v) {
    if (!views[v].shared)
      result.branches.push_back(Comparison(exported, bank, queries, static_cast<int>(v), options.shift).Scores());
  }
  return result;
}

std::string Table(const Evaluation& e) {
  char line[200];
  std::string text;
  std::snprintf(line, sizeof line,
                "%d-NN accuracy in %% (T = %.2f): %u test samples against %u training samples, step %lld\n", e.k,
                e.temperature, e.queries, e.bank, static_cast<long long>(e.step));
  text += line;
  for (const BranchScores& branch : e.branches) {
    const Score &raw = branch.scores.front(), &trained = branch.scores.back();
    text += branch.branch.empty() ? "\n" : "\nbranch " + branch.branch + "\n";
    std::snprintf(line, sizeof line, raw.shifted ? "%-20s %8s  shifted by up to %d\n" : "%-20s %8s\n", "features",
                  "as is", e.shift);
    text += line;
    for (const Score& score : branch.scores) {
      std::snprintf(line, sizeof line, score.shifted ? "%-20s %8.1f  %8.1f\n" : "%-20s %8.1f\n", score.features.c_str(),
                    100 * score.as_is, 100 * score.shifted.value_or(0));
      text += line;
    }
    if (!raw.shifted) continue;
    std::snprintf(line, sizeof line, "\n%s lose %.1f points when samples move; the trained encoder loses %.1f.\n",
                  raw.features == "raw pixels" ? "Raw pixels" : "Raw values", 100 * (raw.as_is - *raw.shifted),
                  100 * (trained.as_is - *trained.shifted));
    text += line;
  }
  return text;
}

std::string Json(const Evaluation& e) {
  nlohmann::ordered_json json = {
      {"job", e.job},   {"step", e.step},       {"k", e.k},        {"temperature", e.temperature},
      {"bank", e.bank}, {"queries", e.queries}, {"shift", e.shift}};
  for (const BranchScores& branch : e.branches) {
    for (const Score& score : branch.scores) {
      nlohmann::ordered_json one;
      if (!branch.branch.empty()) one["branch"] = branch.branch;
      one["features"] = score.features;
      one["as_is"] = score.as_is;
      if (score.shifted) one["shifted"] = *score.shifted;
      json["scores"].push_back(one);
    }
  }
  return json.dump();
}

}  // namespace vicreg::train
