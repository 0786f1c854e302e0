// vicreg-verdict: what the service would say of a run. Reads the JSON lines of `vicreg-train run` on standard input,
// prints the name of the verdict and its sentence.

#include "coordinator/telemetry/verdict.h"

#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kRows = 40;  // as many as a verdict looks at

// JSON has no NaN: a number that is not finite was written as null.
double Number(const nlohmann::json& row, const char* name) {
  const nlohmann::json& value = row.at(name);
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

}  // namespace

int main() {
  std::vector<vicreg::v1::MetricRow> newest_first;
  try {
    for (std::string line; std::getline(std::cin, line);) {
      const nlohmann::json json = nlohmann::json::parse(line);
      vicreg::v1::MetricRow row;
      row.set_step(json.at("step"));
      row.set_loss(Number(json, "loss"));
      row.set_z_std_mean(Number(json, "z_std_mean"));
      row.set_mismatch(Number(json, "mismatch"));
      row.set_redundancy(Number(json, "redundancy"));
      newest_first.insert(newest_first.begin(), row);
      if (newest_first.size() > kRows) newest_first.pop_back();
    }
  } catch (const nlohmann::json::exception& error) {
    std::cerr << "error: standard input: " << error.what() << "; expected the lines of vicreg-train run\n";
    return 2;
  }
  const auto verdict = vicreg::telemetry::Judge(newest_first);
  std::cout << verdict.name << "\n" << verdict.sentence << "\n";
}
