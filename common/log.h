#pragma once

#include <string>

namespace vicreg {

// Makes spdlog's default logger write one JSON object per line to stderr: time, level, program, message. Call once, at
// the start of main. worker/train does not log: it reports.
void InitLog(const std::string& program);

}  // namespace vicreg
