#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/generated_enum_reflection.h>

#include <string>

namespace vicreg {

// Name without the enum's prefix: JOB_STATE_RUNNING -> "RUNNING". Unknown numbers give the number.
std::string ShortName(const google::protobuf::EnumValueDescriptor& value);

template <typename E>
std::string ShortName(E value) {
  const auto* found = google::protobuf::GetEnumDescriptor<E>()->FindValueByNumber(value);
  return found == nullptr ? std::to_string(static_cast<int>(value)) : ShortName(*found);
}

}  // namespace vicreg
