#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace vicreg::testing {

// What a strict reader of the Prometheus text format 0.0.4 finds in a page.
struct PrometheusPage {
  struct Sample {
    std::string name;
    std::map<std::string, std::string> labels;
    double value = 0;
  };
  std::map<std::string, std::string> help, type;  // by family
  std::vector<Sample> samples;
  std::vector<std::string> problems;  // with line numbers; empty: the page is valid

  std::vector<Sample> Find(const std::string& name, const std::map<std::string, std::string>& labels = {}) const;
};

PrometheusPage ParsePrometheus(const std::string& text);

}  // namespace vicreg::testing
