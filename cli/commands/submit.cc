// submit, validate, explain: everything that reads a job file.

#include <unistd.h>

#include <iostream>
#include <iterator>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/listing.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/recipe/explain.h"

namespace vicreg::cli {
namespace {

struct Options {
  std::string file, request_id, output, timeout = "0";
  std::vector<std::string> sets;
  std::string name, project, queue, priority;  // short for --set
  bool dry_run = false, wait = false, wait_placed = false, follow = false;
};

void AddFile(CLI::App& command, Options& options) {
  command.add_option("FILE", options.file, "Job file, YAML or JSON; - reads standard input")->required();
  command.add_option("--set", options.sets, "field.path=value over the file's, repeatable")->allow_extra_args(false);
}

absl::StatusOr<recipe::Resolved> Load(const Options& options) {
  ASSIGN_OR_RETURN(const std::string text, ReadJobText(options.file));
  absl::StatusOr<recipe::Resolved> resolved = recipe::ResolveText(text, ShownFile(options.file), options.sets);
  if (!resolved.ok()) return absl::InvalidArgumentError("not a valid job\n" + std::string(resolved.status().message()));
  return resolved;
}

// A spec's problems stand below one sentence that says what they mean.
absl::Status Refused(const absl::Status& status, const std::string& file) {
  if (status.code() != absl::StatusCode::kInvalidArgument) return status;
  return absl::InvalidArgumentError("the job is refused; nothing was stored (" + ShownFile(file) + ")\n" +
                                    std::string(status.message()));
}

// Every problem with its line, also those that only the cluster knows of; `known` where nobody can be asked for more.
absl::Status AllProblems(Client& client, const std::string& text, const Options& options, const absl::Status& known) {
  client.set_patience(std::chrono::milliseconds(0));
  const auto nodes = client.Call(client.cluster(), &v1::ClusterService::Stub::ListNodes, v1::ListNodesRequest());
  if (!nodes.ok() || nodes->nodes().empty()) return known;
  recipe::Offered offered(std::in_place);
  for (const v1::Node& node : nodes->nodes()) {
    offered->roots.insert(node.data_roots().begin(), node.data_roots().end());
    for (const v1::SlotCount& slots : node.slots()) offered->gpus |= slots.kind() == "gpu" && slots.total() > 0;
  }
  const absl::Status all = recipe::ResolveText(text, ShownFile(options.file), options.sets, offered).status();
  return all.ok() ? known : all;
}

absl::StatusOr<int> Submit(const Cli& cli, Options& options) {
  double timeout = 0;
  if ((timeout = ParseDuration(options.timeout)) < 0)
    return absl::InvalidArgumentError("--timeout: found \"" + options.timeout + "\"; expected e.g. 90s, 10m, 2h");
  for (const auto& [field, value] : {std::pair<const char*, const std::string&>{"name", options.name},
                                     {"project", options.project},
                                     {"queue", options.queue},
                                     {"priority", options.priority}}) {
    if (!value.empty()) options.sets.push_back(std::string(field) + "=" + value);
  }
  if (options.request_id.empty()) options.request_id = NewUuid();
  if (!IsUuid(options.request_id))
    return absl::InvalidArgumentError("--request-id: found \"" + options.request_id + "\"; expected a lower-case UUID");
  ASSIGN_OR_RETURN(const std::string text, ReadJobText(options.file));
  const auto client = cli.Connect();
  const auto resolved = recipe::ResolveText(text, ShownFile(options.file), options.sets);
  if (!resolved.ok()) return Refused(AllProblems(*client, text, options, resolved.status()), options.file);
  v1::SubmitJobRequest request;
  // As the user wrote it: presets and defaults are the coordinator's.
  ASSIGN_OR_RETURN(*request.mutable_spec(), spec::ParseJob(text, ShownFile(options.file), options.sets));
  request.set_request_id(options.request_id);
  request.set_dry_run(options.dry_run);

  absl::StatusOr<v1::SubmitJobResponse> answer;
  {
    Interrupts interrupts;
    // The call itself is short; what a user needs on Ctrl-C is the id with which the same submit can be repeated.
    interrupts.Set([&] {
      std::cerr << "\nvicreg: not acknowledged yet. To repeat this very submit without doubling it:\n  vicreg submit "
                << options.file << " --request-id " << options.request_id << "\n";
      _exit(kDetached);
    });
    answer = client->Call(client->jobs(), &v1::JobsService::Stub::SubmitJob, request);
  }
  if (!answer.ok()) {
    absl::Status status = answer.status();
    if (absl::IsInvalidArgument(status)) status = Refused(AllProblems(*client, text, options, status), options.file);
    if (absl::IsUnavailable(status)) {
      status = absl::UnavailableError(
          std::string(status.message()) +
          "\nThe job may or may not have been stored. To repeat this very submit without doubling it: --request-id " +
          options.request_id);
    }
    return status;
  }
  for (const std::string& warning : answer->warnings()) std::cerr << "warning: " << warning << "\n";
  const v1::Job& job = answer->job();
  if (options.output == "json" || options.output == "yaml") {
    std::cout << Written(JobToJson(job), options.output);
  } else if (options.dry_run) {
    std::cout << "valid; nothing was stored (recipe " << job.recipe_hash().substr(0, 16) << ")\n";
  } else if (options.output == "name") {
    std::cout << job.id() << "\n";
  } else {
    std::cout << "job " << job.id() << " (" << job.spec().name() << ") submitted: " << ShortName(job.state()) << ", "
              << Printable(job.message()) << "\n";
  }
  std::cout.flush();
  if (options.dry_run) return 0;
  if (options.wait_placed) {
    ASSIGN_OR_RETURN(const int placed, WaitPlaced(*client, job.id(), timeout > 0 ? timeout : 10));
    if (placed != 0) return placed;
  }
  if (!options.wait && !options.follow) return 0;
  return Watch(cli, *client, job.id(), /*quiet=*/!options.follow, timeout);
}

absl::StatusOr<int> Validate(const Options& options) {
  ASSIGN_OR_RETURN(const recipe::Resolved resolved, Load(options));
  for (const std::string& warning : resolved.warnings) std::cerr << "warning: " << warning << "\n";
  if (options.output != "table") {
    const nlohmann::ordered_json json = {
        {"valid", true}, {"recipe_hash", resolved.hash}, {"warnings", resolved.warnings}};
    std::cout << Written(json, options.output);
  } else {
    std::cout << ShownFile(options.file) << ": valid, recipe " << resolved.hash.substr(0, 16) << "\n";
  }
  return 0;
}

absl::StatusOr<int> Explain(const Options& options) {
  ASSIGN_OR_RETURN(const recipe::Resolved resolved, Load(options));
  std::cout << (options.output == "table" ? recipe::ExplainText(resolved)
                                          : Written(recipe::ExplainJson(resolved), options.output));
  return 0;
}

}  // namespace

std::string ShownFile(const std::string& file) { return file == "-" ? "<stdin>" : file; }

absl::StatusOr<std::string> ReadJobText(const std::string& file) {
  if (file != "-") {
    absl::StatusOr<std::string> text = ReadFile(file);
    // 7 is for jobs that do not exist.
    if (!text.ok()) return absl::InvalidArgumentError(std::string(text.status().message()));
    return text;
  }
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

void AddSubmit(Cli& cli) {
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("submit", "Submit a job; it is durable once this prints its id");
    AddFile(*command, *options);
    command->add_option("--request-id", options->request_id,
                        "UUID that makes a repeated submit the same one (default: a new one)");
    command->add_flag("--dry-run", options->dry_run, "Check everything, store nothing");
    command->add_option("--name", options->name, "Over the file's");
    command->add_option("--project", options->project, "Over the file's");
    command->add_option("--queue", options->queue, "Over the file's");
    command->add_option("--priority", options->priority, "Over the file's");
    command->add_flag(
        "--wait-placed", options->wait_placed,
        "Wait until it has all its slots, 10 s or --timeout; exit code 3, and why, when it has not: it stays "
        "queued");
    command->add_flag("--wait", options->wait, "Wait for the job's end; its exit code");
    command->add_flag("--follow", options->follow, "Like --wait, showing progress");
    command->add_option("--timeout", options->timeout, "Of waiting, e.g. 90s, 10m (default: none)");
    AddOutput(*command, options->output, {"table", "json", "yaml", "name"});
    command->callback([&cli, options] { cli.run = [&cli, options] { return Submit(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("validate", "Check a job file without a coordinator");
    AddFile(*command, *options);
    AddOutput(*command, options->output, {"table", "json", "yaml"});
    command->callback([&cli, options] { cli.run = [options] { return Validate(*options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand(
        "explain", "Show what a job file means: weights, parameters, bytes, memory, steps, warnings");
    AddFile(*command, *options);
    AddOutput(*command, options->output, {"table", "json", "yaml"});
    command->callback([&cli, options] { cli.run = [options] { return Explain(*options); }; });
  }
}

}  // namespace vicreg::cli
