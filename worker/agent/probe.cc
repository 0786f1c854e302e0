#include "worker/agent/probe.h"

#include <chrono>
#include <filesystem>

#include "common/files.h"
#include "worker/agent/inventory.h"

namespace vicreg::agent {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kWritten = std::size_t{1} << 20;
constexpr std::uintmax_t kLeastFree = std::uintmax_t{256} << 20;  // a checkpoint must fit

class Report {
 public:
  void Fact(const std::string& sentence) { probed_.add_facts(sentence); }
  void Problem(const std::string& sentence) { probed_.add_problems(sentence); }
  v1::Probed Take() { return std::move(probed_); }

 private:
  v1::Probed probed_;
};

void TryFolder(Report& report, const std::string& what, const std::string& folder) {
  const std::string path = folder + "/probe";
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status written = WriteFileAtomically(path, std::string(kWritten, 'p'));
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  std::error_code error;
  fs::remove(path, error);
  if (!written.ok()) {
    report.Problem(what + ": " + std::string(written.message()));
    return;
  }
  const fs::space_info space = fs::space(folder, error);
  const std::string free = error ? "?" : std::to_string(space.available >> 20) + " MiB";
  report.Fact(what + ": 1 MiB written and synced in " + std::to_string(took) + " ms, " + free + " free");
  if (!error && space.available < kLeastFree)
    report.Problem(what + ": " + free + " free on its disk; a checkpoint may need 256 MiB");
}

void TryRoot(Report& report, const std::string& name, const std::string& folder) {
  std::error_code error;
  const fs::directory_iterator entries(folder, error);
  if (error) {
    report.Problem("data root " + name + ": cannot be read: " + error.message());
  } else if (entries == fs::directory_iterator()) {
    report.Problem("data root " + name + ": is empty");
  } else {
    report.Fact("data root " + name + ": readable");
  }
}

}  // namespace

v1::Probed Probe(const AgentOptions& options) {
  Report report;
  TryFolder(report, "the worker's folder", options.folder);
  TryFolder(report, "the folder of checkpoints", options.artifact_root);
  for (const auto& [name, folder] : options.data_roots) TryRoot(report, name, folder);
  for (const auto& [device, slots] :
       {std::pair{"cpu", options.cpu_slots}, {"gpu", static_cast<int>(options.gpus.size())}}) {
    if (slots == 0) continue;
    const std::string why = WhyNoRanksOn(device, options.rank_program, options.folder + "/logs/probe.log");
    if (why.empty()) {
      report.Fact(std::string("ranks: compute on a ") + device);
    } else {
      report.Problem(std::string("ranks on a ") + device + ": " + why);
    }
  }
  return report.Take();
}

}  // namespace vicreg::agent
