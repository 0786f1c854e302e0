#include "worker/agent/rank_files.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/exit_record.h"
#include "common/files.h"
#include "common/process.h"

namespace vicreg::agent {
namespace {

namespace fs = std::filesystem;

std::string NameOf(const std::string& job_id, int attempt, int rank) {
  return job_id + "-a" + std::to_string(attempt) + "-r" + std::to_string(rank) + ".json";
}

std::string Hex(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += {kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return text;
}

std::string Bytes(const std::string& hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>((digit(hex[i]) << 4 | digit(hex[i + 1])) & 0xff);
  return bytes;
}

template <typename T>
T Field(const nlohmann::json& json, const char* name, T absent) {
  const auto found = json.find(name);
  return found == json.end() ? absent : found->get<T>();
}

// nullopt: damaged, so it names no process that could be told from a stranger's.
std::optional<RankFile> Parse(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto pid = json.find("pid"), start = json.find("start_time"), boot = json.find("boot_id");
  if (pid == json.end() || start == json.end() || boot == json.end()) return std::nullopt;
  if (!pid->is_number_unsigned() || !start->is_number_unsigned() || !boot->is_string()) return std::nullopt;
  const auto number = pid->get<std::uint64_t>();
  if (number < 2 || number > std::numeric_limits<int>::max() || start->get<std::uint64_t>() == 0) return std::nullopt;
  RankFile file;
  file.pid = static_cast<int>(number);
  file.start_time = start->get<std::uint64_t>();
  file.boot_id = boot->get<std::string>();
  try {
    file.job_id = Field<std::string>(json, "job", "");
    file.attempt = Field(json, "attempt", 0);
    file.rank = Field(json, "rank", 0);
    file.slot = Field(json, "slot", 0);
    file.secret = Bytes(Field<std::string>(json, "secret", ""));
    file.launch = Bytes(Field<std::string>(json, "launch", ""));
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return file;
}

bool Lives(const RankFile& file) { return file.boot_id == BootId() && file.start_time == StartTime(file.pid); }

bool IsRankFile(const fs::path& path) { return path.extension() == ".json"; }

}  // namespace

absl::Status SaveRankFile(const std::string& folder, const RankFile& file) {
  const nlohmann::json json = {{"job", file.job_id}, {"attempt", file.attempt},       {"rank", file.rank},
                               {"pid", file.pid},    {"start_time", file.start_time}, {"boot_id", file.boot_id},
                               {"slot", file.slot},  {"secret", Hex(file.secret)},    {"launch", Hex(file.launch)}};
  return WriteFileAtomically(folder + "/" + NameOf(file.job_id, file.attempt, file.rank), json.dump());
}

void RemoveRankFile(const std::string& folder, const std::string& job_id, int attempt, int rank) {
  std::error_code ignored;  // gone already is what we want
  fs::remove(folder + "/" + NameOf(job_id, attempt, rank), ignored);
  fs::remove(ExitRecordPath(folder, job_id, attempt, rank), ignored);
}

absl::StatusOr<std::vector<Found>> FindRanks(const std::string& folder) {
  std::vector<Found> found;
  std::vector<fs::path> useless;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (!IsRankFile(entry.path())) continue;
    ASSIGN_OR_RETURN(const std::string text, ReadFile(entry.path().string()));
    const std::optional<RankFile> file = Parse(text);
    const bool lives = file && Lives(*file);
    const bool left_word = file && file->boot_id == BootId() &&
                           LoadExitRecord(ExitRecordPath(folder, file->job_id, file->attempt, file->rank)).has_value();
    if (lives || left_word) {
      found.push_back({*file, lives});
    } else {
      useless.push_back(entry.path());
    }
  }
  if (error) return absl::InternalError("cannot read " + folder + ": " + error.message());
  for (const fs::path& path : useless) fs::remove(path, error);
  return found;
}

absl::StatusOr<std::vector<std::string>> EndLeftovers(const std::string& folder) {
  std::vector<std::string> done;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!IsRankFile(entry.path())) {  // an exit record
      fs::remove(entry.path(), error);
      continue;
    }
    ASSIGN_OR_RETURN(const std::string text, ReadFile(entry.path().string()));
    const std::optional<RankFile> left = Parse(text);
    if (!left) {
      // Its rank, if there is one, finds no worker that knows it and leaves by itself.
      done.push_back("removed " + name + ": it is damaged and names no process");
    } else if (Lives(*left)) {
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
