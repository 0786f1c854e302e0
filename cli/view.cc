#include "cli/view.h"

#include <algorithm>
#include <map>

#include "cli/exit_code.h"
#include "cli/text.h"
#include "common/enum_names.h"
#include "common/spec/spec.h"

namespace vicreg::cli {
namespace {

std::string Ago(std::int64_t then_us, std::int64_t now_us) {
  return then_us == 0 ? "" : Duration(static_cast<double>(now_us - then_us) / 1e6);
}

std::string Steps(const v1::Job& job) {
  return Grouped(job.step()) + (job.total_steps() > 0 ? " of " + Grouped(job.total_steps()) : "");
}

std::string SlotKind(const v1::Job& job) { return job.spec().device() == v1::DEVICE_GPU ? "gpu" : "cpu"; }

constexpr const char *kRed = "\033[31m", *kGreen = "\033[32m", *kYellow = "\033[33m";

// The first `word` of `line` in a colour.
void Paint(std::string& line, const std::string& word, const char* color) {
  if (const std::size_t at = line.find(word); at != std::string::npos)
    line.replace(at, word.size(), color + word + "\033[0m");
}

std::string Terms(const v1::MetricRow& row) {
  return "loss " + Short(row.loss()) + " = invariance " + Short(row.invariance_weighted()) + " + variance " +
         Short(row.variance_weighted()) + " + covariance " + Short(row.covariance_weighted());
}

}  // namespace

std::string ShortId(const std::string& id) { return id.substr(0, 8); }

double Done(const v1::Job& job) {
  return job.total_steps() > 0 ? static_cast<double>(job.step()) / static_cast<double>(job.total_steps()) : 0;
}

std::vector<Column> ListColumns() {
  return {
      {"ID"},           {"NAME"}, {"STATE"}, {"REASON"},        {"PRIO"},        {"SLOTS"},         {"STEP"},
      {"ETA"},          {"AGE"},  {"OWNER"}, {"PROJECT", true}, {"QUEUE", true}, {"ATTEMPT", true}, {"VERDICT", true},
      {"MESSAGE", true}};
}

std::vector<std::string> ListRow(const v1::Job& job, std::int64_t now_us) {
  const std::string step = job.total_steps() > 0 ? std::to_string(job.step()) + " (" +
                                                       std::to_string(static_cast<int>(100 * Done(job))) + "%)"
                                                 : std::to_string(job.step());
  return {ShortId(job.id()),
          Printable(job.spec().name()),
          ShortName(job.state()),
          ShortName(job.reason()),
          std::to_string(job.priority()),
          std::to_string(job.slots_have()) + "/" + std::to_string(job.slots_want()),
          step,
          job.has_eta_seconds() ? Duration(job.eta_seconds()) : "-",
          Ago(job.submitted_us(), now_us),
          Printable(job.owner()),
          job.spec().project(),
          job.spec().queue(),
          std::to_string(job.attempt()),
          job.verdict(),
          Printable(job.message())};
}

std::vector<Column> NodeColumns() {
  return {{"NAME"},    {"STATE"},   {"SLOTS(used/all)"}, {"DATA ROOTS"},    {"HEARD"},
          {"VERSION"}, {"MESSAGE"}, {"LABELS", true},    {"STRIKES", true}, {"INCARNATION", true}};
}

std::vector<std::string> NodeRow(const v1::Node& node, std::int64_t now_us) {
  std::string slots, roots;
  for (const v1::SlotCount& s : node.slots())
    slots += (slots.empty() ? "" : " ") + s.kind() + " " + std::to_string(s.used()) + "/" + std::to_string(s.total());
  for (const std::string& root : node.data_roots()) {
    if (!roots.empty()) roots += ',';
    roots += Printable(root);
  }
  return {
      Printable(node.name()),
      ShortName(node.state()) + (node.admin() > v1::NODE_ADMIN_OPEN ? "," + ShortName(node.admin()) : std::string()),
      slots.empty() ? "none" : slots,
      roots.empty() ? "none" : roots,
      Ago(node.last_heard_us(), now_us) + " ago",
      Printable(node.build()),
      Printable(node.message()),
      Joined(node.labels()),
      std::to_string(node.strikes()),
      std::to_string(node.incarnation())};
}

std::string TopNodes(std::vector<v1::Node> nodes, const std::vector<v1::Job>& jobs, std::int64_t now_us, bool header) {
  std::map<std::string, std::map<std::string, int>> held;  // node -> job -> ranks
  for (const v1::Job& job : jobs) {
    for (const v1::RankStatus& rank : job.ranks()) {
      if (rank.state() == "EXITED" || rank.state() == "LOST" || HasEnded(job.state())) continue;
      ++held[rank.node()][ShortId(job.id()) + " " + Printable(job.spec().name())];
    }
  }
  const auto used = [](const v1::Node& node) {
    int slots = 0;
    for (const v1::SlotCount& s : node.slots()) slots += s.used();
    return slots;
  };
  std::stable_sort(nodes.begin(), nodes.end(), [&](const v1::Node& a, const v1::Node& b) { return used(a) > used(b); });
  std::vector<std::vector<std::string>> rows;
  for (const v1::Node& node : nodes) {
    std::string slots, running;
    for (const v1::SlotCount& s : node.slots())
      slots += (slots.empty() ? "" : " ") + s.kind() + " " + std::to_string(s.used()) + "/" + std::to_string(s.total());
    for (const auto& [job, ranks] : held[node.name()])
      running += (running.empty() ? "" : ", ") + job + " x" + std::to_string(ranks);
    rows.push_back(
        {Printable(node.name()),
         ShortName(node.state()) + (node.admin() > v1::NODE_ADMIN_OPEN ? "," + ShortName(node.admin()) : std::string()),
         slots.empty() ? "none" : slots, Ago(node.last_heard_us(), now_us) + " ago", running.empty() ? "-" : running});
  }
  return Table(header ? std::vector<std::string>{"NODE", "STATE", "SLOTS(used/all)", "HEARD", "JOBS(x ranks)"}
                      : std::vector<std::string>{},
               rows);
}

std::string TopRanks(const v1::Job& job, bool header) {
  std::string text =
      ShortId(job.id()) + "  " + Printable(job.spec().name()) + "  " + ShortName(job.state()) + ", step " + Steps(job);
  if (job.has_last_row()) {
    text += ", " + Short(job.last_row().step_seconds()) + " s a step, " + Short(job.last_row().images_per_second()) +
            " images/s";
  }
  std::vector<std::vector<std::string>> rows;
  for (const v1::RankStatus& rank : job.ranks()) {
    const bool ended = rank.state() == "EXITED" || rank.state() == "LOST";
    rows.push_back({std::to_string(rank.rank()), Printable(rank.node()),
                    SlotKind(job) + " " + std::to_string(rank.slot()), rank.state(),
                    rank.pid() > 0 ? std::to_string(rank.pid()) : "-",
                    ended ? ShortName(rank.exit_reason()) + " " + Printable(rank.exit_message()) : "-"});
  }
  if (rows.empty()) return text + "\nno ranks: " + Printable(job.message()) + "\n";
  return text + "\n" +
         Table(header ? std::vector<std::string>{"RANK", "NODE", "SLOT", "STATE", "PID", "ENDED"}
                      : std::vector<std::string>{},
               rows);
}

std::vector<std::string> Ailments(const v1::Node& node, const std::string& build, std::int64_t now_us) {
  std::vector<std::string> found;
  if (node.state() != v1::NODE_STATE_READY)
    found.push_back("it is " + ShortName(node.state()) + ": " + Printable(node.message()));
  if (node.state() == v1::NODE_STATE_READY && now_us - node.last_heard_us() > 5'000'000)
    found.push_back("it was not heard for " + Ago(node.last_heard_us(), now_us) + "; a heartbeat comes every 2 s");
  if (node.strikes() > 0) {
    found.push_back(std::to_string(node.strikes()) +
                    " of 3 strikes in the last 24 h, the newest: " + Printable(node.message()));
  }
  if (node.build() != build)
    found.push_back("its worker is version " + Printable(node.build()) + ", the coordinator " + Printable(build));
  int slots = 0;
  for (const v1::SlotCount& s : node.slots()) slots += s.total();
  if (slots == 0) found.push_back("it offers no slots: start its worker with --cpu N, or where GPUs are found");
  if (node.data_roots().empty()) found.push_back("it offers no data root: start its worker with --data-root NAME=PATH");
  return found;
}

std::string Joined(const google::protobuf::RepeatedPtrField<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + Printable(word);
  return text.empty() ? "none" : text;
}

std::vector<v1::Job> InQueue(std::vector<v1::Job> jobs, const std::string& project, const std::string& queue) {
  std::erase_if(jobs, [&](const v1::Job& job) {
    return job.spec().project() != project || job.spec().queue() != queue || HasEnded(job.state());
  });
  // Oldest first, as they came.
  std::stable_sort(jobs.begin(), jobs.end(), [](const v1::Job& a, const v1::Job& b) {
    return std::pair(a.slots_have() == 0, -a.priority()) < std::pair(b.slots_have() == 0, -b.priority());
  });
  return jobs;
}

std::vector<std::string> QueueHeader() { return {"ID", "NAME", "STATE", "REASON", "PRIO", "SLOTS", "AGE", "WHY"}; }

std::vector<std::string> QueueRow(const v1::Job& job, std::int64_t now_us) {
  return {ShortId(job.id()),
          Printable(job.spec().name()),
          ShortName(job.state()),
          ShortName(job.reason()),
          std::to_string(job.priority()),
          std::to_string(job.slots_have()) + "/" + std::to_string(job.slots_want()),
          Ago(job.submitted_us(), now_us),
          Printable(job.message())};
}

namespace {

// The coordinator counts without a wall clock, and not while it is away: what is left is about that.
std::string Deadline(const v1::Job& job, std::int64_t now_us) {
  std::string text = job.spec().deadline() + " after its submit";
  const auto deadline = spec::ParseTime(job.spec().deadline());
  if (!deadline || HasEnded(job.state())) return text;
  const double left = static_cast<double>(deadline->count()) - static_cast<double>(now_us - job.submitted_us()) / 1e6;
  return text + "  (about " + Duration(left) + " left)";
}

}  // namespace

std::string Describe(const v1::Job& job, std::int64_t now_us) {
  std::vector<std::vector<std::string>> facts = {
      {"id", job.id()},
      {"name", Printable(job.spec().name()) + "  (project " + job.spec().project() + ", queue " + job.spec().queue() +
                   ", owner " + Printable(job.owner()) + ")"},
      {"state", ShortName(job.state()) + "  " + ShortName(job.reason()) + (job.held() ? "  (held)" : "")},
      {"message", Printable(job.message())},
      {"attempt", std::to_string(job.attempt()) + "  (" + std::to_string(job.charges()) + " of " +
                      std::to_string(job.spec().restart().charges()) + " restarts used since the newest checkpoint)"},
      {"slots", std::to_string(job.slots_have()) + " of " + std::to_string(job.slots_want()) + " " + SlotKind(job)},
      {"steps", Steps(job) + (job.has_eta_seconds() ? "  (about " + Duration(job.eta_seconds()) + " to go)" : "")},
      {"priority", std::to_string(job.priority()) +
                       (job.preemptions() > 0
                            ? "  (stopped " + std::to_string(job.preemptions()) + " times for more important jobs)"
                            : "")},
      {"recipe", job.recipe_hash()},
      {"submitted", Time(job.submitted_us()) + " UTC  (" + Ago(job.submitted_us(), now_us) + " ago)"},
  };
  if (!job.spec().deadline().empty()) facts.push_back({"deadline", Deadline(job, now_us)});
  if (job.spec().restart().never()) facts.push_back({"restart", "never: no attempt after the first that starts ranks"});
  if (job.started_us() != 0) facts.push_back({"started", Time(job.started_us()) + " UTC"});
  if (job.ended_us() != 0)
    facts.push_back({"ended", Time(job.ended_us()) + " UTC  (ran " +
                                  Ago(job.started_us() != 0 ? job.started_us() : job.submitted_us(), job.ended_us()) +
                                  ")"});
  if (job.has_last_row()) {
    const v1::MetricRow& row = job.last_row();
    facts.push_back({"loss", Terms(row)});
    facts.push_back({"raw terms", "invariance " + Short(row.invariance()) + ", variance " + Short(row.variance()) +
                                      ", covariance " + Short(row.covariance())});
    facts.push_back({"rate", Short(row.learning_rate()) + " learning rate, " +
                                 Grouped(static_cast<std::int64_t>(row.images_per_second())) + " images/s"});
    facts.push_back({"verdict", job.verdict() + ": " + job.verdict_message()});
  }
  if (job.has_knn_accuracy()) facts.push_back({"kNN", Percent(job.knn_accuracy())});
  facts.push_back({"export", job.exported() ? "ready: vicreg export " + ShortId(job.id()) + " --to DIR" : "none yet"});
  std::string text = Table({}, facts);
  if (job.ranks_size() > 0) {
    std::vector<std::vector<std::string>> rows;
    for (const v1::RankStatus& rank : job.ranks()) {
      rows.push_back({std::to_string(rank.rank()), Printable(rank.node()), std::to_string(rank.slot()), rank.state(),
                      rank.pid() == 0 ? "" : std::to_string(rank.pid()),
                      rank.exit_reason() == v1::EXIT_REASON_UNSPECIFIED ? "" : ShortName(rank.exit_reason()),
                      Printable(rank.exit_message())});
    }
    text += "\n" + Table({"RANK", "NODE", "SLOT", "STATE", "PID", "EXIT", "EXIT MESSAGE"}, rows);
  }
  if (job.checkpoints_size() > 0) {
    std::vector<std::vector<std::string>> rows;
    for (const v1::Checkpoint& c : job.checkpoints())
      rows.push_back(
          {std::to_string(c.step()), std::to_string(c.attempt()), Grouped(c.bytes()), c.hash().substr(0, 16)});
    text += "\n" + Table({"CHECKPOINT", "ATTEMPT", "BYTES", "SHA-256"}, rows);
  }
  return text;
}

std::string Panel(const v1::Job& job, int columns, bool color) {
  std::vector<std::string> lines;
  lines.push_back(Printable(job.spec().name()) + "  " + ShortId(job.id()) + "  " + ShortName(job.state()) +
                  "  attempt " + std::to_string(job.attempt()) + ", " + std::to_string(job.slots_have()) + " of " +
                  std::to_string(job.slots_want()) + " " + SlotKind(job) + " slots");
  std::string progress =
      Bar(Done(job), 30) + " " + std::to_string(static_cast<int>(100 * Done(job))) + " %   step " + Steps(job);
  if (job.has_eta_seconds()) progress += "   ETA " + Duration(job.eta_seconds());
  if (job.has_last_row() && !HasEnded(job.state()))
    progress += "   " + Grouped(static_cast<std::int64_t>(job.last_row().images_per_second())) + " images/s";
  lines.push_back(progress);
  if (job.has_last_row()) {
    const v1::MetricRow& row = job.last_row();
    lines.push_back(Terms(row));
    lines.push_back("raw: invariance " + Short(row.invariance()) + "  variance " + Short(row.variance()) +
                    "  covariance " + Short(row.covariance()) + "   learning rate " + Short(row.learning_rate()) +
                    (job.has_knn_accuracy() ? "   kNN " + Percent(job.knn_accuracy()) : ""));
  } else {
    lines.insert(lines.end(), 2, "");
  }
  // Where it trains the verdict says more than "training" does; where it waits or has ended, the reason.
  const bool training = job.state() == v1::JOB_STATE_RUNNING && job.has_last_row();
  lines.push_back(training ? job.verdict() + ": " + job.verdict_message()
                           : ShortName(job.reason()) + ": " + Printable(job.message()));
  std::string text;
  for (std::string& line : lines) {
    std::replace(line.begin(), line.end(), '\n', ' ');
    line = line.substr(0, static_cast<std::size_t>(std::max(20, columns - 1)));
    if (color && &line == &lines.front())
      Paint(line, ShortName(job.state()),
            job.state() == v1::JOB_STATE_FAILED                             ? kRed
            : HasEnded(job.state()) || job.state() == v1::JOB_STATE_RUNNING ? kGreen
                                                                            : kYellow);
    if (color && &line == &lines.back() && training)
      Paint(line, job.verdict(), job.verdict() == "healthy" ? kGreen : job.verdict() == "warming_up" ? kYellow : kRed);
    text += line + "\n";
  }
  return text;
}

std::string ProgressLine(const v1::Job& job) {
  std::string line = ShortId(job.id()) + "  " + ShortName(job.state());
  if (job.state() != v1::JOB_STATE_RUNNING || !job.has_last_row())
    line += "  " + ShortName(job.reason()) + ": " + Printable(job.message());
  if (job.has_last_row()) {
    line += "  step " + Steps(job) + "  " + Terms(job.last_row());
    if (job.has_knn_accuracy()) line += "  kNN " + Percent(job.knn_accuracy());
    if (job.has_eta_seconds() && job.step() < job.total_steps()) line += "  ETA " + Duration(job.eta_seconds());
    if (job.state() == v1::JOB_STATE_RUNNING) line += "  " + job.verdict();
  }
  return line;
}

bool LineFilter::Wants(const v1::Job& job) {
  const int tenth = static_cast<int>(10 * Done(job));
  const bool wants = !last_ || last_->state() != job.state() || last_->reason() != job.reason() ||
                     last_->attempt() != job.attempt() || last_->has_knn_accuracy() != job.has_knn_accuracy() ||
                     last_->knn_accuracy() != job.knn_accuracy() || tenth > tenth_;
  if (wants) {
    last_ = job;
    tenth_ = std::max(tenth_, tenth);
  }
  return wants;
}

}  // namespace vicreg::cli
