// node list, version: the machines behind the jobs.

#include <chrono>
#include <iostream>

#include "cli/command.h"
#include "cli/json.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/version.h"

namespace vicreg::cli {
namespace {

absl::StatusOr<int> ListNodes(const Cli& cli, const std::string& output) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ListNodesResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListNodes, v1::ListNodesRequest()));
  if (output == "json") {
    nlohmann::ordered_json json = {{"version", "v1"}, {"nodes", nlohmann::ordered_json::array()}};
    for (const v1::Node& node : answer.nodes()) json["nodes"].push_back(ToJson(node));
    std::cout << json.dump(2) << "\n";
    return 0;
  }
  const std::int64_t now_us =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  std::vector<std::vector<std::string>> rows;
  for (const v1::Node& node : answer.nodes()) rows.push_back(NodeRow(node, now_us));
  std::cout << Table(cli.no_headers ? std::vector<std::string>{} : NodeHeader(), rows);
  if (rows.empty()) std::cerr << "no nodes yet: start a worker with `vicreg up` or vicreg-worker\n";
  return 0;
}

absl::StatusOr<int> Version(const Cli& cli, const std::string& output) {
  const auto client = cli.Connect();
  client->set_patience(std::chrono::milliseconds(500));
  // This program's version does not depend on anybody answering.
  const auto answer = client->Call(client->cluster(), &v1::ClusterService::Stub::GetCluster, v1::GetClusterRequest());
  if (output == "json") {
    nlohmann::ordered_json json = {{"client", kVersion}};
    if (answer.ok()) json["coordinator"] = ToJson(*answer);
    std::cout << json.dump(2) << "\n";
  } else {
    std::cout << "vicreg " << kVersion << "\n";
    std::cout << "coordinator "
              << (answer.ok() ? answer->version() + " at " + client->address() + ", " + answer->message()
                              : "not reachable at " + client->address())
              << "\n";
  }
  return 0;
}

}  // namespace

void AddCluster(Cli& cli) {
  {
    const auto output = std::make_shared<std::string>();
    CLI::App* node = cli.app.add_subcommand("node", "The machines that train")->require_subcommand(1);
    CLI::App* command = node->add_subcommand("list", "All nodes ever seen, with their slots and data roots");
    AddOutput(*command, *output, {"table", "json"});
    command->callback([&cli, output] { cli.run = [&cli, output] { return ListNodes(cli, *output); }; });
  }
  {
    const auto output = std::make_shared<std::string>();
    CLI::App* command = cli.app.add_subcommand("version", "Version of this program and of the coordinator");
    AddOutput(*command, *output, {"table", "json"});
    command->callback([&cli, output] { cli.run = [&cli, output] { return Version(cli, *output); }; });
  }
}

}  // namespace vicreg::cli
