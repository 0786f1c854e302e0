#include "worker/agent/probe.h"

#include <chrono>
#include <filesystem>
#include <future>
#include <vector>

#include "common/files.h"
#include "common/ids.h"
#include "worker/agent/inventory.h"

namespace vicreg::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kWritten = std::size_t{1} << 20;
constexpr std::uintmax_t kLeastFree = std::uintmax_t{256} << 20;  // a checkpoint must fit

void TryFolder(v1::Probed& report, const std::string& what, const std::string& folder) {
  // Of a name that nobody else writes to: workers share the folder of checkpoints, and are probed at once.
  const std::string path = folder + "/probe-" + NewUuid();
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status written = WriteFileAtomically(path, std::string(kWritten, 'p'));
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  std::error_code error;
  fs::remove(path, error);
  if (!written.ok()) {
    report.add_problems(what + ": " + std::string(written.message()));
    return;
  }
  const fs::space_info space = fs::space(folder, error);
  const std::string free = error ? "?" : std::to_string(space.available >> 20) + " MiB";
  report.add_facts(what + ": 1 MiB written and synced in " + std::to_string(took) + " ms, " + free + " free");
  if (!error && space.available < kLeastFree)
    report.add_problems(what + ": " + free + " free on its disk; a checkpoint may need 256 MiB");
}

void TryRoot(v1::Probed& report, const std::string& name, const std::string& folder) {
  std::error_code error;
  const fs::directory_iterator entries(folder, error);
  if (error) {
    report.add_problems("data root " + name + ": cannot be read: " + error.message());
  } else if (entries == fs::directory_iterator()) {
    report.add_problems("data root " + name + ": is empty");
  } else {
    report.add_facts("data root " + name + ": readable");
  }
}

void TryRanks(v1::Probed& report, const std::string& device, const AgentOptions& options) {
  const std::string why = WhyNoRanksOn(device, options.rank_program, options.folder + "/logs/probe-" + device + ".log");
  if (why.empty()) {
    report.add_facts("ranks: compute on a " + device);
  } else {
    report.add_problems("ranks on a " + device + ": " + why);
  }
}

}  // namespace

v1::Probed Probe(const AgentOptions& options) {
  // Each for itself: a cold start of the rank program takes longer than the rest together.
  std::vector<std::future<v1::Probed>> parts;
  const auto part = [&](auto&& attempt) {
    parts.push_back(std::async(std::launch::async, [attempt] {
      v1::Probed report;
      attempt(report);
      return report;
    }));
  };
  part([&](v1::Probed& report) {
    TryFolder(report, "the worker's folder", options.folder);
    TryFolder(report, "the folder of checkpoints", options.artifact_root);
    for (const auto& [name, folder] : options.data_roots) TryRoot(report, name, folder);
  });
  if (options.cpu_slots > 0) part([&](v1::Probed& report) { TryRanks(report, "cpu", options); });
  if (!options.gpus.empty()) part([&](v1::Probed& report) { TryRanks(report, "gpu", options); });
  v1::Probed all;
  for (std::future<v1::Probed>& done : parts) all.MergeFrom(done.get());
  return all;
}

}  // namespace vicreg::agent
