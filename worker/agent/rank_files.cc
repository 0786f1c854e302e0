#include "worker/agent/rank_files.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/files.h"
#include "common/process.h"

namespace vicreg::agent {
namespace {

namespace fs = std::filesystem;

std::string NameOf(const std::string& job_id, int attempt, int rank) {
  return job_id + "-a" + std::to_string(attempt) + "-r" + std::to_string(rank) + ".json";
}

struct Leftover {
  int pid = 0;
  std::uint64_t start_time = 0;
  std::string boot_id;
};

// nullopt: damaged, so it names no process that could be told from a stranger's.
std::optional<Leftover> Parse(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto pid = json.find("pid"), start = json.find("start_time"), boot = json.find("boot_id");
  if (pid == json.end() || start == json.end() || boot == json.end()) return std::nullopt;
  if (!pid->is_number_unsigned() || !start->is_number_unsigned() || !boot->is_string()) return std::nullopt;
  const auto number = pid->get<std::uint64_t>();
  if (number < 2 || number > std::numeric_limits<int>::max() || start->get<std::uint64_t>() == 0) return std::nullopt;
  return Leftover{static_cast<int>(number), start->get<std::uint64_t>(), boot->get<std::string>()};
}

}  // namespace

absl::Status SaveRankFile(const std::string& folder, const RankFile& file) {
  const nlohmann::json json = {{"job", file.job_id}, {"attempt", file.attempt},       {"rank", file.rank},
                               {"pid", file.pid},    {"start_time", file.start_time}, {"boot_id", file.boot_id}};
  return WriteFileAtomically(folder + "/" + NameOf(file.job_id, file.attempt, file.rank), json.dump());
}

void RemoveRankFile(const std::string& folder, const std::string& job_id, int attempt, int rank) {
  std::error_code ignored;  // gone already is what we want
  fs::remove(folder + "/" + NameOf(job_id, attempt, rank), ignored);
}

absl::StatusOr<std::vector<std::string>> EndLeftovers(const std::string& folder) {
  std::vector<std::string> done;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    ASSIGN_OR_RETURN(const std::string text, ReadFile(entry.path().string()));
    const std::optional<Leftover> left = Parse(text);
    if (!left) {
      // Its rank, if there is one, finds no worker that knows it and leaves by itself.
      done.push_back("removed " + name + ": it is damaged and names no process");
    } else if (left->boot_id == BootId() && left->start_time == StartTime(left->pid)) {
      const std::string pid = std::to_string(left->pid);
      if (!KillGroupAndWait(left->pid)) {
        return absl::DeadlineExceededError(
            "process " + pid +
            " of an earlier worker does not end after SIGKILL: its slot cannot be used; reboot this node");
      }
      done.push_back("ended rank process " + pid + " of an earlier worker (" + name + ")");
    }
    fs::remove(entry.path(), error);
  }
  if (error) return absl::InternalError("cannot read " + folder + ": " + error.message());
  return done;
}

}  // namespace vicreg::agent
