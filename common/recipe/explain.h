#pragma once

// What a job will do, before it does it. Pure.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/recipe/resolve.h"

namespace vicreg::recipe {

// Of one network: the job's only one, or a branch's.
struct NetworkExplanation {
  std::string branch;  // "": the only one
  std::int64_t encoder_parameters = 0, expander_parameters = 0, representation_width = 0;
};

struct Explanation {
  std::vector<NetworkExplanation> networks;
  std::int64_t encoder_parameters = 0, expander_parameters = 0;  // of all networks
  std::int64_t predictor_parameters = 0, embedding_width = 0;
  LossForm form = LossForm::kAuto;     // resolved from N and D
  std::int64_t rows_per_rank = 0;      // of the largest rank
  std::int64_t loss_bytes = 0;         // received per rank and step by the loss's collectives
  std::int64_t gradient_bytes = 0;     // reduced per rank and step
  std::int64_t state_bytes = 0;        // parameters, gradients and optimizer state, and the target's parameters
  std::int64_t loss_memory_bytes = 0;  // the loss's buffers, all views
};

Explanation Explain(const Resolved& resolved);

// For people, and as JSON (which also holds the resolved spec).
std::string ExplainText(const Resolved& resolved);
nlohmann::ordered_json ExplainJson(const Resolved& resolved);

}  // namespace vicreg::recipe
