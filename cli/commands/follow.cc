// watch, wait: commands that last until a job has ended.

#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"

namespace vicreg::cli {
namespace {

int TerminalColumns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

// Writes one picture over the one before.
class Screen {
 public:
  void Draw(const std::string& text) {
    if (lines_ > 0) std::cout << "\033[" << lines_ << "A\033[J";
    std::cout << text << std::flush;
    lines_ = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }

 private:
  int lines_ = 0;
};

std::optional<SteadyTime> Deadline(double timeout_seconds) {
  if (timeout_seconds <= 0) return std::nullopt;
  return std::chrono::steady_clock::now() +
         std::chrono::milliseconds(static_cast<std::int64_t>(timeout_seconds * 1000));
}

using Take = std::function<bool(const v1::Job&)>;

// Feeds `take` until it answers false or the job has ended.
absl::Status FollowJob(Client& client, const std::string& id, std::optional<SteadyTime> deadline, const Take& take) {
  v1::WatchJobRequest request;
  request.set_id(id);
  Interrupts interrupts;
  absl::Status status = client.Follow<v1::WatchJobResponse>(
      interrupts, deadline, [&](grpc::ClientContext* context) { return client.jobs().WatchJob(context, request); },
      [&](const v1::WatchJobResponse& update) { return take(update.job()) && !HasEnded(update.job().state()); });
  if (absl::IsCancelled(status)) std::cerr << DetachHint(id) << "\n";
  if (absl::IsDeadlineExceeded(status))
    status = absl::DeadlineExceededError("job " + ShortId(id) + " did not get there in time. " + DetachHint(id));

  return status;
}

struct Options {
  std::vector<std::string> ids;
  std::string until = "terminal", timeout = "0", output;
};

// What `wait --for` waits for.
absl::StatusOr<std::function<bool(const v1::Job&)>> Condition(const std::string& text) {
  if (text == "terminal") return [](const v1::Job& job) { return HasEnded(job.state()); };
  if (text == "running")
    return [](const v1::Job& job) { return job.state() == v1::JOB_STATE_RUNNING || HasEnded(job.state()); };
  char* end = nullptr;
  const long long step = text.rfind("step=", 0) == 0 ? std::strtoll(text.c_str() + 5, &end, 10) : 0;
  if (step < 1 || *end != '\0')
    return absl::InvalidArgumentError("--for: found \"" + text + "\"; expected terminal, running or step=N");
  return [step](const v1::Job& job) { return job.step() >= step || HasEnded(job.state()); };
}

absl::StatusOr<int> Wait(const Cli& cli, const Options& options) {
  const double timeout = ParseDuration(options.timeout);
  if (timeout < 0)
    return absl::InvalidArgumentError("--timeout: found \"" + options.timeout + "\"; expected e.g. 90s, 10m, 2h");
  ASSIGN_OR_RETURN(const auto reached, Condition(options.until));
  const auto client = cli.Connect();
  const auto deadline = Deadline(timeout);
  int code = 0;
  for (const std::string& prefix : options.ids) {
    ASSIGN_OR_RETURN(const std::string id, client->FullId(prefix));
    v1::Job last;
    RETURN_IF_ERROR(FollowJob(*client, id, deadline, [&](const v1::Job& job) {
      last = job;
      return !reached(job);
    }));
    std::cout << ProgressLine(last) << std::endl;
    if (HasEnded(last.state()) && code == 0) code = ExitCode(last);
  }
  return code;
}

}  // namespace

std::string DetachHint(const std::string& id) {
  return "The job goes on without this command. To come back: vicreg watch " + ShortId(id) +
         "   To end it: vicreg cancel " + ShortId(id);
}

absl::StatusOr<int> WaitPlaced(Client& client, const std::string& id, double timeout_seconds) {
  v1::Job last;
  const absl::Status status = FollowJob(client, id, Deadline(timeout_seconds), [&](const v1::Job& job) {
    last = job;
    return job.state() != v1::JOB_STATE_STARTING && job.state() != v1::JOB_STATE_RUNNING;
  });
  if (absl::IsCancelled(status)) return kDetached;
  if (absl::IsDeadlineExceeded(status)) {
    std::cerr << "vicreg: not placed: " << ShortName(last.reason()) << ", " << Printable(last.message())
              << "; it stays queued, vicreg cancel " << ShortId(id) << " ends it\n";
    return kNotPlaced;
  }
  RETURN_IF_ERROR(status);
  return 0;
}

absl::StatusOr<int> Watch(const Cli& cli, Client& client, const std::string& id, bool quiet, double timeout_seconds) {
  const bool redraw = !quiet && isatty(STDOUT_FILENO) == 1;
  Screen screen;
  LineFilter filter;
  v1::Job last;
  const absl::Status status = FollowJob(client, id, Deadline(timeout_seconds), [&](const v1::Job& job) {
    last = job;
    if (redraw) {
      screen.Draw(Panel(job, TerminalColumns(), cli.color()));
    } else if (!quiet && filter.Wants(job)) {
      std::cout << ProgressLine(job) << std::endl;
    }
    return true;
  });
  if (absl::IsCancelled(status)) return kDetached;
  if (absl::IsDeadlineExceeded(status)) {
    std::cerr << "vicreg: " << status.message() << "\n";
    return kWaitTimedOut;
  }
  RETURN_IF_ERROR(status);
  if (quiet) std::cout << ProgressLine(last) << std::endl;
  return ExitCode(last);
}

void AddFollow(Cli& cli) {
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("watch", "Show a job's progress until it has ended; its exit code");
    command->add_option("ID", options->ids, "Job id or the beginning of it")->required()->expected(1);
    command->add_option("--timeout", options->timeout, "Give up after this time, e.g. 90s, 10m (default: never)");
    command->callback([&cli, options] {
      cli.run = [&cli, options]() -> absl::StatusOr<int> {
        const double timeout = ParseDuration(options->timeout);
        if (timeout < 0)
          return absl::InvalidArgumentError("--timeout: found \"" + options->timeout +
                                            "\"; expected e.g. 90s, 10m, 2h");
        const auto client = cli.Connect();
        ASSIGN_OR_RETURN(const std::string id, client->FullId(options->ids.front()));
        return Watch(cli, *client, id, /*quiet=*/false, timeout);
      };
    });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand(
        "wait", "Wait for jobs without showing progress; the exit code of the first that did not succeed");
    command->add_option("ID", options->ids, "Job ids or the beginnings of them")->required();
    command->add_option("--for", options->until, "terminal, running or step=N")->capture_default_str();
    command->add_option("--timeout", options->timeout, "Exit with 101 after this time, e.g. 90s, 10m (default: never)");
    command->callback([&cli, options] { cli.run = [&cli, options] { return Wait(cli, *options); }; });
  }
}

}  // namespace vicreg::cli
