#pragma once

// What every subcommand shares. Each file of commands/ adds its subcommands to the parser; the chosen one sets `run`.

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/client.h"
#include "cli/listing.h"
#include "common/status.h"

namespace vicreg::cli {

struct Cli {
  CLI::App& app;
  std::string coordinator = "127.0.0.1:7070";
  bool no_headers = false, no_color = false, yes = false;
  // Exit code, or an error that main prints and turns into one.
  std::function<absl::StatusOr<int>()> run;

  std::unique_ptr<Client> Connect() const { return std::make_unique<Client>(coordinator); }
  bool color() const;  // of stdout
};

// `-o, --output`, one of `formats`, the first by default.
void AddOutput(CLI::App& command, std::string& output, const std::vector<std::string>& formats);
// `-o`, `--columns` and `--sort`, of commands that list things.
void AddForm(CLI::App& command, Form& form);
// InvalidArgument: no such column.
absl::Status Print(const Cli& cli, Listing listing, const Form& form);

// Says what `text` makes; with `watch` again every 2 s until Ctrl-C, over the picture before on a terminal. Elsewhere
// only lines that are new since the time before: `text` should then leave out what always changes.
absl::StatusOr<int> Show(const std::function<absl::StatusOr<std::string>()>& text, bool watch);

void AddDevelopment(Cli& cli);  // up, down
void AddSubmit(Cli& cli);       // submit, validate, explain
void AddJobs(Cli& cli);         // list, describe, cancel, export
void AddFollow(Cli& cli);       // watch, wait
void AddSeries(Cli& cli);       // metrics, events, logs
void AddChanges(Cli& cli);      // pause, resume, hold, release, requeue, restart, resize, priority, kill
void AddWhy(Cli& cli);          // why, plan
void AddTop(Cli& cli);          // top
void AddCluster(Cli& cli);      // node, version
void AddAdmin(Cli& cli);        // admin
void AddQueues(Cli& cli);       // queue, quota
void AddCompletion(Cli& cli);   // completion

// Wall clock, Unix microseconds: for ages.
std::int64_t NowUs();

// Candidates for the last of `words`, a line each: what `vicreg __complete` prints for the shells.
std::vector<std::string> Complete(Cli& cli, const std::vector<std::string>& words);
// docs/reference/cli.md, from the parser itself.
std::string Reference(const CLI::App& app);

// Full ids of jobs given by the beginnings of theirs.
absl::StatusOr<std::vector<std::string>> FullIds(Client& client, const std::vector<std::string>& prefixes);
// Seconds of a --grace; InvalidArgument: not 0s to 1h.
absl::StatusOr<double> ParseGrace(const std::string& text);
// Before something that cannot be taken back: --yes, or an answer at the terminal. InvalidArgument: nobody can be
// asked.
absl::StatusOr<bool> Confirmed(const Cli& cli, const std::string& what);
// A job file as text, or standard input for "-".
absl::StatusOr<std::string> ReadJobText(const std::string& file);
// As it is named in messages.
std::string ShownFile(const std::string& file);

// Shared by submit --follow, watch and wait.
// Shows the job until it has ended; its exit code.
absl::StatusOr<int> Watch(const Cli& cli, Client& client, const std::string& id, bool quiet, double timeout_seconds);
// Until it has been given all its slots, or has ended: 0. 3: not within that time; says why on standard error.
absl::StatusOr<int> WaitPlaced(Client& client, const std::string& id, double timeout_seconds);
// What to type after Ctrl-C.
std::string DetachHint(const std::string& id);

}  // namespace vicreg::cli
