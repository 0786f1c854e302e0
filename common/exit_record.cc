#include "common/exit_record.h"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace vicreg {

std::string ExitRecordPath(const std::string& folder, const std::string& job_id, int attempt, int rank) {
  return folder + "/" + job_id + "-a" + std::to_string(attempt) + "-r" + std::to_string(rank) + ".exit";
}

bool SaveExitRecord(const std::string& path, const ExitRecord& record) {
  const nlohmann::json json = {
      {"code", record.code}, {"nonfinite_step", record.nonfinite_step}, {"message", record.message}};
  const std::string temporary = path + ".tmp";
  {
    std::ofstream file(temporary, std::ios::trunc);
    // A message may hold bytes that are no UTF-8.
    file << json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (!file.flush()) return false;
  }
  return std::rename(temporary.c_str(), path.c_str()) == 0;
}

std::optional<ExitRecord> LoadExitRecord(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  const nlohmann::json json = nlohmann::json::parse(text.str(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto code = json.find("code"), step = json.find("nonfinite_step"), message = json.find("message");
  if (code == json.end() || step == json.end() || message == json.end()) return std::nullopt;
  if (!code->is_number_integer() || !step->is_number_integer() || !message->is_string()) return std::nullopt;
  const auto number = code->get<std::int64_t>();
  if (number < 0 || number > 255) return std::nullopt;
  return ExitRecord{static_cast<int>(number), step->get<std::int64_t>(), message->get<std::string>()};
}

}  // namespace vicreg
