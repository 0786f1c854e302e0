#include "worker/agent/inventory.h"

#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/files.h"
#include "common/process.h"

namespace vicreg::agent {
namespace {

// The few calls of NVML (nvml.h) that are needed, looked up at run time: a CPU node has no such library.
using Device = void*;
using Init = int (*)();
using Count = int (*)(unsigned*);
using ByIndex = int (*)(unsigned, Device*);
using Uuid = int (*)(Device, char*, unsigned);

}  // namespace

std::vector<std::string> FindGpus(std::string& note) {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    note = "no NVIDIA driver here: offering CPU slots only";
    return {};
  }
  const auto init = reinterpret_cast<Init>(dlsym(library, "nvmlInit_v2"));
  const auto count = reinterpret_cast<Count>(dlsym(library, "nvmlDeviceGetCount_v2"));
  const auto by_index = reinterpret_cast<ByIndex>(dlsym(library, "nvmlDeviceGetHandleByIndex_v2"));
  const auto uuid = reinterpret_cast<Uuid>(dlsym(library, "nvmlDeviceGetUUID"));
  std::vector<std::string> gpus;
  unsigned devices = 0;
  if (init == nullptr || count == nullptr || by_index == nullptr || uuid == nullptr || init() != 0 ||
      count(&devices) != 0) {
    note = "NVML is here but does not answer: offering CPU slots only";
    return {};
  }
  for (unsigned i = 0; i < devices; ++i) {
    Device device = nullptr;
    char text[96] = {};
    if (by_index(i, &device) == 0 && uuid(device, text, sizeof text) == 0) gpus.emplace_back(text);
  }
  note = "NVML found " + std::to_string(gpus.size()) + " GPUs";
  return gpus;
}

std::string WhyNoRanksOn(const std::string& device, const std::string& rank_program, const std::string& log_path,
                         std::chrono::milliseconds patience) {
  unlink(log_path.c_str());
  const auto process = Spawn({.program = rank_program,
                              .arguments = {"--check-device", device},
                              .environment = {{"PATH", "/usr/bin:/bin"}, {"LANG", "C.UTF-8"}},
                              .log_path = log_path,
                              .secret = ""});
  if (!process.ok()) return std::string(process.status().message());
  pollfd watch{process->pidfd, POLLIN, 0};
  const bool ended = poll(&watch, 1, static_cast<int>(patience.count())) == 1;
  if (!ended) kill(-process->pid, SIGKILL);
  int status = 0;
  waitpid(process->pid, &status, 0);
  close(process->pidfd);
  if (!ended) return rank_program + " did not answer within " + std::to_string(patience.count()) + " ms";
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  // Its last line says why.
  std::string said = ReadFile(log_path).value_or("");
  while (!said.empty() && said.back() == '\n') said.pop_back();
  said.erase(0, said.rfind('\n') + 1);
  return said.empty() ? rank_program + " cannot compute on a " + device + " and does not say why" : said;
}

}  // namespace vicreg::agent
