// vicreg-bench-scheduler: the coordinator's core and store under load, without network (see scripts/bench). Reads lines
// {"mode": replay|gangs|latency|misfits|commits|hashing, ...} and runs each once; answers one JSON line each.

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <stdexcept>

#include "bench/scheduler/modes.h"
#include "bench/usage.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;

json Measure(const json& wanted, const std::string& folder) {
  const std::string mode = wanted.at("mode");
  if (mode == "replay") return Replay(wanted, folder);
  if (mode == "gangs") return Gangs(wanted, folder);
  if (mode == "latency") return Latency(wanted, folder);
  if (mode == "misfits") return Misfits(wanted, folder);
  if (mode == "commits") return Commits(folder);
  if (mode == "hashing") return Hashing();
  throw std::invalid_argument("mode " + mode + ": there are replay, gangs, latency, misfits, commits, hashing");
}

void Serve() {
  std::cout << json{{"ready", true}} << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::string folder = (std::filesystem::temp_directory_path() / "vicreg-bench-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("cannot make " + folder);
    ResetPeak();
    const auto begin = std::chrono::steady_clock::now();
    const double cpu = CpuSeconds();
    json answer = Measure(json::parse(line), folder);
    answer["wall"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    answer["cpu"] = CpuSeconds() - cpu;
    answer["peak_bytes"] = Memory("VmHWM:");
    std::filesystem::remove_all(folder);
    std::cout << answer << std::endl;
  }
}

}  // namespace
}  // namespace vicreg::bench

int main() {
  try {
    vicreg::bench::Serve();
  } catch (const std::exception& error) {
    std::cerr << "vicreg-bench-scheduler: " << error.what() << "\n";
    return 1;
  }
}
