#include "worker/train_cli/run.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <thread>

#include "common/files.h"
#include "common/recipe/recipe_json.h"
#include "common/recipe/resolve.h"
#include "worker/train/device.h"

namespace vicreg::train {
namespace {

constexpr std::chrono::seconds kGrace{5};  // for the others once one rank has failed

volatile std::sig_atomic_t signalled = 0;

int Refuse(const std::string& text) {
  std::cerr << text << (text.empty() || text.back() == '\n' ? "" : "\n");
  return 2;
}

// Removed with everything in it at the end.
struct RunFolder {
  std::string path;
  ~RunFolder() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove_all(path, ignored);
  }
};

pid_t Start(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, argv.data(), environ);
  if (error != 0) {
    std::cerr << "error: cannot start a rank: " << std::strerror(error) << "\n";
    return -1;
  }
  return pid;
}

// Waits for all; when one fails, the others get kGrace to notice. Returns the worst status.
int Collect(std::vector<pid_t> running) {
  int worst = 0;
  auto deadline = std::chrono::steady_clock::time_point::max();
  bool forwarded = false;
  while (!running.empty()) {
    for (auto it = running.begin(); it != running.end();) {
      int status = 0;
      if (waitpid(*it, &status, WNOHANG) == 0) {
        ++it;
        continue;
      }
      it = running.erase(it);
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
      if (WIFSIGNALED(status)) std::cerr << "error: a rank was killed by signal " << WTERMSIG(status) << "\n";
      if (code != 0 && worst != 1) worst = code;
      if (code != 0 && code != 3) deadline = std::min(deadline, std::chrono::steady_clock::now() + kGrace);
    }
    const bool late = std::chrono::steady_clock::now() > deadline;
    if (late || (signalled != 0 && !forwarded)) {
      for (const pid_t pid : running) kill(pid, late ? SIGKILL : SIGTERM);
      forwarded = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return worst;
}

// One GPU each, of those this process may use. False: there is none for it.
bool ShowGpu(int rank) {
  static const char* const set = std::getenv("CUDA_VISIBLE_DEVICES");
  static const std::string visible = set != nullptr ? set : "";
  std::string gpu = std::to_string(rank);
  if (set != nullptr) {
    std::istringstream names(visible);
    for (int i = 0; i <= rank; ++i) {
      if (!std::getline(names, gpu, ',')) return false;
    }
  }
  return setenv("CUDA_VISIBLE_DEVICES", gpu.c_str(), 1) == 0;
}

}  // namespace

int RunLocally(const RunOptions& options) {
  const auto text = ReadFile(options.job_file);
  if (!text.ok()) return Refuse("error: " + std::string(text.status().message()));
  std::vector<std::string> sets = options.sets;
  if (options.ranks > 0) sets.push_back("world_size=" + std::to_string(options.ranks));
  const auto resolved = recipe::ResolveText(*text, options.job_file, sets);
  if (!resolved.ok()) return Refuse(std::string(resolved.status().message()));
  const bool on_gpus = resolved->spec.device() == v1::DEVICE_GPU;
  if (on_gpus && !BuiltForGpus()) return Refuse("error: device: found gpu; " + WhyNot(Device::kGpu));
  for (const std::string& warning : resolved->warnings) std::cerr << "warning: " << warning << "\n";
  const auto root = options.data_roots.find(resolved->recipe.data.root);
  if (root == options.data_roots.end()) {
    return Refuse("error: data root " + resolved->recipe.data.root + " is not given: add --data-root " +
                  resolved->recipe.data.root + "=PATH");
  }

  if (const auto made = MakeFolders(options.output); !made.ok()) return Refuse("error: " + std::string(made.message()));
  std::string pattern = options.output + "/run-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr)
    return Refuse("error: cannot make a folder in " + options.output + ": " + std::strerror(errno));
  const RunFolder folder{pattern};
  if (const auto written = WriteFileAtomically(folder.path + "/recipe.json", recipe::Serialize(resolved->recipe));
      !written.ok()) {
    return Refuse("error: " + std::string(written.message()));
  }

  for (const int number : {SIGINT, SIGTERM}) std::signal(number, [](int) { signalled = 1; });
  setenv("OMP_WAIT_POLICY", "PASSIVE", 1);  // ranks share cores; a spinning one steals from its peers
  const int ranks = static_cast<int>(resolved->spec.world_size().max());
  const int threads = std::max(static_cast<int>(std::thread::hardware_concurrency()) / ranks, 1);
  const std::string job = resolved->spec.name().empty() ? "local" : resolved->spec.name();
  std::vector<pid_t> running;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<std::string> words = {"vicreg-train",  "rank",
                                      "--folder",      folder.path,
                                      "--job",         job,
                                      "--recipe-hash", resolved->hash,
                                      "--data",        root->second,
                                      "--artifacts",   options.output,
                                      "--rank",        std::to_string(rank),
                                      "--world-size",  std::to_string(ranks),
                                      "--threads",     std::to_string(threads)};
    if (on_gpus) words.push_back("--gpu");
    const bool shown = !on_gpus || ShowGpu(rank);
    if (!shown) std::cerr << "error: no GPU is left for rank " << rank << ": CUDA_VISIBLE_DEVICES names fewer\n";
    const pid_t pid = shown ? Start(words) : -1;
    if (pid < 0) {
      for (const pid_t other : running) kill(other, SIGKILL);
      Collect(running);
      return 1;
    }
    running.push_back(pid);
  }
  const int status = Collect(running);
  if (status == 0) std::cerr << "finished; the encoder is in " << options.output << "/default/" << job << "/export\n";
  return status;
}

}  // namespace vicreg::train
