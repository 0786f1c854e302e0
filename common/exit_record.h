#pragma once

// What a rank leaves on disk right before it ends: a worker that did not start the process (the one before it did) gets
// no exit code from the system.

#include <cstdint>
#include <optional>
#include <string>

namespace vicreg {

struct ExitRecord {
  int code = 0;
  std::int64_t nonfinite_step = 0;
  std::string message;
};

// FOLDER/<job>-a<attempt>-r<rank>.exit
std::string ExitRecordPath(const std::string& folder, const std::string& job_id, int attempt, int rank);
// Readers see all of it or none; it need not outlive the kernel. False: not written; nothing can be done about it then.
bool SaveExitRecord(const std::string& path, const ExitRecord& record);
// nullopt: none, or damaged.
std::optional<ExitRecord> LoadExitRecord(const std::string& path);

}  // namespace vicreg
