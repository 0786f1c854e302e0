#pragma once

// How good exported encoders are, beside what costs nothing: raw pixels (values) and the same network untrained. Each
// branch of the job on its own.
//
// One protocol for all three: nearest neighbours by cosine (worker/train/eval/knn.h), k = 20, T = 0.07. Bank: the
// training samples of the recipe, whole, resized, unshifted. Queries: the first 2,000 test samples, as they are and
// moved by a fixed draw of up to `shift` pixels (values of a waveform), filled with zeros. Raw values are centred with
// the bank's mean. The untrained network is rebuilt from the recipe's seed; its batch normalisation takes running
// statistics from one pass over the bank, as initial ones (0, 1) mean nothing.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace vicreg::train {

struct EvaluateOptions {
  std::string export_folder;
  std::map<std::string, std::string> data_roots;  // name -> folder
  int shift = 4;
  int threads = 1;
};

struct Score {
  std::string features;           // "raw pixels" or "raw values", "untrained encoder", "trained encoder"
  double as_is = 0;               // share, 0..1
  std::optional<double> shifted;  // likewise; vectors have no place to move to
};

struct BranchScores {
  std::string branch;  // "": the only network of its job
  std::vector<Score> scores;
};

struct Evaluation {
  std::string job;
  std::int64_t step = 0;
  std::uint32_t bank = 0, queries = 0;
  int k = 20, shift = 4;
  double temperature = 0.07;
  std::vector<BranchScores> branches;
};

// Throws RankError: kData for unusable samples, kNoValidCheckpoint for an export that is damaged or does not fit its
// recipe.
Evaluation Evaluate(const EvaluateOptions& options);

std::string Table(const Evaluation& evaluation);
std::string Json(const Evaluation& evaluation);

}  // namespace vicreg::train
