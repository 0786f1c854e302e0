// queue, quota: lanes of projects, and how much they may use.

#include <algorithm>
#include <iostream>

#include "cli/command.h"
#include "cli/json.h"
#include "cli/listing.h"
#include "cli/text.h"
#include "cli/view.h"

namespace vicreg::cli {
namespace {

absl::StatusOr<int> ListQueues(const Cli& cli, const Form& form) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ListQueuesResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListQueues, v1::ListQueuesRequest()));
  Listing listing{
      "queues", {{"PROJECT"}, {"QUEUE"}, {"STATE"}, {"PRIORITY"}, {"LABELS"}, {"WAITING"}, {"RUNNING"}}, {}};
  for (const v1::Queue& q : answer.queues()) {
    listing.items.push_back({q.name(),
                             {q.project(), q.name(), q.closed() ? "closed" : "open",
                              std::to_string(q.min_priority()) + ".." + std::to_string(q.max_priority()),
                              Joined(q.labels()), std::to_string(q.waiting()), std::to_string(q.running())},
                             ToJson(q)});
  }
  RETURN_IF_ERROR(Print(cli, std::move(listing), form));
  return 0;
}

struct QueueFlags {
  std::string name, project = "default";
  bool closed = false, open = false;
  int min_priority = 0, max_priority = 0;
  std::vector<std::string> labels;
};

absl::StatusOr<int> DescribeQueue(const Cli& cli, const QueueFlags& flags, const std::string& output) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::ListQueuesResponse all,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListQueues, v1::ListQueuesRequest()));
  const auto found = std::find_if(all.queues().begin(), all.queues().end(), [&](const v1::Queue& q) {
    return q.project() == flags.project && q.name() == flags.name;
  });
  if (found == all.queues().end()) {
    return absl::NotFoundError("no queue " + flags.name + " of project " + flags.project +
                               ": `vicreg queue list` shows all");
  }
  ASSIGN_OR_RETURN(std::vector<v1::Job> jobs, client->List());
  jobs = InQueue(std::move(jobs), flags.project, flags.name);
  if (output != "table") {
    nlohmann::ordered_json json = {
        {"version", "v1"}, {"queue", ToJson(*found)}, {"jobs", nlohmann::ordered_json::array()}};
    for (const v1::Job& job : jobs) json["jobs"].push_back(JobToJson(job));
    std::cout << Written(json, output);
    return 0;
  }
  std::cout << Table(
      {}, {{"queue", found->name()},
           {"project", found->project()},
           {"state", found->closed() ? "closed" : "open"},
           {"priorities", std::to_string(found->min_priority()) + ".." + std::to_string(found->max_priority())},
           {"labels", Joined(found->labels())},
           {"jobs", std::to_string(found->waiting()) + " wait, " + std::to_string(found->running()) + " hold slots"}});
  std::vector<std::vector<std::string>> rows;
  for (const v1::Job& job : jobs) rows.push_back(QueueRow(job, NowUs()));
  if (!rows.empty()) std::cout << "\n" << Table(cli.no_headers ? std::vector<std::string>{} : QueueHeader(), rows);
  return 0;
}

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

absl::StatusOr<int> ListQuotas(const Cli& cli, const std::string& project, const Form& form) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(v1::ListQuotasResponse answer,
                   client->Call(client->cluster(), &v1::ClusterService::Stub::ListQuotas, v1::ListQuotasRequest()));
  if (!project.empty()) {
    auto& quotas = *answer.mutable_quotas();
    quotas.erase(
        std::remove_if(quotas.begin(), quotas.end(), [&](const v1::Quota& q) { return q.project() != project; }),
        quotas.end());
  }
  Listing listing{"quotas", {{"PROJECT"}, {"CPU"}, {"CPU QUOTA"}, {"GPU"}, {"GPU QUOTA"}, {"WEIGHT"}}, {}};
  for (const v1::Quota& q : answer.quotas()) {
    listing.items.push_back({q.project(),
                             {q.project(), std::to_string(q.cpu_used()), Limit(q.has_cpu_slots(), q.cpu_slots()),
                              std::to_string(q.gpu_used()), Limit(q.has_gpu_slots(), q.gpu_slots()), Short(q.weight())},
                             ToJson(q)});
  }
  RETURN_IF_ERROR(Print(cli, std::move(listing), form));
  if (answer.quotas().empty()) std::cerr << "no quotas: every project may use what is free\n";
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

void AddQueueCommands(Cli& cli) {
  CLI::App* queue = cli.app.add_subcommand("queue", "Lanes of a project")->require_subcommand(1);
  {
    const auto form = std::make_shared<Form>();
    CLI::App* command = queue->add_subcommand("list", "All queues, with how many jobs wait and run in each");
    AddForm(*command, *form);
    command->callback([&cli, form] { cli.run = [&cli, form] { return ListQueues(cli, *form); }; });
  }
  {
    const auto flags = std::make_shared<QueueFlags>();
    const auto output = std::make_shared<std::string>();
    CLI::App* command =
        queue->add_subcommand("describe", "One queue, its jobs in the order in which they go, and why they wait");
    command->add_option("QUEUE", flags->name, "Its name")->required();
    command->add_option("--project", flags->project, "Whose it is")->capture_default_str();
    AddOutput(*command, *output, {"table", "json", "yaml"});
    command->callback(
        [&cli, flags, output] { cli.run = [&cli, flags, output] { return DescribeQueue(cli, *flags, *output); }; });
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

void AddQuotaCommands(Cli& cli) {
  CLI::App* quota = cli.app.add_subcommand("quota", "How many slots projects may hold")->require_subcommand(1);
  {
    const auto project = std::make_shared<std::string>();
    const auto form = std::make_shared<Form>();
    CLI::App* command = quota->add_subcommand("get", "Quotas and what is held of them");
    command->add_option("PROJECT", *project, "Only this one");
    AddForm(*command, *form);
    command->callback(
        [&cli, form, project] { cli.run = [&cli, form, project] { return ListQuotas(cli, *project, *form); }; });
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

}  // namespace

void AddQueues(Cli& cli) {
  AddQueueCommands(cli);
  AddQuotaCommands(cli);
}

}  // namespace vicreg::cli
