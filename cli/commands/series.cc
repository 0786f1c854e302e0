// metrics, events, logs: what a job leaves behind, line by line.

#include <algorithm>
#include <functional>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/text.h"
#include "cli/view.h"
#include "common/enum_names.h"

namespace vicreg::cli {
namespace {

struct Options {
  std::string id, output;
  bool follow = false, all_attempts = false;
  int rank = 0, attempt = 0;
};

absl::StatusOr<int> Ended(const absl::Status& status, const std::string& id) {
  if (!absl::IsCancelled(status)) {
    RETURN_IF_ERROR(status);
    return 0;
  }
  std::cerr << DetachHint(id) << "\n";
  return kDetached;
}

// Every field of a row, in the message's order: columns of CSV.
std::vector<std::string> Columns() {
  std::vector<std::string> names;
  for (int i = 0; i < v1::MetricRow::descriptor()->field_count(); ++i)
    names.push_back(v1::MetricRow::descriptor()->field(i)->name());
  return names;
}

std::string Csv(const v1::MetricRow& row) {
  const auto json = ToJson(row);
  std::string line;
  for (const std::string& column : Columns()) {
    if (column != Columns().front()) line += ",";
    if (column == "knn_by_branch") {  // a cell: branch=accuracy, with ; between them
      for (const v1::BranchAccuracy& of : row.knn_by_branch())
        line += (&of == &row.knn_by_branch(0) ? "" : ";") + of.branch() + "=" + nlohmann::json(of.accuracy()).dump();
    } else if (json.contains(column)) {
      line += json[column].dump();
    }
  }
  return line;
}

// Fixed widths: rows arrive one by one.
std::string Aligned(const std::vector<std::string>& cells) {
  std::ostringstream line;
  for (std::size_t i = 0; i < cells.size(); ++i) line << std::setw(i == 0 ? 7 : 11) << cells[i] << " ";
  std::string text = line.str();
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

class MetricPrinter {
 public:
  MetricPrinter(std::string format, bool headers) : format_(std::move(format)) {
    if (format_ == "csv" && headers) {
      std::string line;
      for (const std::string& column : Columns()) line += (line.empty() ? "" : ",") + column;
      std::cout << line << "\n";
    }
    if (format_ == "table" && headers)
      std::cout << Aligned({"STEP", "LOSS", "INVARIANCE", "VARIANCE", "COVARIANCE", "LR", "IMAGES/S", "STD_MEAN", "KNN",
                            "ATTEMPT"})
                << "\n";
  }

  void Print(const v1::StreamMetricsResponse& entry) {
    if (entry.has_rollback()) {
      const auto& back = entry.rollback();
      if (format_ == "jsonl")
        std::cout << nlohmann::ordered_json{{"rollback_to_step", back.step()}, {"attempt", back.attempt()}}.dump()
                  << "\n";
      if (format_ == "table")
        std::cout << "-- attempt " << back.attempt() << " went back to step " << back.step()
                  << ": rows above it no longer count\n";
      return;
    }
    const v1::MetricRow& row = entry.row();
    if (format_ == "jsonl") {
      std::cout << ToJson(row).dump() << "\n";
    } else if (format_ == "csv") {
      std::cout << Csv(row) << "\n";
    } else {
      std::cout << Aligned({std::to_string(row.step()), Short(row.loss()), Short(row.invariance()),
                            Short(row.variance()), Short(row.covariance()), Short(row.learning_rate()),
                            Short(row.images_per_second()), Short(row.z_std_mean()),
                            row.has_knn_accuracy() ? Percent(row.knn_accuracy()) : "-", std::to_string(row.attempt())})
                << "\n";
    }
  }

 private:
  const std::string format_;
};

absl::StatusOr<int> Metrics(const Cli& cli, const Options& options) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const std::string id, client->FullId(options.id));
  v1::StreamMetricsRequest request;
  request.set_id(id);
  request.set_follow(options.follow);
  request.set_all_attempts(options.all_attempts);
  std::optional<MetricPrinter> printer;
  Interrupts interrupts;
  const absl::Status status = client->Follow<v1::StreamMetricsResponse>(
      interrupts, std::nullopt,
      [&](grpc::ClientContext* context) { return client->jobs().StreamMetrics(context, request); },
      [&](const v1::StreamMetricsResponse& entry) {
        if (!printer) printer.emplace(options.output, !cli.no_headers);
        printer->Print(entry);
        if (options.follow) std::cout.flush();
        request.set_resume_token(entry.resume_token());  // where a broken stream goes on
        return std::cout.good();
      });
  return Ended(status, id);
}

absl::StatusOr<int> Events(const Cli& cli, const Options& options) {
  const auto client = cli.Connect();
  v1::WatchEventsRequest request;
  if (!options.id.empty()) {
    ASSIGN_OR_RETURN(*request.mutable_id(), client->FullId(options.id));
  }
  request.set_follow(options.follow);
  Interrupts interrupts;
  const absl::Status status = client->Follow<v1::WatchEventsResponse>(
      interrupts, std::nullopt,
      [&](grpc::ClientContext* context) { return client->jobs().WatchEvents(context, request); },
      [&](const v1::WatchEventsResponse& event) {
        if (options.output == "jsonl") {
          std::cout << ToJson(event).dump() << "\n";
        } else {
          const std::string reason =
              event.reason() == v1::REASON_UNSPECIFIED ? "" : " (" + ShortName(event.reason()) + ")";
          std::cout << Time(event.time_us()) << "  " << (options.id.empty() ? ShortId(event.job_id()) + "  " : "")
                    << std::left << std::setw(11) << event.kind() << " " << Printable(event.message()) << reason
                    << "  [" << Printable(event.actor()) << ", attempt " << event.attempt() << "]\n";
        }
        if (options.follow) std::cout.flush();
        request.set_after_seq(event.seq());
        return std::cout.good();
      });
  return Ended(status, request.id());
}

// A rank's log is one JSON object per line; people get "time level message".
std::string Readable(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("message") || !json["message"].is_string()) return Printable(line);
  const auto text = [&](const char* key) {
    return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : std::string();
  };
  const std::string level = text("level");
  return text("time") + "  " + (level == "info" ? "" : level + ": ") + Printable(text("message"));
}

absl::StatusOr<int> Logs(const Cli& cli, const Options& options) {
  const auto client = cli.Connect();
  ASSIGN_OR_RETURN(const std::string id, client->FullId(options.id));
  v1::StreamLogsRequest request;
  request.set_id(id);
  request.set_rank(options.rank);
  request.set_attempt(options.attempt);
  request.set_follow(options.follow);
  std::int64_t next = 0;  // byte of the log
  std::string rest;       // of a line not complete yet
  Interrupts interrupts;
  const absl::Status status = client->Follow<v1::StreamLogsResponse>(
      interrupts, std::nullopt,
      [&](grpc::ClientContext* context) { return client->jobs().StreamLogs(context, request); },
      [&](const v1::StreamLogsResponse& chunk) {
        // A stream that was opened again begins at the first byte.
        if (const std::int64_t skip = next - chunk.offset(); skip < static_cast<std::int64_t>(chunk.data().size()))
          rest += chunk.data().substr(static_cast<std::size_t>(std::max<std::int64_t>(skip, 0)));
        next = std::max(next, chunk.offset() + static_cast<std::int64_t>(chunk.data().size()));
        for (std::size_t end = 0; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1)) {
          const std::string line = rest.substr(0, end);
          std::cout << (options.output == "json" ? line : Readable(line)) << "\n";
        }
        if (options.follow) std::cout.flush();
        return std::cout.good();
      });
  if (!rest.empty()) std::cout << (options.output == "json" ? rest : Readable(rest)) << "\n";
  ASSIGN_OR_RETURN(const int code, Ended(status, id));
  if (code != 0 || !options.follow) return code;
  ASSIGN_OR_RETURN(const v1::Job job, client->Get(id));
  return HasEnded(job.state()) ? ExitCode(job) : 0;
}

}  // namespace

void AddSeries(Cli& cli) {
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command =
        cli.app.add_subcommand("metrics", "The loss terms and the rest of what was measured, one row per step");
    command->add_option("ID", options->id, "Job id or the beginning of it")->required();
    command->add_flag("-f,--follow", options->follow, "Go on until the job has ended");
    command->add_flag("--all-attempts", options->all_attempts, "Also rows that a later attempt superseded");
    AddOutput(*command, options->output, {"table", "jsonl", "csv"});
    command->callback([&cli, options] { cli.run = [&cli, options] { return Metrics(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("events", "What happened to a job (or, without ID, to all), and why");
    command->add_option("ID", options->id, "Job id or the beginning of it");
    command->add_flag("-w,--watch", options->follow, "Go on until the job has ended");
    AddOutput(*command, options->output, {"table", "jsonl"});
    command->callback([&cli, options] { cli.run = [&cli, options] { return Events(cli, *options); }; });
  }
  {
    const auto options = std::make_shared<Options>();
    CLI::App* command = cli.app.add_subcommand("logs", "The log of one rank");
    command->add_option("ID", options->id, "Job id or the beginning of it")->required();
    command->add_flag("-f,--follow", options->follow, "Go on until the rank has ended");
    command->add_option("--rank", options->rank, "Rank")->capture_default_str();
    command->add_option("--attempt", options->attempt, "Attempt; 0 is the newest")->capture_default_str();
    AddOutput(*command, options->output, {"table", "json"});
    command->callback([&cli, options] { cli.run = [&cli, options] { return Logs(cli, *options); }; });
  }
}

}  // namespace vicreg::cli
