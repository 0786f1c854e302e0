#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>

#include "vicreg/v1/jobs_service.pb.h"

namespace vicreg::cli {

// A message as other tools read it: field names in snake case, every scalar present, numbers as numbers, enums as their
// short upper-case name, absent optional fields and sub-messages left out. A job spec is written as a job file would
// be.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// A job, with its name lifted out of the spec.
nlohmann::ordered_json JobToJson(const v1::Job& job);

}  // namespace vicreg::cli
