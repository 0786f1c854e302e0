#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>

namespace vicreg::cli {

// A message as other tools read it: field names in snake case, every scalar present, numbers as numbers, enums as their short upper-case
// name, absent optional fields and sub-messages left out. A job spec is written as a job file would be.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

}  // namespace vicreg::cli
