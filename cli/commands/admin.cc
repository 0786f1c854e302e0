// admin: copies of the coordinator's store, checks of it, and the way back.

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "cli/command.h"
#include "cli/development/cluster.h"
#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/listing.h"
#include "cli/text.h"

namespace vicreg::cli {
namespace {

absl::StatusOr<int> Snapshot(const Cli& cli, const std::string& output) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::TakeSnapshotResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::TakeSnapshot, v1::TakeSnapshotRequest()));
  if (output != "table") {
    std::cout << Written(ToJson(answer), output);
  } else {
    std::cout << Printable(answer.path()) << "  " << Grouped(answer.bytes()) << " bytes  sha256 "
              << answer.sha256().substr(0, 16) << "\n";
  }
  return 0;
}

// The store belongs to vicreg-coordinator, which does this without serving; its words and its exit code are ours.
absl::StatusOr<int> RunCoordinator(const std::vector<std::string>& arguments) {
  std::error_code error;
  const std::string program =
      (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "vicreg-coordinator").string();
  std::vector<std::string> text = {program};
  text.insert(text.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : text) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return absl::InternalError("cannot start " + program);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return absl::NotFoundError("cannot start " + program + ": run this where the coordinator is installed");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

std::string FolderOf(const std::string& folder) { return folder.empty() ? DefaultFolder() + "/coordinator" : folder; }

absl::StatusOr<int> Restore(const Cli& cli, const std::string& file, const std::string& folder,
                            const std::string& artifacts) {
  ASSIGN_OR_RETURN(const bool confirmed, Confirmed(cli, "replace the store in " + FolderOf(folder) + " by " + file));
  if (!confirmed) return 0;
  std::vector<std::string> arguments = {"--dir", FolderOf(folder), "--restore", file};
  if (!artifacts.empty()) arguments.insert(arguments.end(), {"--artifacts", artifacts});
  return RunCoordinator(arguments);
}

}  // namespace

void AddAdmin(Cli& cli) {
  CLI::App* admin = cli.app.add_subcommand("admin", "The coordinator's store")->require_subcommand(1);
  {
    const auto output = std::make_shared<std::string>();
    CLI::App* command = admin->add_subcommand(
        "snapshot", "Copy the store as of now beneath the coordinator's folder; it serves on meanwhile");
    AddOutput(*command, *output, {"table", "json", "yaml"});
    command->callback([&cli, output] { cli.run = [&cli, output] { return Snapshot(cli, *output); }; });
  }
  {
    const auto folder = std::make_shared<std::string>();
    CLI::App* command = admin->add_subcommand(
        "fsck", "Check a store, on the coordinator's machine; exit code 1 when something is wrong with it");
    command->add_option("--dir", *folder, "The coordinator's folder (default: that of `vicreg up`)");
    command->callback([&cli, folder] {
      cli.run = [folder] { return RunCoordinator({"--dir", FolderOf(*folder), "--fsck"}); };
    });
  }
  {
    const auto file = std::make_shared<std::string>(), folder = std::make_shared<std::string>(),
               artifacts = std::make_shared<std::string>();
    CLI::App* command = admin->add_subcommand(
        "restore",
        "Put a snapshot in the store's place, on the machine of the coordinator, which must not run; what "
        "started since is fenced");
    command->add_option("FILE", *file, "A snapshot")->required();
    command->add_option("--dir", *folder, "The coordinator's folder (default: that of `vicreg up`)");
    command->add_option("--artifacts", *artifacts, "As the coordinator's (default: DIR/../artifacts)");
    command->callback([&cli, file, folder, artifacts] {
      cli.run = [&cli, file, folder, artifacts] { return Restore(cli, *file, *folder, *artifacts); };
    });
  }
}

}  // namespace vicreg::cli
