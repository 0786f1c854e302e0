#include "cli/command.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <set>
#include <sstream>

#include "cli/exit_code.h"

namespace vicreg::cli {

bool Cli::color() const { return !no_color && std::getenv("NO_COLOR") == nullptr && isatty(STDOUT_FILENO) == 1; }

void AddOutput(CLI::App& command, std::string& output, const std::vector<std::string>& formats) {
  output = formats.front();
  command.add_option("-o,--output", output, "Format")->check(CLI::IsMember(formats))->capture_default_str();
}

void AddForm(CLI::App& command, Form& form) {
  AddOutput(command, form.output, {"table", "wide", "json", "jsonl", "yaml", "name"});
  command.add_option("--columns", form.columns, "Those of the table, in this order, with commas between them")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--sort", form.sort, "By this column; with - before it the largest first");
}

absl::Status Print(const Cli& cli, Listing listing, const Form& form) {
  ASSIGN_OR_RETURN(const std::string text, Render(std::move(listing), form, !cli.no_headers));
  std::cout << text;
  return absl::OkStatus();
}

namespace {

// Sleeps; true once Ctrl-C was pressed.
class Pause {
 public:
  Pause() {
    interrupts_.Set([this] {
      const std::lock_guard lock(mutex_);
      pressed_ = true;
      changed_.notify_all();
    });
  }
  bool For(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [this] { return pressed_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool pressed_ = false;
  Interrupts interrupts_;
};

std::set<std::string> Lines(const std::string& text) {
  std::set<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.insert(line);
  return lines;
}

}  // namespace

absl::StatusOr<int> Show(const std::function<absl::StatusOr<std::string>()>& text, bool watch) {
  const bool redraw = isatty(STDOUT_FILENO) == 1;
  Pause pause;
  std::string before;
  while (true) {
    ASSIGN_OR_RETURN(const std::string now, text());
    if (redraw) {
      if (!before.empty()) std::cout << "\033[" << std::count(before.begin(), before.end(), '\n') << "A\033[J";
      std::cout << now;
    } else {
      const std::set<std::string> known = Lines(before);
      std::istringstream in(now);
      for (std::string line; std::getline(in, line);) {
        if (known.count(line) == 0) std::cout << line << "\n";
      }
    }
    std::cout.flush();
    before = now;
    if (!watch || !std::cout.good()) return 0;
    if (pause.For(std::chrono::seconds(2))) return kDetached;
  }
}

std::int64_t NowUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace vicreg::cli
