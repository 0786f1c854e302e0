#include "cli/listing.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>
#include <optional>

#include "cli/text.h"
#include "common/spec/tree.h"

namespace vicreg::cli {
namespace {

using Json = nlohmann::ordered_json;

// "SLOTS(used/all)" -> "slots", "DATA ROOTS" -> "data-roots"
std::string OptionName(const std::string& column) {
  std::string name = column.substr(0, column.find('('));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return c == ' ' ? '-' : static_cast<char>(std::tolower(c)); });
  return name;
}

absl::StatusOr<std::size_t> Find(const Listing& listing, const std::string& option, const std::string& wanted) {
  std::vector<std::string> names;
  for (const Column& column : listing.columns) {
    if (OptionName(column.name) == OptionName(wanted)) return names.size();
    names.push_back(OptionName(column.name));
  }
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  const std::string nearest = spec::Nearest(OptionName(wanted), names);
  return absl::InvalidArgumentError(option + ": no column \"" + wanted + "\"" +
                                    (nearest.empty() ? "" : "; did you mean " + nearest + "?") + " There are: " + all);
}

// Of a number, alone or before a blank, "/" or "%", or of a duration as Duration writes it; nullopt: it is text.
std::optional<double> Magnitude(const std::string& cell) {
  static const std::map<char, double> kUnits = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  const char* at = cell.c_str();
  char* end = nullptr;
  double sum = std::strtod(at, &end);
  if (end == at) return std::nullopt;
  if (const auto first = kUnits.find(*end); first != kUnits.end()) {
    sum *= first->second;
    for (at = end + 1; std::isdigit(static_cast<unsigned char>(*at)) != 0; at = end + 1) {
      const double part = std::strtod(at, &end);
      const auto unit = kUnits.find(*end);
      if (unit == kUnits.end()) return std::nullopt;
      sum += part * unit->second;
    }
    return *at == '\0' || *at == ' ' ? std::optional(sum) : std::nullopt;
  }
  return *end == '\0' || *end == ' ' || *end == '/' || *end == '%' ? std::optional(sum) : std::nullopt;
}

bool IsEmpty(const std::string& cell) { return cell.empty() || cell == "-"; }

absl::Status Sort(Listing& listing, std::string by) {
  if (by.empty()) return absl::OkStatus();
  const bool down = by.front() == '-';
  if (down) by.erase(0, 1);
  ASSIGN_OR_RETURN(const std::size_t column, Find(listing, "--sort", by));
  const bool numbers = std::all_of(listing.items.begin(), listing.items.end(), [&](const Item& item) {
    return IsEmpty(item.cells[column]) || Magnitude(item.cells[column]);
  });
  std::stable_sort(listing.items.begin(), listing.items.end(), [&](const Item& one, const Item& other) {
    const std::string &a = one.cells[column], &b = other.cells[column];
    // What has no value comes last either way.
    if (IsEmpty(a) || IsEmpty(b)) return !IsEmpty(a) && IsEmpty(b);
    if (numbers) return down ? *Magnitude(b) < *Magnitude(a) : *Magnitude(a) < *Magnitude(b);
    return down ? b < a : a < b;
  });
  return absl::OkStatus();
}

absl::StatusOr<std::string> InTable(const Listing& listing, const Form& form, bool headers) {
  std::vector<std::size_t> shown;
  for (const std::string& name : form.columns) {
    ASSIGN_OR_RETURN(const std::size_t column, Find(listing, "--columns", name));
    shown.push_back(column);
  }
  for (std::size_t i = 0; form.columns.empty() && i < listing.columns.size(); ++i) {
    if (!listing.columns[i].wide || form.output == "wide") shown.push_back(i);
  }
  std::vector<std::string> header;
  for (const std::size_t i : shown) header.push_back(listing.columns[i].name);
  std::vector<std::vector<std::string>> rows;
  for (const Item& item : listing.items) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const std::size_t i : shown) row.push_back(item.cells[i]);
  }
  return Table(headers ? header : std::vector<std::string>{}, rows);
}

// A reader must not take it for a number, a truth value or nothing.
bool IsPlain(const std::string& text) {
  static const std::string kOther = "_-./:@=,() ";
  if (text.empty() || std::isalpha(static_cast<unsigned char>(text.front())) == 0 || text.back() == ' ') return false;
  if (text.back() == ':' || text.find(": ") != std::string::npos) return false;
  if (YAML::Node value(text); text.size() <= 5) {  // yes, no, on, off, true, false, null, y, n
    bool truth = false;
    if (YAML::convert<bool>::decode(value, truth) || OptionName(text) == "null") return false;
  }
  return std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || kOther.find(c) != std::string::npos;
  });
}

void Emit(YAML::Emitter& out, const Json& json) {
  if (json.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, value] : json.items()) {
      out << YAML::Key << key << YAML::Value;
      Emit(out, value);
    }
    out << YAML::EndMap;
  } else if (json.is_array()) {
    if (json.empty()) out << YAML::Flow;
    out << YAML::BeginSeq;
    for (const Json& value : json) Emit(out, value);
    out << YAML::EndSeq;
  } else if (json.is_null()) {
    out << YAML::Null;
  } else if (!json.is_string()) {
    out << json.dump();  // numbers with all their digits
  } else if (const auto& text = json.get_ref<const std::string&>(); IsPlain(text)) {
    out << text;
  } else {
    out << YAML::DoubleQuoted << text;
  }
}

}  // namespace

std::string Written(const Json& json, const std::string& output) {
  if (output != "yaml") return json.dump(2) + "\n";
  YAML::Emitter out;
  Emit(out, json);
  return std::string(out.c_str()) + "\n";
}

Json Versioned(const Listing& listing) {
  Json json = {{"version", "v1"}, {listing.key, Json::array()}};
  for (const Item& item : listing.items) json[listing.key].push_back(item.json);
  return json;
}

absl::StatusOr<std::string> Render(Listing listing, const Form& form, bool headers) {
  RETURN_IF_ERROR(Sort(listing, form.sort));
  if (form.output == "json" || form.output == "yaml") return Written(Versioned(listing), form.output);
  if (form.output != "name" && form.output != "jsonl") return InTable(listing, form, headers);
  std::string text;
  for (const Item& item : listing.items) text += (form.output == "name" ? item.name : item.json.dump()) + "\n";
  return text;
}

}  // namespace vicreg::cli
