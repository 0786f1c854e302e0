#include "worker/agent/rank_files.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/files.h"
#include "common/process.h"

namespace vicreg::agent {
namespace {

namespace fs = std::filesystem;

std::string NameOf(const std::string& job_id, int attempt, int rank) {
  return job_id + "-a" + std::to_string(attempt) + "-r" + std::to_string(rank) + ".json";
}

}  // namespace

absl::Status SaveRankFile(const std::string& folder, const RankFile& file) {
  const nlohmann::json json = {{"job", file.job_id}, {"attempt", file.attempt}, {"rank", file.rank},
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
    ASSIGN_OR_RETURN(const std::string text, ReadFile(entry.path().string()));
    const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    const int pid = json.is_object() ? json.value("pid", 0) : 0;
    const bool same = pid > 1 && json.value("boot_id", "") == BootId() && json.value("start_time", std::uint64_t{0}) == StartTime(pid);
    if (same) {
      if (!KillGroupAndWait(pid)) {
        return absl::DeadlineExceededError("process " + std::to_string(pid) + " of an earlier worker does not end after SIGKILL: its slot cannot be used; reboot this node");
      }
      done.push_back("ended rank process " + std::to_string(pid) + " of an earlier worker (" + entry.path().filename().string() + ")");
    }
    fs::remove(entry.path(), error);
  }
  if (error) return absl::InternalError("cannot read " + folder + ": " + error.message());
  return done;
}

}  // namespace vicreg::agent
