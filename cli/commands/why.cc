// why, plan: what a job waits for, and what one would wait for.

#include <iostream>

#include "cli/command.h"
#include "cli/json.h"
#include "cli/listing.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"
#include "common/ids.h"
#include "common/spec/spec.h"

namespace vicreg::cli {
namespace {

struct Options {
  std::string id, file, output;
  std::vector<std::string> sets;
};

absl::StatusOr<int> Why(const Cli& cli, const Options& options) {
  ASSIGN_OR_RETURN(const v1::Job job, cli.Connect()->Get(options.id));
  if (options.output != "table") {
    const nlohmann::ordered_json json = {{"id", job.id()},
                                         {"state", ShortName(job.state())},
                                         {"reason", ShortName(job.reason())},
                                         {"message", job.message()}};
    std::cout << Written(json, options.output);
  } else {
    std::cout << ShortId(job.id()) << "  " << ShortName(job.state()) << "  " << ShortName(job.reason()) << "\n"
              << Printable(job.message()) << "\n";
  }
  return 0;
}

absl::StatusOr<int> Plan(const Cli& cli, const Options& options) {
  ASSIGN_OR_RETURN(const std::string text, ReadJobText(options.file));
  v1::SubmitJobRequest request;
  ASSIGN_OR_RETURN(*request.mutable_spec(), spec::ParseJob(text, ShownFile(options.file), options.sets));
  request.set_request_id(NewUuid());
  request.set_dry_run(true);
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const v1::SubmitJobResponse answer,
                   client->Call(client->jobs(), &v1::JobsService::Stub::SubmitJob, request));
  const v1::PlacementPlan& plan = answer.plan();
  if (options.output != "table") {
    std::cout << Written(ToJson(plan), options.output);
    return 0;
  }
  if (plan.starts_now()) {
    std::cout << "would start at once with " << plan.ranks_size() << (plan.ranks_size() == 1 ? " rank\n" : " ranks\n");
    std::vector<std::vector<std::string>> rows;
    for (const v1::RankStatus& rank : plan.ranks())
      rows.push_back({std::to_string(rank.rank()), Printable(rank.node()), std::to_string(rank.slot())});
    std::cout << Table({"RANK", "NODE", "SLOT"}, rows);
    return 0;
  }
  std::cout << "would wait: " << ShortName(plan.reason()) << "\n" << Printable(plan.message()) << "\n";
  if (plan.has_starts_in_seconds()) {
    std::cout << "could start in " << Duration(plan.starts_in_seconds())
              << ", when jobs that run now have ended at their present rates\n";
  }
  for (const std::string& id : plan.displaces()) std::cout << "would stop " << ShortId(id) << " for it\n";
  return 0;
}

}  // namespace

void AddWhy(Cli& cli) {
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("why", "Why a job is as it is: one reason, one sentence");
    command->add_option("ID", options->id, "Job id or the beginning of it")->required();
    AddOutput(*command, options->output, {"table", "json", "yaml"});
    command->callback([&cli, options] { cli.run = [&cli, options] { return Why(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand(
        "plan", "Where a job would run if it were submitted now, or what it would wait for and displace");
    command->add_option("FILE", options->file, "Job file, YAML or JSON; - reads standard input")->required();
    command->add_option("--set", options->sets, "field.path=value over the file's, repeatable")
        ->allow_extra_args(false);
    AddOutput(*command, options->output, {"table", "json", "yaml"});
    command->callback([&cli, options] { cli.run = [&cli, options] { return Plan(cli, *options); }; });
  }
}

}  // namespace vicreg::cli
