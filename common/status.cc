#include "common/status.h"

#include <system_error>

namespace vicreg {

std::string ErrnoText(int error) { return std::generic_category().message(error); }

}  // namespace vicreg
