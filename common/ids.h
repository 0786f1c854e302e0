#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vicreg {

// Random (version 4) UUID, lower case. From the kernel's generator.
std::string NewUuid();

// 8-4-4-4-12 lower-case hex digits.
bool IsUuid(std::string_view text);

// Of a job, project, queue: 1 to 63 of a-z, 0-9 and -.
bool IsName(std::string_view text);
inline constexpr char kNameRule[] = "1 to 63 of a-z, 0-9 and -";

// Of a node: "key=value", each side 1 to 63 of letters, digits, '.', '_' and '-'.
bool IsLabel(std::string_view text);
inline constexpr char kLabelRule[] = "key=value, each side 1 to 63 of letters, digits, '.', '_' and '-'";

// `count` bytes from the kernel's generator.
std::string RandomBytes(std::size_t count);

}  // namespace vicreg
