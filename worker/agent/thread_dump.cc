#include "worker/agent/thread_dump.h"

#include <signal.h>

#include <filesystem>
#include <fstream>

#include "common/process.h"

namespace vicreg::agent {
namespace {

namespace fs = std::filesystem;

std::string FirstLine(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "T (stopped)", as /proc/PID/task/TID/status gives it.
std::string StateOf(const fs::path& thread) {
  std::ifstream file(thread / "status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("State:", 0) == 0) return line.substr(line.find_first_not_of(" \t", 6));
  }
  return "?";
}

}  // namespace

void DumpThreads(int pid, const std::string& log_path) {
  std::ofstream log(log_path, std::ios::app);
  log << "threads of process " << pid << ", which hangs:\n";
  std::error_code gone;
  for (const auto& thread : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone)) {
    const std::string waits = FirstLine(thread.path() / "wchan");
    log << "  " << thread.path().filename().string() << " " << FirstLine(thread.path() / "comm") << ": "
        << StateOf(thread.path()) << (waits.empty() || waits == "0" ? "" : ", in " + waits) << "\n";
  }
  log.flush();
  kill(pid, kStackSignal);
}

}  // namespace vicreg::agent
