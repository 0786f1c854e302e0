// up, down: a development cluster on this machine.

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <thread>

#include "cli/command.h"
#include "cli/development/cluster.h"
#include "cli/exit_code.h"
#include "cli/text.h"
#include "common/files.h"

namespace vicreg::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kMaxCpu = 256;

struct Flags {
  std::string folder;
  int cpu = 0, grpc_port = -1, http_port = -1;
  std::vector<std::string> roots;
  bool detach = false;
};

// Flags over what was recorded; every problem at once.
absl::StatusOr<Settings> Merge(const Flags& flags, const std::string& folder) {
  Settings settings;
  settings.cpu = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, static_cast<unsigned>(kMaxCpu)));
  absl::StatusOr<Settings> recorded = LoadSettings(folder);
  if (!recorded.ok() && !absl::IsNotFound(recorded.status())) return recorded.status();
  if (recorded.ok()) settings = *recorded;
  std::string problems;
  const auto problem = [&](const std::string& text) { problems += (problems.empty() ? "" : "\n") + text; };
  if (flags.cpu < 0 || flags.cpu > kMaxCpu)
    problem("--cpu: found " + std::to_string(flags.cpu) + "; expected 1 to 256");
  if (flags.cpu > 0) settings.cpu = flags.cpu;
  for (const auto& [name, given, port] : {std::tuple("--grpc-port", flags.grpc_port, &settings.grpc_port),
                                          std::tuple("--http-port", flags.http_port, &settings.http_port)}) {
    if (given < -1 || given > 65535)
      problem(std::string(name) + ": found " + std::to_string(given) + "; expected 0 to 65535 (0: any free port)");
    if (given > 0) *port = given;
    if (given == 0) {
      ASSIGN_OR_RETURN(*port, FreePort());
    }
  }
  if (settings.grpc_port == settings.http_port)
    problem("--grpc-port and --http-port: both are " + std::to_string(settings.http_port) + "; expected two ports");
  if (!flags.roots.empty()) settings.data_roots.clear();
  for (const std::string& root : flags.roots) {
    const std::size_t equals = root.find('=');
    std::error_code error;
    const fs::path path = equals == std::string::npos ? fs::path() : fs::canonical(root.substr(equals + 1), error);
    if (equals == std::string::npos || equals == 0) {
      problem("--data-root " + root + ": expected NAME=PATH");
    } else if (error || !fs::is_directory(path, error)) {
      problem("--data-root " + root + ": " + root.substr(equals + 1) + " is not a folder");
    } else {
      settings.data_roots[root.substr(0, equals)] = path.string();
    }
  }
  if (folder.size() + sizeof "/worker/rank.sock" > 107)
    problem("--dir " + folder +
            ": a Unix socket beneath it would exceed the system's 107 bytes; choose a shorter folder");
  if (!problems.empty()) return absl::InvalidArgumentError(problems);
  return settings;
}

void Say(const Component& part, int pid, const std::string& what) {
  std::cout << part.name() << (part.name().size() < 11 ? std::string(12 - part.name().size(), ' ') : " ") << what
            << "  (process " << pid << ")" << std::endl;
}

std::string Serves(const Component& part, const Settings& settings) {
  if (part.name() == "coordinator")
    return "gRPC on " + settings.address() + ", http://127.0.0.1:" + std::to_string(settings.http_port) + "/metrics";
  std::string roots;
  for (const auto& [name, path] : settings.data_roots) roots += (roots.empty() ? "" : ", ") + name;
  return std::to_string(settings.cpu) + " CPU slots, data roots: " + (roots.empty() ? "none" : roots);
}

absl::Status StartMissing(std::vector<Component>& parts, const Settings& settings) {
  for (Component& part : parts) {
    int pid = part.pid();
    const bool running = pid != 0;
    if (!running) {
      ASSIGN_OR_RETURN(pid, part.Start(settings));
    }
    Say(part, pid, (running ? "is up:   " : "started: ") + Serves(part, settings));
  }
  return absl::OkStatus();
}

// Worker first, so that its ranks' last reports find somebody.
absl::Status StopAll(std::vector<Component>& parts, int& stopped) {
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    ASSIGN_OR_RETURN(const std::vector<std::string> done, part->Stop());
    for (const std::string& sentence : done) std::cout << sentence << std::endl;
    stopped += static_cast<int>(done.size());
  }
  return absl::OkStatus();
}

// Until Ctrl-C: what dies is started again, after a pause that grows while it keeps dying.
absl::Status Keep(std::vector<Component>& parts, const Settings& settings, int signals) {
  struct Kept {
    int pidfd = -1;
    steady_clock::time_point since{};
    int failures = 0;
  };
  std::vector<Kept> kept(parts.size());
  while (true) {
    std::vector<pollfd> polled = {{signals, POLLIN, 0}};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (kept[i].pidfd < 0) {
        const int pid = parts[i].pid();
        kept[i].pidfd = pid != 0 ? PidfdOpen(pid) : -1;
        kept[i].since = steady_clock::now();
      }
      polled.push_back({kept[i].pidfd, POLLIN, 0});  // a negative one is skipped
    }
    const bool all = std::all_of(kept.begin(), kept.end(), [](const Kept& k) { return k.pidfd >= 0; });
    poll(polled.data(), polled.size(), all ? -1 : 0);
    if (polled[0].revents != 0) return absl::OkStatus();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (kept[i].pidfd >= 0 && polled[i + 1].revents == 0) continue;
      if (kept[i].pidfd >= 0) close(kept[i].pidfd);
      kept[i].pidfd = -1;
      while (waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      kept[i].failures = steady_clock::now() - kept[i].since < std::chrono::seconds(10) ? kept[i].failures + 1 : 1;
      const milliseconds pause(std::min(5000, 100 << std::min(kept[i].failures, 6)));
      std::cout << "the " << parts[i].name() << " ended; starting it again" << std::endl;
      pollfd interrupted{signals, POLLIN, 0};
      if (poll(&interrupted, 1, static_cast<int>(pause.count())) == 1) return absl::OkStatus();
      const auto pid = parts[i].Start(settings);
      if (pid.ok()) Say(parts[i], *pid, "started: " + Serves(parts[i], settings));
      if (!pid.ok()) std::cerr << "vicreg: " << pid.status().message() << std::endl;
    }
  }
}

std::string Next(const Settings& settings) {
  return settings.grpc_port == 7070 ? "" : "export VICREG_COORDINATOR=" + settings.address() + "\n";
}

absl::StatusOr<int> Up(const Flags& flags) {
  const std::string folder = fs::absolute(flags.folder).lexically_normal();
  RETURN_IF_ERROR(MakeFolders(folder));
  std::vector<Component> parts = {{Component::Kind::kCoordinator, folder}, {Component::Kind::kWorker, folder}};
  absl::StatusOr<FileLock> lock = LockFile(folder + "/up.lock");
  for (int i = 0; i < 300 && !lock.ok(); ++i) {
    // Another `up` is at work: a detached one is done soon, one in the foreground has all up.
    if (std::all_of(parts.begin(), parts.end(), [](const Component& p) { return p.pid() != 0; }) && i > 20) {
      std::cout << "all is up already; process " << LockHolder(folder + "/up.lock") << " keeps it so\n";
      return 0;
    }
    std::this_thread::sleep_for(milliseconds(100));
    lock = LockFile(folder + "/up.lock");
  }
  if (!lock.ok()) return lock.status();
  ASSIGN_OR_RETURN(const Settings settings, Merge(flags, folder));
  const auto recorded = LoadSettings(folder);
  const bool running = std::any_of(parts.begin(), parts.end(), [](const Component& p) { return p.pid() != 0; });
  if (running && recorded.ok() && !(*recorded == settings)) {
    return absl::FailedPreconditionError("what runs in " + folder +
                                         " was started with other flags (see cluster.json there): `vicreg down --dir " +
                                         folder + "` first, or leave the flags out");
  }
  RETURN_IF_ERROR(SaveSettings(folder, settings));

  // Blocked before any thread exists, so that only the signalfd sees them.
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGINT);
  sigaddset(&mask, SIGTERM);
  int signals = -1;
  if (!flags.detach) {
    pthread_sigmask(SIG_BLOCK, &mask, nullptr);
    signals = signalfd(-1, &mask, SFD_CLOEXEC);
  }
  const absl::Status started = StartMissing(parts, settings);
  if (flags.detach) {
    RETURN_IF_ERROR(started);
    for (const Component& part : parts) {
      if (part.pid() == 0)
        return absl::UnavailableError("the " + part.name() + " ended while the rest started: see " + part.log_path() +
                                      ", then run this command again");
    }
    std::cout << "state       " << folder << "   (stop: vicreg down --dir " << folder << ")\n" << Next(settings);
    return 0;
  }
  absl::Status result = started;
  if (started.ok()) {
    std::cout << "state       " << folder << "\n" << Next(settings) << "Ctrl-C stops all." << std::endl;
    result = Keep(parts, settings, signals);
  }
  int stopped = 0;
  const absl::Status stop = StopAll(parts, stopped);
  close(signals);
  RETURN_IF_ERROR(result);
  RETURN_IF_ERROR(stop);
  return 0;
}

absl::StatusOr<int> Down(const std::string& given) {
  const std::string folder = fs::absolute(given).lexically_normal();
  int stopped = 0;
  // One that keeps them in the foreground would start them again.
  if (const int keeper = LockHolder(folder + "/up.lock"); keeper != 0) {
    kill(keeper, SIGTERM);
    const auto give_up = steady_clock::now() + std::chrono::seconds(60);
    while (LockHolder(folder + "/up.lock") == keeper) {
      if (steady_clock::now() > give_up)
        return absl::DeadlineExceededError("`vicreg up` (process " + std::to_string(keeper) + ") does not stop");
      std::this_thread::sleep_for(milliseconds(50));
    }
    std::cout << "stopped `vicreg up` (process " << keeper << ")\n";
    ++stopped;
  }
  std::vector<Component> parts = {{Component::Kind::kCoordinator, folder}, {Component::Kind::kWorker, folder}};
  RETURN_IF_ERROR(StopAll(parts, stopped));
  if (stopped == 0) std::cout << "nothing runs in " << folder << "\n";
  return 0;
}

}  // namespace

void AddDevelopment(Cli& cli) {
  {
    const auto flags = std::make_shared<Flags>();
    flags->folder = DefaultFolder();
    CLI::App* command =
        cli.app.add_subcommand("up", "Start what is missing of a development cluster on this machine; Ctrl-C stops it");
    command->add_option("--cpu", flags->cpu, "CPU slots to offer (default: one per core)");
    command->add_option("--dir", flags->folder, "State folder (default: $XDG_STATE_HOME/vicreg/dev)");
    command->add_option("--grpc-port", flags->grpc_port, "Port of the coordinator, 0 for any free one (default: 7070)");
    command->add_option("--http-port", flags->http_port,
                        "Port of /metrics, /healthz and /readyz, 0 for any free one (default: 7071)");
    command->add_option("--data-root", flags->roots, "NAME=PATH of a folder jobs may read, repeatable")
        ->allow_extra_args(false);
    command->add_flag("--detach", flags->detach, "Return when all is up, instead of watching over it");
    command->callback([&cli, flags] { cli.run = [flags] { return Up(*flags); }; });
  }
  {
    const auto folder = std::make_shared<std::string>(DefaultFolder());
    CLI::App* command = cli.app.add_subcommand(
        "down", "Stop the development cluster of a state folder, its ranks too; jobs resume at the next up");
    command->add_option("--dir", *folder, "State folder (default: $XDG_STATE_HOME/vicreg/dev)");
    command->callback([&cli, folder] { cli.run = [folder] { return Down(*folder); }; });
  }
}

}  // namespace vicreg::cli
