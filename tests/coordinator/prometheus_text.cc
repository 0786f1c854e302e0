#include "prometheus_text.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <sstream>

namespace vicreg::testing {
namespace {

bool IsLabelName(const std::string& name) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
  return !name.empty() && !std::isdigit(static_cast<unsigned char>(name[0])) &&
         std::all_of(name.begin(), name.end(), fits);
}

// As a label's, and colons.
bool IsMetricName(std::string name) {
  std::replace(name.begin(), name.end(), ':', '_');
  return IsLabelName(name);
}

class Reader {
 public:
  PrometheusPage Read(const std::string& text) {
    if (text.empty() || text.back() != '\n') Problem("the last line does not end");
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      ++number_;
      if (line.empty()) continue;
      line[0] == '#' ? Comment(line) : Sample(line);
    }
    return std::move(page_);
  }

 private:
  void Problem(const std::string& what) { page_.problems.push_back("line " + std::to_string(number_) + ": " + what); }

  void Comment(const std::string& line) {
    std::istringstream words(line);
    std::string hash, keyword, name, rest;
    words >> hash >> keyword >> name;
    std::getline(words, rest);
    if (!rest.empty()) rest.erase(0, 1);
    if (keyword != "HELP" && keyword != "TYPE") return;
    if (!IsMetricName(name)) Problem("bad name in " + keyword + ": " + name);
    if (!(keyword == "HELP" ? page_.help : page_.type).emplace(name, rest).second)
      Problem("second " + keyword + " of " + name);
    if (sampled_.contains(name)) Problem(keyword + " of " + name + " after its samples");
    if (keyword == "TYPE" && rest != "counter" && rest != "gauge" && rest != "histogram" && rest != "summary" &&
        rest != "untyped")
      Problem("bad type " + rest);
    if (keyword == "HELP" && !EscapesAreValid(rest, "\\n")) Problem("bad escape in HELP of " + name);
  }

  static bool EscapesAreValid(const std::string& text, const std::string& allowed) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\\' && (++i == text.size() || allowed.find(text[i]) == std::string::npos)) return false;
    }
    return true;
  }

  // NAME="VALUE"[,]... up to the closing brace; `at` is behind it afterwards.
  bool Labels(const std::string& line, std::size_t& at, std::map<std::string, std::string>& labels) {
    while (at < line.size() && line[at] != '}') {
      const std::size_t equals = line.find('=', at);
      if (equals == std::string::npos || equals + 1 >= line.size() || line[equals + 1] != '"') return false;
      const std::string name = line.substr(at, equals - at);
      if (!IsLabelName(name) || name.rfind("__", 0) == 0) Problem("bad label name " + name);
      std::string value;
      for (at = equals + 2; at < line.size() && line[at] != '"'; ++at) {
        if (line[at] != '\\') {
          value += line[at];
          continue;
        }
        if (++at == line.size()) return false;
        if (line[at] != 'n' && line[at] != '"' && line[at] != '\\') return false;
        value += line[at] == 'n' ? '\n' : line[at];
      }
      if (at++ >= line.size()) return false;
      if (!labels.emplace(name, value).second) Problem("label " + name + " twice");
      if (at < line.size() && line[at] == ',') ++at;
    }
    return at++ < line.size();
  }

  void Sample(const std::string& line) {
    PrometheusPage::Sample sample;
    std::size_t at = std::min(line.find_first_of("{ "), line.size());
    sample.name = line.substr(0, at);
    if (!IsMetricName(sample.name)) Problem("bad metric name " + sample.name);
    if (at < line.size() && line[at] == '{' && !Labels(line, ++at, sample.labels))
      return Problem("bad labels: " + line);
    if (at >= line.size() || line[at] != ' ') return Problem("no value: " + line);
    const std::string value = line.substr(at + 1);
    char* end = nullptr;
    sample.value = std::strtod(value.c_str(), &end);
    if (value.empty() || *end != '\0') Problem("bad value " + value);
    Family(sample);
    if (!series_.insert({sample.name, sample.labels}).second) Problem("series twice: " + line);
    page_.samples.push_back(std::move(sample));
  }

  void Family(const PrometheusPage::Sample& sample) {
    std::string family = sample.name;
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      const std::string stem = family.size() > std::string(suffix).size()
                                   ? family.substr(0, family.size() - std::string(suffix).size())
                                   : "";
      if (family.ends_with(suffix) && page_.type.contains(stem) && page_.type[stem] == "histogram") family = stem;
    }
    if (!page_.type.contains(family) || !page_.help.contains(family)) Problem("no HELP and TYPE before " + sample.name);
    if (page_.type[family] == "counter" && (!family.ends_with("_total") || sample.value < 0))
      Problem("not a counter: " + family);
    if (page_.type[family] != "counter" && family.ends_with("_total"))
      Problem(family + " ends in _total and is no counter");
    if (family != newest_ && sampled_.contains(family)) Problem("samples of " + family + " are not in one group");
    newest_ = family;
    sampled_.insert(family);
  }

  PrometheusPage page_;
  int number_ = 0;
  std::string newest_;
  std::set<std::string> sampled_;
  std::set<std::pair<std::string, std::map<std::string, std::string>>> series_;
};

}  // namespace

std::vector<PrometheusPage::Sample> PrometheusPage::Find(const std::string& name,
                                                         const std::map<std::string, std::string>& labels) const {
  std::vector<Sample> found;
  for (const Sample& sample : samples) {
    const bool matches = std::all_of(labels.begin(), labels.end(), [&](const auto& l) {
      return sample.labels.contains(l.first) && sample.labels.at(l.first) == l.second;
    });
    if (sample.name == name && matches) found.push_back(sample);
  }
  return found;
}

PrometheusPage ParsePrometheus(const std::string& text) { return Reader().Read(text); }

}  // namespace vicreg::testing
