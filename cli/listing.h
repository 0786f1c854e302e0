#pragma once

// Answers that list things of one kind (jobs, nodes, queues): how they are asked for, sorted and written. Pure.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/status.h"

namespace vicreg::cli {

struct Column {
  std::string name;   // as in the table's first line; options may write it in lower case, without "(...)"
  bool wide = false;  // shown by -o wide, or when it is named
};

struct Item {
  std::string name;                // of -o name
  std::vector<std::string> cells;  // one for each column
  nlohmann::ordered_json json;
};

struct Listing {
  std::string key;  // of the JSON array
  std::vector<Column> columns;
  std::vector<Item> items;
};

// What the options -o, --columns and --sort say.
struct Form {
  std::string output = "table";      // table, wide, json, jsonl, yaml, name
  std::vector<std::string> columns;  // of a table; empty: all that are not wide
  std::string sort;                  // a column, "-" before it: the largest first; empty: as they come
};

// InvalidArgument: no such column; names the nearest. A column of numbers or durations is sorted as such ("9" before
// "10", "50s" before "2m"), others as text; equals keep their order.
absl::StatusOr<std::string> Render(Listing listing, const Form& form, bool headers);

// {"version": "v1", KEY: [...]}
nlohmann::ordered_json Versioned(const Listing& listing);

// `output` json or yaml, the latter so that any YAML reader gets the same values.
std::string Written(const nlohmann::ordered_json& json, const std::string& output);

}  // namespace vicreg::cli
