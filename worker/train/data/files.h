#pragma once

// Files of a data set: opened beneath its root alone, and refused by name.

#include <string>

namespace vicreg::train {

// RankError(kData) "data file FILE: TEXT". TEXT says what was found and what was expected.
[[noreturn]] void RefuseFile(const std::string& file, const std::string& text);

// A descriptor of `relative` beneath `root`; never through a link or "..". -1: no such file. RankError(kData) for
// anything but a regular file that may be read.
int OpenBeneath(const std::string& root, const std::string& relative);

}  // namespace vicreg::train
