// completion, and what the shells and the documentation ask the parser itself for, so that neither can lag behind it.

#include <algorithm>
#include <iostream>

#include "cli/command.h"
#include "cli/exit_code.h"

namespace vicreg::cli {
namespace {

constexpr const char* kBash = R"(# vicreg completion for bash: add to ~/.bashrc:  source <(vicreg completion bash)
_vicreg() {
  local IFS=$'\n'
  COMPREPLY=($(vicreg __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _vicreg vicreg
)";
constexpr const char* kZsh = R"zsh(#compdef vicreg
# vicreg completion for zsh: add to ~/.zshrc, after compinit:  source <(vicreg completion zsh)
_vicreg() {
  local -a candidates
  candidates=(${(f)"$(vicreg __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  (( $#candidates )) && compadd -a candidates || _files
}
compdef _vicreg vicreg
)zsh";
constexpr const char* kFish = R"(# vicreg completion for fish: put into ~/.config/fish/completions/vicreg.fish
complete -c vicreg -a '(vicreg __complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
)";

std::vector<const CLI::App*> Visible(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* sub) { return !sub->get_group().empty(); });
}

// What an option is called on the command line, longest form.
std::string LongName(const CLI::Option& option) {
  return option.get_lnames().empty() ? "-" + option.get_snames().front() : "--" + option.get_lnames().front();
}

void Describe(const CLI::App& command, const std::string& path, std::string& out) {
  out +=
      "## " + path + "\n\n" + command.get_description() + (command.get_description().back() == '.' ? "\n\n" : ".\n\n");
  std::string rows;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_group().empty() || option->check_name("--help")) continue;
    std::string name = option->get_positional() ? option->get_name(true) : option->get_name(false, true);
    std::replace(name.begin(), name.end(), ',', ' ');
    const std::string standard = option->get_default_str();
    rows += "| `" + name + "` | " + option->get_description() +
            (standard.empty() ? "" : ". Default `" + standard + "`") + (option->get_required() ? " (required)" : "") +
            " |\n";
  }
  if (!rows.empty()) out += "| option | meaning |\n|---|---|\n" + rows + "\n";
  for (const CLI::App* sub : Visible(command)) Describe(*sub, path + " " + sub->get_name(), out);
}

}  // namespace

std::vector<std::string> Complete(Cli& cli, const std::vector<std::string>& words) {
  const CLI::App* command = &cli.app;
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    for (const CLI::App* sub : Visible(*command)) {
      if (sub->check_name(words[i])) command = sub;
    }
  }
  const std::string current = words.empty() ? "" : words.back();
  std::vector<std::string> all;
  if (current.rfind('-', 0) == 0) {
    for (const CLI::App* app : {command, const_cast<const CLI::App*>(&cli.app)}) {
      for (const CLI::Option* option : app->get_options()) {
        if (!option->get_positional()) all.push_back(LongName(*option));
      }
    }
  } else {
    for (const CLI::App* sub : Visible(*command)) all.push_back(sub->get_name());
    const auto positionals = command->get_options([](const CLI::Option* option) { return option->get_positional(); });
    if (!positionals.empty() && positionals.front()->get_name(true) == "ID") {
      const auto client = cli.Connect();
      client->set_patience(std::chrono::milliseconds(0));
      // A shell that completes shows nothing when nobody answers.
      if (const auto jobs = client->List(); jobs.ok()) {
        for (const v1::Job& job : *jobs) all.push_back(job.id());
      }
    }
  }
  std::vector<std::string> found;
  for (const std::string& candidate : all) {
    if (candidate.compare(0, current.size(), current) == 0 &&
        std::find(found.begin(), found.end(), candidate) == found.end())
      found.push_back(candidate);
  }
  return found;
}

std::string Reference(const CLI::App& app) {
  std::string out = "# Command line\n\n" + app.get_description() +
                    "\n\nExit codes: 0 ok, 1 internal, 2 usage or job file, 4 forbidden, 5 conflict, 6 coordinator "
                    "unavailable (try again), 7 not found; from `submit --wait`,\n"
                    "`submit --follow`, `watch`, `wait` and `logs -f`: 100 FAILED, 101 the wait timed out, 103 "
                    "CANCELLED, 104 FAILED for its deadline, or\npreempted and not to start again; 130 detached.\n\n"
                    "Answers go to standard output, everything else to standard error. Job ids may be shortened to any "
                    "unique beginning. Where standard output is no\n"
                    "terminal nothing is redrawn and nobody is asked: `cancel` then needs `--yes`.\n\n"
                    "This page is printed by the program (`vicreg __reference`); a test compares it.\n\n";
  Describe(app, "vicreg", out);
  while (out.size() > 1 && out[out.size() - 2] == '\n') out.pop_back();
  return out;
}

void AddCompletion(Cli& cli) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* command = cli.app.add_subcommand("completion", "Print the completion script of a shell");
  command->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback([&cli, shell] {
    cli.run = [shell]() -> absl::StatusOr<int> {
      std::cout << (*shell == "bash" ? kBash : *shell == "zsh" ? kZsh : kFish);
      return 0;
    };
  });
}

}  // namespace vicreg::cli
