#pragma once

// How good an exported encoder is, beside what costs nothing: raw pixels and the same network untrained.
//
// One protocol for all three: nearest neighbours by cosine (worker/train/eval/knn.h), k = 20, T = 0.07. Bank: the
// training images of the recipe, whole, resized, unshifted. Queries: the first 2,000 test images, as they are and moved
// by a fixed draw of up to `shift` pixels, filled with zeros. Pixels are centred with the bank's mean. The untrained
// network is rebuilt from the recipe's seed; its batch normalisation takes running statistics from one pass over the
// bank, as initial ones (0, 1) mean nothing.

#include <cstdint>
#include <map>
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
  std::string features;           // "raw pixels", "untrained encoder", "trained encoder"
  double as_is = 0, shifted = 0;  // shares, 0..1
};

struct Evaluation {
  std::string job;
  std::int64_t step = 0;
  std::uint32_t bank = 0, queries = 0;
  int k = 20, shift = 4;
  double temperature = 0.07;
  std::vector<Score> scores;
};

// Throws RankError: kData for unusable images, kNoValidCheckpoint for an export that is damaged or does not fit its
// recipe.
Evaluation Evaluate(const EvaluateOptions& options);

std::string Table(const Evaluation& evaluation);
std::string Json(const Evaluation& evaluation);

}  // namespace vicreg::train
