// list, describe, cancel, kill, export: one answer each.

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/listing.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"
#include "common/files.h"
#include "common/ids.h"

namespace vicreg::cli {
namespace {

struct Options {
  std::vector<std::string> ids, states;
  std::string project, queue;
  bool mine = false, watch = false;
  Form form;
  std::string output, grace = "10s", folder, reason;
};

absl::StatusOr<Listing> ListedJobs(Client& client, const Options& options) {
  std::vector<v1::JobState> states;
  for (std::string name : options.states) {
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    if (!v1::JobState_Parse("JOB_STATE_" + name, &state))
      return absl::InvalidArgumentError("--state: found \"" + name +
                                        "\"; expected e.g. QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED");
    states.push_back(state);
  }
  ASSIGN_OR_RETURN(std::vector<v1::Job> jobs, client.List(states));
  const passwd* user = getpwuid(getuid());
  const std::string me = user == nullptr ? std::to_string(getuid()) : user->pw_name;
  std::erase_if(jobs, [&](const v1::Job& job) {
    const std::string owner = job.owner().substr(job.owner().rfind(':') + 1);
    return (!options.project.empty() && job.spec().project() != options.project) ||
           (!options.queue.empty() && job.spec().queue() != options.queue) || (options.mine && owner != me);
  });
  Listing listing{"jobs", ListColumns(), {}};
  for (const v1::Job& job : jobs) listing.items.push_back({job.id(), ListRow(job, NowUs()), JobToJson(job)});
  return listing;
}

absl::StatusOr<int> List(const Cli& cli, Options options) {
  Form& form = options.form;
  const auto client = cli.Connect();
  if (!options.watch) {
    ASSIGN_OR_RETURN(Listing listing, ListedJobs(*client, options));
    const bool empty = listing.items.empty();
    RETURN_IF_ERROR(Print(cli, std::move(listing), form));
    if (empty) std::cerr << "no such jobs: `vicreg list` shows all, `vicreg submit FILE` makes one\n";
    return 0;
  }
  if (form.output != "table" && form.output != "wide")
    return absl::InvalidArgumentError("--watch shows a table: for programs there is `vicreg events -w -o jsonl`");
  // Without what changes all the time, a line is said again only when something happened.
  if (form.columns.empty() && isatty(STDOUT_FILENO) != 1)
    form.columns = {"id", "name", "state", "reason", "prio", "slots", "attempt", "message"};
  return Show(
      [&]() -> absl::StatusOr<std::string> {
        ASSIGN_OR_RETURN(Listing listing, ListedJobs(*client, options));
        return Render(std::move(listing), form, !cli.no_headers);
      },
      /*watch=*/true);
}

absl::StatusOr<int> DescribeOne(const Cli& cli, const Options& options) {
  ASSIGN_OR_RETURN(const v1::Job job, cli.Connect()->Get(options.ids.front()));
  std::cout << (options.output == "table" ? Describe(job, NowUs()) : Written(JobToJson(job), options.output));
  return 0;
}

absl::StatusOr<int> Cancel(const Cli& cli, const Options& options) {
  ASSIGN_OR_RETURN(const double grace, ParseGrace(options.grace));
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const std::vector<std::string> ids, FullIds(*client, options.ids));
  ASSIGN_OR_RETURN(const bool confirmed,
                   Confirmed(cli, "cancel " + std::to_string(ids.size()) + (ids.size() == 1 ? " job" : " jobs")));
  if (!confirmed) return 0;
  for (const std::string& id : ids) {
    v1::CancelJobRequest request;
    request.set_id(id);
    request.set_request_id(NewUuid());
    request.set_grace_seconds(grace);
    request.set_note(options.reason);
    ASSIGN_OR_RETURN(const v1::CancelJobResponse answer,
                     client->Call(client->jobs(), &v1::JobsService::Stub::CancelJob, request));
    std::cout << ShortId(id) << "  " << ShortName(answer.job().state()) << "  " << Printable(answer.job().message())
              << "\n";
  }
  return 0;
}

// Files arrive whole and are checked before they get their names.
absl::StatusOr<int> Export(const Cli& cli, const Options& options) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const std::string id, client->FullId(options.ids.front()));
  RETURN_IF_ERROR(MakeFolders(options.folder));
  v1::ExportJobRequest request;
  request.set_id(id);
  std::string name, sha256, bytes;
  std::vector<std::string> written;
  const auto finish = [&]() -> absl::Status {
    if (name.empty()) return absl::OkStatus();
    if (Sha256Hex(bytes) != sha256)
      return absl::DataLossError(name + " of job " + ShortId(id) +
                                 " arrived damaged (SHA-256 differs): run the command again");
    const std::string path = (std::filesystem::path(options.folder) / name).string();
    RETURN_IF_ERROR(WriteFileAtomically(path, bytes, 0644));
    written.push_back(path + " (" + Grouped(static_cast<std::int64_t>(bytes.size())) + " bytes)");
    bytes.clear();
    return absl::OkStatus();
  };
  absl::Status failed;
  Interrupts interrupts;
  const absl::Status read = client->Follow<v1::ExportJobResponse>(
      interrupts, std::nullopt,
      [&](grpc::ClientContext* context) {
        name.clear();
        bytes.clear();
        written.clear();
        return client->jobs().ExportJob(context, request);
      },
      [&](const v1::ExportJobResponse& chunk) {
        if (chunk.name() != name) {
          if (failed = finish(); !failed.ok()) return false;
          name = chunk.name();
          sha256 = chunk.sha256();
          // It becomes a path here.
          if (name != std::filesystem::path(name).filename().string() || name == "..")
            failed = absl::DataLossError("the coordinator sent a file name with a folder in it");
        }
        bytes += chunk.data();
        return failed.ok();
      });
  RETURN_IF_ERROR(failed);
  RETURN_IF_ERROR(read);
  RETURN_IF_ERROR(finish());
  for (const std::string& file : written) std::cout << file << "\n";
  return 0;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FullIds(Client& client, const std::vector<std::string>& prefixes) {
  std::vector<std::string> ids;
  for (const std::string& prefix : prefixes) {
    ASSIGN_OR_RETURN(const std::string id, client.FullId(prefix));
    ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<double> ParseGrace(const std::string& text) {
  const double grace = ParseDuration(text);
  if (grace >= 0 && grace <= 3600) return grace;
  return absl::InvalidArgumentError("--grace: found \"" + text + "\"; expected 0s to 1h");
}

absl::StatusOr<bool> Confirmed(const Cli& cli, const std::string& what) {
  if (cli.yes) return true;
  if (isatty(STDIN_FILENO) != 1)
    return absl::InvalidArgumentError(what + " cannot be taken back: add --yes where nobody can be asked");
  std::cerr << what << "? [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  if (answer == "y" || answer == "Y" || answer == "yes") return true;
  std::cerr << "nothing was done\n";
  return false;
}

void AddJobs(Cli& cli) {
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("list", "All jobs, oldest first")->alias("ls");
    command->add_option("--state", options->states, "Only jobs in this state, repeatable")->allow_extra_args(false);
    command->add_option("--project", options->project, "Only jobs of this project");
    command->add_option("--queue", options->queue, "Only jobs of this queue");
    command->add_flag("--mine", options->mine, "Only jobs of the user who asks");
    command->add_flag("-w,--watch", options->watch, "Again every 2 s, until Ctrl-C; into a file only what changes");
    AddForm(*command, options->form);
    command->callback([&cli, options] { cli.run = [&cli, options] { return List(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command =
        cli.app.add_subcommand("describe", "Everything about one job: state and why, progress, ranks, checkpoints")
            ->alias("get");
    command->add_option("ID", options->ids, "Job id or the beginning of it")->required()->expected(1);
    AddOutput(*command, options->output, {"table", "json", "yaml"});
    command->callback([&cli, options] { cli.run = [&cli, options] { return DescribeOne(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("cancel", "End jobs; answers when the wish is durable");
    command->add_option("ID", options->ids, "Job ids or the beginnings of them")->required();
    command->add_option("--grace", options->grace, "Time the ranks get to stop by themselves")->capture_default_str();
    command->add_option("--reason", options->reason, "Why, shown in the events");
    command->callback([&cli, options] { cli.run = [&cli, options] { return Cancel(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    options->grace = "0s";
    CLI::App* command = cli.app.add_subcommand("kill", "Cancel without grace: what was not saved is lost");
    command->add_option("ID", options->ids, "Job ids or the beginnings of them")->required();
    command->add_option("--reason", options->reason, "Why, shown in the events");
    command->callback([&cli, options] { cli.run = [&cli, options] { return Cancel(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("export", "Fetch the trained encoder (safetensors) and its description");
    command->add_option("ID", options->ids, "Job id or the beginning of it")->required()->expected(1);
    command->add_option("--to", options->folder, "Folder to write to")->required();
    command->callback([&cli, options] { cli.run = [&cli, options] { return Export(cli, *options); }; });
  }
}

}  // namespace vicreg::cli
