#include "cli/command.h"

#include <unistd.h>

#include <cstdlib>

namespace vicreg::cli {

bool Cli::color() const { return !no_color && std::getenv("NO_COLOR") == nullptr && isatty(STDOUT_FILENO) == 1; }

void AddOutput(CLI::App& command, std::string& output, const std::vector<std::string>& formats) {
  output = formats.front();
  command.add_option("-o,--output", output, "Format")->check(CLI::IsMember(formats))->capture_default_str();
}

}  // namespace vicreg::cli
