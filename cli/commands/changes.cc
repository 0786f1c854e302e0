// pause, resume, hold, release, requeue, restart, resize, priority: changes of jobs that can be taken back.

#include <iostream>

#include "cli/command.h"
#include "cli/json.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"
#include "common/ids.h"

namespace vicreg::cli {
namespace {

struct Options {
  std::vector<std::string> ids;
  std::string grace = "120s", reason;
  std::int64_t expected = 0, number = 0;
};

using Fill = std::function<void(v1::ChangeJobRequest&, const Options&)>;

absl::StatusOr<int> Change(const Cli& cli, const Options& options, const Fill& fill) {
  ASSIGN_OR_RETURN(const double grace, ParseGrace(options.grace));
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const std::vector<std::string> ids, FullIds(*client, options.ids));
  for (const std::string& id : ids) {
    v1::ChangeJobRequest request;
    request.set_id(id);
    request.set_request_id(NewUuid());
    request.set_note(options.reason);
    request.set_grace_seconds(grace);
    request.set_expected_version(options.expected);
    fill(request, options);
    ASSIGN_OR_RETURN(const v1::ChangeJobResponse answer,
                     client->Call(client->jobs(), &v1::JobsService::Stub::ChangeJob, request));
    std::cout << ShortId(id) << "  " << ShortName(answer.job().state()) << "  " << Printable(answer.job().message())
              << "\n";
  }
  return 0;
}

// `stops`: ranks may have to leave, so there is a grace.
CLI::App* Add(Cli& cli, const std::string& name, const std::string& help, bool stops, const Fill& fill,
              const std::function<void(CLI::App&, Options&)>& more = {}) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = cli.app.add_subcommand(name, help);
  const auto one = std::make_shared<std::string>();
  if (more) {
    command->add_option("ID", *one, "Job id or the beginning of it")->required();
    more(*command, *options);
  } else {
    command->add_option("ID", options->ids, "Job ids or the beginnings of them")->required();
  }
  if (stops) {
    command->add_option("--grace", options->grace, "Time the ranks get to save and leave")->capture_default_str();
  }
  command->add_option("--reason", options->reason, "Why, shown in the events");
  command->add_option("--expected-version", options->expected,
                      "Refuse if the job has changed since (its `version`; exit code 5)");
  command->callback([&cli, options, one, fill] {
    if (!one->empty()) options->ids = {*one};
    cli.run = [&cli, options, fill] { return Change(cli, *options, fill); };
  });
  return command;
}

}  // namespace

void AddChanges(Cli& cli) {
  Add(cli, "pause", "Stop jobs, saving where they are, until they are resumed", true,
      [](v1::ChangeJobRequest& r, const Options&) { r.mutable_pause(); });
  Add(cli, "resume", "Put paused jobs back to their places in the queue", false,
      [](v1::ChangeJobRequest& r, const Options&) { r.mutable_resume(); });
  Add(cli, "hold", "Forbid the next start of jobs; what runs runs on", false,
      [](v1::ChangeJobRequest& r, const Options&) { r.mutable_hold(); });
  Add(cli, "release", "Let held jobs start again", false,
      [](v1::ChangeJobRequest& r, const Options&) { r.mutable_release(); });
  Add(cli, "requeue", "Stop jobs and queue them again at their places, from their newest checkpoints", true,
      [](v1::ChangeJobRequest& r, const Options&) { r.mutable_requeue(); });
  Add(
      cli, "restart", "Stop a job and start it again from a checkpoint; later ones are given up", true,
      [](v1::ChangeJobRequest& r, const Options& o) {
        r.mutable_restart();
        if (o.number >= 0) r.mutable_restart()->set_from_step(o.number);
      },
      [](CLI::App& command, Options& options) {
        options.number = -1;
        command.add_option("--from", options.number, "Step of the checkpoint; 0: its start (default: the newest)");
      });
  Add(
      cli, "resize", "Give a job another number of ranks, by a restart; the global batch and the experiment stay", true,
      [](v1::ChangeJobRequest& r, const Options& o) { r.mutable_resize()->set_world_size(static_cast<int>(o.number)); },
      [](CLI::App& command, Options& options) {
        command.add_option("--world-size", options.number, "Ranks it is to have")
            ->required()
            ->check(CLI::Range(-1000000, 1000000));
      });
  Add(
      cli, "priority", "Change a job's priority; higher goes first", false,
      [](v1::ChangeJobRequest& r, const Options& o) {
        r.mutable_reprioritize()->set_priority(static_cast<int>(o.number));
      },
      [](CLI::App& command, Options& options) {
        command.add_option("N", options.number, "-1000 to 1000, within its queue's bounds")
            ->required()
            ->check(CLI::Range(-1000000, 1000000));
      });
}

}  // namespace vicreg::cli
