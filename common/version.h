#pragma once

namespace vicreg {

// Of every program of this build; VICREG_VERSION comes from the build.
inline constexpr char kVersion[] = VICREG_VERSION;

}  // namespace vicreg
