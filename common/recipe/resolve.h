#pragma once

// JobSpec -> Recipe: presets, defaults, validation with every problem at once. Pure; thread-safe.

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/recipe/recipe.h"
#include "common/spec/spec.h"
#include "common/status.h"
#include "vicreg/v1/job.pb.h"

namespace vicreg::recipe {

struct Resolved {
  v1::JobSpec spec;  // every default filled in
  Recipe recipe;
  std::string hash;                   // names the experiment: Hash(recipe)
  std::vector<std::string> warnings;  // a sentence each
};

// What the cluster's workers offer; absent: not known, so not checked.
struct Offers {
  std::set<std::string> roots;
  bool gpus = false;
  std::set<std::string> labels = {};
};
using Offered = std::optional<Offers>;

// InvalidArgument: one line "field: problem" each.
absl::StatusOr<Resolved> Resolve(const v1::JobSpec& spec, const Offered& offered = std::nullopt);

// The whole way from a job file. InvalidArgument: every problem of form and of value, "file:line:column: field:
// problem".
absl::StatusOr<Resolved> ResolveText(std::string_view text, const std::string& filename,
                                     const std::vector<std::string>& sets = {}, const Offered& offered = std::nullopt);

}  // namespace vicreg::recipe
