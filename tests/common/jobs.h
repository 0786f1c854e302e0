#pragma once

// One valid job file and what the resolver says to overrides of single keys.

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "common/recipe/resolve.h"

namespace vicreg::recipe {

using Sets = std::vector<std::string>;

// Valid, and nothing more than what has no default.
inline constexpr char kJob[] = R"(
name: job
data: {root: images}
encoder: {name: tiny}
expander: [64, 32]
batch_size: 256
length: 100 steps
optimizer: {name: adamw, lr: 1.0e-3}
)";

inline Resolved Must(const std::string& text, const Sets& sets = {}) {
  auto resolved = ResolveText(text, "job", sets);
  EXPECT_TRUE(resolved.ok()) << testing::PrintToString(sets) << "\n" << resolved.status();
  return resolved.ok() ? *std::move(resolved) : Resolved{};
}

inline std::vector<std::string> Lines(const absl::Status& status) {
  std::vector<std::string> lines;
  std::istringstream stream{std::string(status.message())};
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

inline std::vector<std::string> ProblemsOf(const std::string& text, const Sets& sets = {}) {
  const auto resolved = ResolveText(text, "job", sets);
  EXPECT_TRUE(resolved.ok() || absl::IsInvalidArgument(resolved.status())) << resolved.status();
  return Lines(resolved.status());
}

}  // namespace vicreg::recipe
