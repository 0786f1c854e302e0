// node, queue, quota, version: the machines behind the jobs, and who may use how much of them.

#include <algorithm>
#include <chrono>
#include <iostream>

#include "cli/command.h"
#include "cli/json.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"
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

std::string Joined(const google::protobuf::RepeatedPtrField<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + Printable(word);
  return text.empty() ? "none" : text;
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
  if (output == "json") {
    std::cout << ToJson(node).dump(2) << "\n";
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

absl::StatusOr<int> ListQueues(const Cli& cli, const std::string& output) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ListQueuesResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListQueues, v1::ListQueuesRequest()));
  if (output == "json") {
    std::cout << ToJson(answer).dump(2) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const v1::Queue& q : answer.queues()) {
    rows.push_back({q.project(), q.name(), q.closed() ? "closed" : "open",
                    std::to_string(q.min_priority()) + ".." + std::to_string(q.max_priority()), Joined(q.labels()),
                    std::to_string(q.waiting()), std::to_string(q.running())});
  }
  std::cout << Table(cli.no_headers ? std::vector<std::string>{}
                                    : std::vector<std::string>{"PROJECT", "QUEUE", "STATE", "PRIORITY", "LABELS",
                                                               "WAITING", "RUNNING"},
                     rows);
  return 0;
}

struct QueueFlags {
  std::string name, project = "default";
  bool closed = false, open = false;
  int min_priority = 0, max_priority = 0;
  std::vector<std::string> labels;
};

// What no flag names stays as it is.
absl::StatusOr<int> SetQueue(const Cli& cli, const QueueFlags& flags, const CLI::App& command) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ListQueuesResponse all,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListQueues, v1::ListQueuesRequest()));
  v1::SetQueueRequest request;
  v1::Queue& queue = *request.mutable_queue();
  queue.set_min_priority(-1000);
  queue.set_max_priority(1000);
  for (const v1::Queue& q : all.queues()) {
    if (q.project() == flags.project && q.name() == flags.name) queue = q;
  }
  queue.set_project(flags.project);
  queue.set_name(flags.name);
  if (flags.closed || flags.open) queue.set_closed(flags.closed);
  if (command.count("--min-priority") > 0) queue.set_min_priority(flags.min_priority);
  if (command.count("--max-priority") > 0) queue.set_max_priority(flags.max_priority);
  if (command.count("--label") > 0) queue.mutable_labels()->Assign(flags.labels.begin(), flags.labels.end());
  ASSIGN_OR_RETURN(const v1::SetQueueResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::SetQueue, request));
  const v1::Queue& q = answer.queue();
  std::cout << "queue " << q.name() << " of project " << q.project() << ": " << (q.closed() ? "closed" : "open")
            << ", priority " << q.min_priority() << " to " << q.max_priority() << ", labels " << Joined(q.labels())
            << "\n";
  return 0;
}

std::string Limit(bool has, int slots) { return has ? std::to_string(slots) : "no limit"; }

absl::StatusOr<int> ListQuotas(const Cli& cli, const std::string& project, const std::string& output) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(v1::ListQuotasResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListQuotas, v1::ListQuotasRequest()));
  if (!project.empty()) {
    auto& quotas = *answer.mutable_quotas();
    quotas.erase(
        std::remove_if(quotas.begin(), quotas.end(), [&](const v1::Quota& q) { return q.project() != project; }),
        quotas.end());
  }
  if (output == "json") {
    std::cout << ToJson(answer).dump(2) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const v1::Quota& q : answer.quotas()) {
    rows.push_back({q.project(), std::to_string(q.cpu_used()), Limit(q.has_cpu_slots(), q.cpu_slots()),
                    std::to_string(q.gpu_used()), Limit(q.has_gpu_slots(), q.gpu_slots()), Short(q.weight())});
  }
  std::cout << Table(cli.no_headers ? std::vector<std::string>{}
                                    : std::vector<std::string>{"PROJECT", "CPU", "OF", "GPU", "OF", "WEIGHT"},
                     rows);
  if (rows.empty()) std::cerr << "no quotas: every project may use what is free\n";
  return 0;
}

struct QuotaFlags {
  std::string project;
  int cpu = -1, gpu = -1;
  double weight = 1;
};

absl::StatusOr<int> SetQuota(const Cli& cli, const QuotaFlags& flags, const CLI::App& command) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ListQuotasResponse all,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListQuotas, v1::ListQuotasRequest()));
  v1::SetQuotaRequest request;
  v1::Quota& quota = *request.mutable_quota();
  for (const v1::Quota& q : all.quotas()) {
    if (q.project() == flags.project) quota = q;
  }
  quota.set_project(flags.project);
  if (command.count("--cpu") > 0) quota.set_cpu_slots(flags.cpu);
  if (command.count("--gpu") > 0) quota.set_gpu_slots(flags.gpu);
  if (command.count("--weight") > 0) quota.set_weight(flags.weight);
  ASSIGN_OR_RETURN(const v1::SetQuotaResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::SetQuota, request));
  const v1::Quota& q = answer.quota();
  std::cout << "project " << q.project() << ": cpu slots " << Limit(q.has_cpu_slots(), q.cpu_slots()) << ", gpu slots "
            << Limit(q.has_gpu_slots(), q.gpu_slots()) << ", weight " << Short(q.weight()) << "\n";
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

void AddQueues(Cli& cli) {
  CLI::App* queue = cli.app.add_subcommand("queue", "Lanes of a project")->require_subcommand(1);
  {
    const auto output = std::make_shared<std::string>();
    CLI::App* command = queue->add_subcommand("list", "All queues, with how many jobs wait and run in each");
    AddOutput(*command, *output, {"table", "json"});
    command->callback([&cli, output] { cli.run = [&cli, output] { return ListQueues(cli, *output); }; });
  }
  {
    const auto flags = std::make_shared<QueueFlags>();
    CLI::App* command = queue->add_subcommand("set", "Make a queue, or change what the flags name of it");
    command->add_option("QUEUE", flags->name, "Its name, [a-z0-9-]{1,63}")->required();
    command->add_option("--project", flags->project, "Whose it is")->capture_default_str();
    auto* open = command->add_flag("--open", flags->open, "Its jobs may start");
    command->add_flag("--close", flags->closed, "Its jobs wait")->excludes(open);
    command->add_option("--min-priority", flags->min_priority, "Lowest of a job submitted to it");
    command->add_option("--max-priority", flags->max_priority, "Highest of a job submitted to it");
    command->add_option("--label", flags->labels, "KEY=VALUE its jobs' nodes must have, repeatable")
        ->allow_extra_args(false);
    command->callback(
        [&cli, flags, command] { cli.run = [&cli, flags, command] { return SetQueue(cli, *flags, *command); }; });
  }
}

void AddQuotas(Cli& cli) {
  CLI::App* quota = cli.app.add_subcommand("quota", "How many slots projects may hold")->require_subcommand(1);
  {
    const auto output = std::make_shared<std::string>(), project = std::make_shared<std::string>();
    CLI::App* command = quota->add_subcommand("get", "Quotas and what is held of them");
    command->add_option("PROJECT", *project, "Only this one");
    AddOutput(*command, *output, {"table", "json"});
    command->callback(
        [&cli, output, project] { cli.run = [&cli, output, project] { return ListQuotas(cli, *project, *output); }; });
  }
  {
    const auto flags = std::make_shared<QuotaFlags>();
    CLI::App* command = quota->add_subcommand("set", "Change what the flags name of a project's quota");
    command->add_option("PROJECT", flags->project, "[a-z0-9-]{1,63}")->required();
    command->add_option("--cpu", flags->cpu, "CPU slots its gangs may hold together; -1: no limit");
    command->add_option("--gpu", flags->gpu, "GPU slots; -1: no limit");
    command->add_option("--weight", flags->weight, "Of its share among projects whose jobs have the same priority");
    command->callback(
        [&cli, flags, command] { cli.run = [&cli, flags, command] { return SetQuota(cli, *flags, *command); }; });
  }
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
    const auto name = std::make_shared<std::string>(), form = std::make_shared<std::string>();
    CLI::App* describe = node->add_subcommand("describe", "Everything about one node, and the ranks it holds");
    describe->add_option("NODE", *name, "Its name")->required();
    AddOutput(*describe, *form, {"table", "json"});
    describe->callback(
        [&cli, name, form] { cli.run = [&cli, name, form] { return DescribeNode(cli, *name, *form); }; });
    AddNodeChange(cli, *node, "cordon", "Place nothing new there; what runs runs on", v1::NODE_ADMIN_CORDONED);
    AddNodeChange(cli, *node, "uncordon", "Open it again; this ends a drain or a quarantine too", v1::NODE_ADMIN_OPEN);
    AddNodeChange(cli, *node, "drain", "Empty it: its gangs save, leave and start elsewhere", v1::NODE_ADMIN_DRAINING);
  }
  AddQueues(cli);
  AddQuotas(cli);
  {
    const auto output = std::make_shared<std::string>();
    CLI::App* command = cli.app.add_subcommand("version", "Version of this program and of the coordinator");
    AddOutput(*command, *output, {"table", "json"});
    command->callback([&cli, output] { cli.run = [&cli, output] { return Version(cli, *output); }; });
  }
}

}  // namespace vicreg::cli
