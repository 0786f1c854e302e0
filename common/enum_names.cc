#include "common/enum_names.h"

#include <cctype>

namespace vicreg {

std::string ShortName(const google::protobuf::EnumValueDescriptor& value) {
  // JobState -> JOB_STATE_, the prefix every value carries.
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (std::isupper(static_cast<unsigned char>(c)) && !prefix.empty()) prefix += '_';
    prefix += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  prefix += '_';
  return value.name().rfind(prefix, 0) == 0 ? value.name().substr(prefix.size()) : value.name();
}

}  // namespace vicreg
