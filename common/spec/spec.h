#pragma once

// Job file (YAML or JSON) -> JobSpec, strictly: every key is looked up in the message's descriptor. All problems are
// reported at once. Pure; thread-safe.

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/spec/tree.h"
#include "common/status.h"
#include "vicreg/v1/job.pb.h"

namespace vicreg::spec {

struct Parsed {
  v1::JobSpec spec;
  std::map<std::string, Mark> marks;  // field path -> where it stood; overrides of --set have line 0
  std::vector<Problem> problems;      // in file order; empty: fine
};

// `sets` are "field.path=value" overrides, the value in YAML; items of a list that the text holds are "list[0]".
Parsed ParseJobWithMarks(std::string_view text, const std::vector<std::string>& sets = {});

// InvalidArgument: one line per problem, "file:line:column: field: what".
absl::StatusOr<v1::JobSpec> ParseJob(std::string_view text, const std::string& filename,
                                     const std::vector<std::string>& sets = {});

// "90s", "30m", "12h", "7d": a whole number and its unit. nullopt: anything else.
std::optional<std::chrono::seconds> ParseTime(std::string_view text);

// One line per problem, as above.
std::string Format(const std::vector<Problem>& problems, const std::string& filename);

// Snake-case keys, short lower-case enums, the shorthands of a job file; ParseJob reads it back to an equal message.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

}  // namespace vicreg::spec
