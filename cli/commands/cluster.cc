// node, version: the machines behind the jobs.

#include <chrono>
#include <iostream>

#include "cli/command.h"
#include "cli/json.h"
#include "cli/listing.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"
#include "common/version.h"

namespace vicreg::cli {
namespace {

absl::StatusOr<int> ListNodes(const Cli& cli, const Form& form) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ListNodesResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListNodes, v1::ListNodesRequest()));
  Listing listing{"nodes", NodeColumns(), {}};
  for (const v1::Node& node : answer.nodes())
    listing.items.push_back({node.name(), NodeRow(node, NowUs()), ToJson(node)});
  RETURN_IF_ERROR(Print(cli, std::move(listing), form));
  if (answer.nodes().empty()) std::cerr << "no nodes yet: start a worker with `vicreg up` or vicreg-worker\n";
  return 0;
}

absl::StatusOr<v1::Node> FindNode(Client& client, const std::string& name) {
  ASSIGN_OR_RETURN(const v1::ListNodesResponse answer,
                   client.Call(client.cluster(), &v1::ClusterService::Stub::ListNodes, v1::ListNodesRequest()));
  for (const v1::Node& node : answer.nodes()) {
    if (node.name() == name) return node;
  }
  return absl::NotFoundError("no node " + name + ": `vicreg node list` shows all");
}

absl::StatusOr<int> DescribeNode(const Cli& cli, const std::string& name, const std::string& output) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::Node node, FindNode(*client, name));
  if (output != "table") {
    std::cout << Written(ToJson(node), output);
    return 0;
  }
  std::vector<std::vector<std::string>> facts = {{"name", Printable(node.name())},
                                                 {"state", ShortName(node.state()) + ", " + ShortName(node.admin())},
                                                 {"message", Printable(node.message())},
                                                 {"labels", Joined(node.labels())},
                                                 {"data roots", Joined(node.data_roots())},
                                                 {"strikes", std::to_string(node.strikes()) + " in the last 24 h"},
                                                 {"incarnation", std::to_string(node.incarnation())},
                                                 {"build", Printable(node.build())}};
  for (const v1::SlotCount& s : node.slots())
    facts.push_back({s.kind() + " slots", std::to_string(s.used()) + " of " + std::to_string(s.total()) + " used"});
  std::cout << Table({}, facts);
  ASSIGN_OR_RETURN(const std::vector<v1::Job> jobs, client->List());
  std::vector<std::vector<std::string>> rows;
  for (const v1::Job& job : jobs) {
    for (const v1::RankStatus& rank : job.ranks()) {
      if (rank.node() != name || rank.state() == "EXITED" || rank.state() == "LOST") continue;
      rows.push_back({ShortId(job.id()), Printable(job.spec().name()), std::to_string(rank.rank()),
                      std::to_string(rank.slot()), rank.state()});
    }
  }
  if (!rows.empty()) std::cout << "\n" << Table({"JOB", "NAME", "RANK", "SLOT", "STATE"}, rows);
  return 0;
}

absl::StatusOr<int> ChangeNode(const Cli& cli, const std::string& name, v1::NodeAdmin admin, const std::string& grace) {
  v1::ChangeNodeRequest request;
  request.set_name(name);
  request.set_admin(admin);
  ASSIGN_OR_RETURN(const double seconds, ParseGrace(grace));
  request.set_grace_seconds(seconds);
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ChangeNodeResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ChangeNode, request));
  std::cout << Printable(name) << "  " << ShortName(answer.node().admin()) << "  " << Printable(answer.node().message())
            << "\n";
  return 0;
}

void AddNodeChange(Cli& cli, CLI::App& node, const std::string& name, const std::string& help, v1::NodeAdmin admin) {
  const auto target = std::make_shared<std::string>(), grace = std::make_shared<std::string>("120s");
  CLI::App* command = node.add_subcommand(name, help);
  command->add_option("NODE", *target, "Its name")->required();
  if (admin == v1::NODE_ADMIN_DRAINING)
    command->add_option("--grace,--deadline", *grace, "Time its ranks get to save and leave")->capture_default_str();
  command->callback([&cli, target, grace, admin] {
    cli.run = [&cli, target, grace, admin] { return ChangeNode(cli, *target, admin, *grace); };
  });
}

absl::StatusOr<int> Health(const Cli& cli, const std::string& name) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::Node node, FindNode(*client, name));
  ASSIGN_OR_RETURN(const v1::GetClusterResponse cluster,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::GetCluster, v1::GetClusterRequest()));
  const std::vector<std::string> ailments = Ailments(node, cluster.version(), NowUs());
  for (const std::string& sentence : ailments) std::cout << sentence << "\n";
  if (ailments.empty())
    std::cout << Printable(name) << " is well; `vicreg node probe " << Printable(name) << "` tries it\n";
  return ailments.empty() ? 0 : 1;
}

absl::StatusOr<int> Probe(const Cli& cli, const std::string& name) {
  const auto client = cli.Connect();
  v1::ProbeNodeRequest request;
  request.set_name(name);
  ASSIGN_OR_RETURN(const v1::ProbeNodeResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ProbeNode, request));
  for (const std::string& fact : answer.facts()) std::cout << "ok      " << Printable(fact) << "\n";
  for (const std::string& problem : answer.problems()) std::cout << "failed  " << Printable(problem) << "\n";
  std::cout << Printable(name) << "  " << ShortName(answer.node().state()) << "  " << Printable(answer.node().message())
            << "\n";
  return answer.problems().empty() ? 0 : 1;
}

void AddNodeCheck(Cli& cli, CLI::App& node, const std::string& name, const std::string& help,
                  absl::StatusOr<int> (*check)(const Cli&, const std::string&)) {
  const auto target = std::make_shared<std::string>();
  CLI::App* command = node.add_subcommand(name, help);
  command->add_option("NODE", *target, "Its name")->required();
  command->callback([&cli, target, check] { cli.run = [&cli, target, check] { return check(cli, *target); }; });
}

absl::StatusOr<int> Version(const Cli& cli, const std::string& output) {
  const auto client = cli.Connect();
  client->set_patience(std::chrono::milliseconds(500));
  // This program's version does not depend on anybody answering.
  const auto answer = client->Call(client->cluster(), &v1::ClusterService::Stub::GetCluster, v1::GetClusterRequest());
  if (output != "table") {
    nlohmann::ordered_json json = {{"client", kVersion}};
    if (answer.ok()) json["coordinator"] = ToJson(*answer);
    std::cout << Written(json, output);
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
    const auto listed = std::make_shared<Form>();
    CLI::App* node = cli.app.add_subcommand("node", "The machines that train")->require_subcommand(1);
    CLI::App* command = node->add_subcommand("list", "All nodes ever seen, with their slots and data roots");
    AddForm(*command, *listed);
    command->callback([&cli, listed] { cli.run = [&cli, listed] { return ListNodes(cli, *listed); }; });
    const auto name = std::make_shared<std::string>(), form = std::make_shared<std::string>();
    CLI::App* describe = node->add_subcommand("describe", "Everything about one node, and the ranks it holds");
    describe->add_option("NODE", *name, "Its name")->required();
    AddOutput(*describe, *form, {"table", "json", "yaml"});
    describe->callback(
        [&cli, name, form] { cli.run = [&cli, name, form] { return DescribeNode(cli, *name, *form); }; });
    AddNodeChange(cli, *node, "cordon", "Place nothing new there; what runs runs on", v1::NODE_ADMIN_CORDONED);
    AddNodeChange(cli, *node, "uncordon", "Open it again; this ends a drain or a quarantine too", v1::NODE_ADMIN_OPEN);
    AddNodeCheck(cli, *node, "health", "What is the matter with it, as far as is known; exit code 1 if anything",
                 Health);
    AddNodeCheck(
        cli, *node, "probe",
        "Try what ranks need there: folders, data roots, a computation; passing ends PROBING and a quarantine, failing "
        "is a strike and exit code 1",
        Probe);
    AddNodeChange(cli, *node, "drain", "Empty it: its gangs save, leave and start elsewhere", v1::NODE_ADMIN_DRAINING);
  }
  {
    const auto output = std::make_shared<std::string>();
    CLI::App* command = cli.app.add_subcommand("version", "Version of this program and of the coordinator");
    AddOutput(*command, *output, {"table", "json", "yaml"});
    command->callback([&cli, output] { cli.run = [&cli, output] { return Version(cli, *output); }; });
  }
}

}  // namespace vicreg::cli
