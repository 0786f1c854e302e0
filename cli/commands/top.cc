// top: who uses what now, of the nodes or of one job's ranks.

#include "cli/command.h"
#include "cli/text.h"
#include "cli/view.h"

namespace vicreg::cli {
namespace {

struct Options {
  std::string what = "nodes";
  bool watch = false;
};

absl::StatusOr<std::string> Nodes(const Cli& cli, Client& client) {
  ASSIGN_OR_RETURN(const v1::ListNodesResponse answer,
                   client.Call(client.cluster(), &v1::ClusterService::Stub::ListNodes, v1::ListNodesRequest()));
  ASSIGN_OR_RETURN(const std::vector<v1::Job> jobs, client.List());
  return TopNodes({answer.nodes().begin(), answer.nodes().end()}, jobs, NowUs(), !cli.no_headers);
}

absl::StatusOr<std::string> Ranks(const Cli& cli, Client& client, const std::string& id) {
  ASSIGN_OR_RETURN(const v1::Job job, client.Get(id));
  return TopRanks(job, !cli.no_headers);
}

absl::StatusOr<int> Top(const Cli& cli, const Options& options) {
  const auto client = cli.Connect();
  std::string id;
  if (options.what != "nodes") {
    ASSIGN_OR_RETURN(id, client->FullId(options.what));
  }
  return Show([&]() { return id.empty() ? Nodes(cli, *client) : Ranks(cli, *client, id); }, options.watch);
}

}  // namespace

void AddTop(Cli& cli) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = cli.app.add_subcommand("top", "Who uses what now: all nodes, or the ranks of one job");
  command->add_option("WHAT", options->what, "Job id or the beginning of it, or: nodes")->capture_default_str();
  command->add_flag("-w,--watch", options->watch, "Again every 2 s, until Ctrl-C");
  command->callback([&cli, options] { cli.run = [&cli, options] { return Top(cli, *options); }; });
}

}  // namespace vicreg::cli
