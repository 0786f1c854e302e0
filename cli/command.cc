#include "cli/command.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>

namespace vicreg::cli {

bool Cli::color() const { return !no_color && std::getenv("NO_COLOR") == nullptr && isatty(STDOUT_FILENO) == 1; }

void AddOutput(CLI::App& command, std::string& output, const std::vector<std::string>& formats) {
  output = formats.front();
  command.add_option("-o,--output", output, "Format")->check(CLI::IsMember(formats))->capture_default_str();
}

std::int64_t NowUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace vicreg::cli
