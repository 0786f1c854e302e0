// vicreg: the command line. Parses, runs one command, prints its error with the next step.

#include <csignal>
#include <iostream>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "common/rpc/log.h"
#include "common/spec/tree.h"
#include "common/version.h"

namespace vicreg::cli {
namespace {

int Main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  rpc::TakeOverGrpcLog(/*quiet=*/true);
  CLI::App app("Submit VICReg pretraining jobs to a coordinator, watch them, and fetch what they made.", "vicreg");
  Cli cli{app};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--coordinator", cli.coordinator, "Address of the coordinator")
      ->envname("VICREG_COORDINATOR")
      ->capture_default_str();
  app.add_flag("--no-headers", cli.no_headers, "Tables without their first line");
  app.add_flag("--no-color", cli.no_color, "Never colour (also: NO_COLOR)");
  app.add_flag("-y,--yes", cli.yes, "Do not ask before something is ended");
  app.set_version_flag("--version", std::string("vicreg ") + kVersion);
  AddDevelopment(cli);
  AddSubmit(cli);
  AddJobs(cli);
  AddFollow(cli);
  AddSeries(cli);
  AddChanges(cli);
  AddWhy(cli);
  AddTop(cli);
  AddCluster(cli);
  AddQueues(cli);
  AddAdmin(cli);
  AddCompletion(cli);
  // For the shells and the documentation; not commands of their own.
  const std::string first = argc > 1 ? argv[1] : "";
  if (first == "__complete") {
    for (const std::string& candidate : Complete(cli, {argv + 2, argv + argc})) std::cout << candidate << "\n";
    return 0;
  }
  if (first == "__reference") {
    std::cout << Reference(app);
    return 0;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    // The parser's own words for a mistyped command are that one is missing.
    if (app.get_subcommands().empty() && !app.remaining().empty()) {
      std::vector<std::string> names;
      for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
        names.push_back(sub->get_name());
      const std::string word = app.remaining().front(), nearest = spec::Nearest(word, names);
      std::cerr << "vicreg: no command \"" << word << "\"" << (nearest.empty() ? "" : "; did you mean " + nearest + "?")
                << "\nRun vicreg --help for all of them.\n";
      return kUsage;
    }
    return app.exit(error) == 0 ? 0 : kUsage;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  const absl::StatusOr<int> code = cli.run();
  std::cout.flush();
  if (code.ok()) return std::cout.good() ? *code : 1;
  std::cerr << "vicreg: " << code.status().message() << "\n";
  return ExitCode(code.status());
}

}  // namespace
}  // namespace vicreg::cli

int main(int argc, char** argv) { return vicreg::cli::Main(argc, argv); }
