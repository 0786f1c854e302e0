#include "coordinator/telemetry/verdict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>

namespace vicreg::telemetry {
namespace {

constexpr std::size_t kWindow = 20;
constexpr std::int64_t kGrace = 50;  // steps
constexpr double kCollapsedStd = 0.1, kUnrelated = 0.75, kSameDimensions = 0.5;

// Of the newest window. A value that is not finite says nothing (mismatch is 0/0 once every embedding is the same): it
// is left out. No value left: NaN, which no rule matches.
double Median(const std::vector<v1::MetricRow>& rows, const std::function<double(const v1::MetricRow&)>& value) {
  std::vector<double> values;
  for (std::size_t i = 0; i < std::min(kWindow, rows.size()); ++i) {
    if (const double v = value(rows[i]); std::isfinite(v)) values.push_back(v);
  }
  if (values.empty()) return std::nan("");
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace

Verdict Judge(const std::vector<v1::MetricRow>& rows) {
  if (rows.empty()) return {"warming_up", "no step yet"};
  for (const v1::MetricRow& row : rows) {
    if (!std::isfinite(row.loss()))
      return {"diverging", "the loss of step " + std::to_string(row.step()) + " is not finite"};
  }
  const std::int64_t step = rows.front().step();
  if (step < kGrace) return {"warming_up", "verdicts start at step 50; this is step " + std::to_string(step)};
  if (const double spread = Median(rows, [](const auto& r) { return r.z_std_mean(); }); spread < kCollapsedStd) {
    return {"collapsed", "the mean standard deviation of the embedding is " + Number(spread) +
                             ", below 0.1: raise the weight of the variance term, or lower the learning rate"};
  }
  if (const double mismatch = Median(rows, [](const auto& r) { return r.mismatch(); }); mismatch > kUnrelated) {
    return {"not_invariant",
            "the two views differ by " + Number(mismatch) +
                " of what unrelated samples would, above 0.75: raise the weight of the invariance term"};
  }
  // Embeddings that vary but say one thing over and over (the paper's informational collapse).
  if (const double redundancy = Median(rows, [](const auto& r) { return r.redundancy(); });
      redundancy > kSameDimensions) {
    return {"redundant", "the mean squared correlation between dimensions of the embedding is " + Number(redundancy) +
                             ", above 0.5: raise the weight of the covariance term"};
  }
  return {"healthy", "spread " + Number(Median(rows, [](const auto& r) { return r.z_std_mean(); })) + ", mismatch " +
                         Number(Median(rows, [](const auto& r) { return r.mismatch(); })) + " over 20 steps"};
}

}  // namespace vicreg::telemetry
