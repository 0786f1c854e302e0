#pragma once

// absl::Status plumbing shared by the control plane.

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define VICREG_CONCAT_INNER(a, b) a##b
#define VICREG_CONCAT(a, b) VICREG_CONCAT_INNER(a, b)

// Returns from the function when `expr` (an absl::Status) is not OK.
#define RETURN_IF_ERROR(expr)                                                           \
  do {                                                                                  \
    if (absl::Status vicreg_status = (expr); !vicreg_status.ok()) return vicreg_status; \
  } while (false)

// ASSIGN_OR_RETURN(auto value, StatusOrExpression());
// `lhs` may be a declaration, so it stands without parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define ASSIGN_OR_RETURN(lhs, expr)                                                                   \
  auto VICREG_CONCAT(vicreg_or_, __LINE__) = (expr);                                                  \
  if (!VICREG_CONCAT(vicreg_or_, __LINE__).ok()) return VICREG_CONCAT(vicreg_or_, __LINE__).status(); \
  lhs = *std::move(VICREG_CONCAT(vicreg_or_, __LINE__))
// NOLINTEND(bugprone-macro-parentheses)

namespace vicreg {

// Everything that is wrong with an input, so that it is refused once and not problem by problem.
class Problems {
 public:
  // A line: "field: found ...; expected ...".
  void Add(const std::string& line) { lines_ += (lines_.empty() ? "" : "\n") + line; }
  // OK, or InvalidArgument with all lines.
  absl::Status status() const { return lines_.empty() ? absl::OkStatus() : absl::InvalidArgumentError(lines_); }

 private:
  std::string lines_;
};

// "No space left on device" and the like, by errno.
std::string ErrnoText(int error);

}  // namespace vicreg
