// vicreg-coordinator: flags, construct, serve until SIGTERM or SIGINT, stop.

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <iostream>

#include "common/clock.h"
#include "common/log.h"
#include "common/rpc/log.h"
#include "common/version.h"
#include "coordinator/service/server.h"
#include "coordinator/store/maintenance.h"
#include "spdlog/spdlog.h"

namespace {

// A connection for each worker and each client.
void RaiseFileLimit() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);  // if refused, as many as there are descriptors for
}

int Check(const std::string& path) {
  const auto found = vicreg::store::CheckStore(path);
  if (!found.ok()) {
    std::cerr << "vicreg-coordinator: " << found.status().message() << "\n";
    return 1;
  }
  for (const std::string& problem : found->problems) std::cout << problem << "\n";
  std::cout << path << ": " << found->jobs << " jobs, " << found->live << " of them live, " << found->events
            << " events, " << found->nodes
            << " nodes: " << (found->problems.empty() ? "sound" : std::to_string(found->problems.size()) + " problems")
            << "\n";
  return found->problems.empty() ? 0 : 1;
}

int Restore(const vicreg::service::ServerOptions& options, const std::string& snapshot) {
  const auto restored = vicreg::store::RestoreSnapshot(options.folder, snapshot, options.artifact_root,
                                                       vicreg::SystemClock().WallMicros());
  if (!restored.ok()) {
    std::cerr << "vicreg-coordinator: " << restored.status().message() << "\n";
    return 1;
  }
  std::cout << "restored " << restored->jobs << " jobs, " << restored->requeued << " of them queued again, as store "
            << restored->store_id << "\n";
  if (!restored->moved_aside.empty()) std::cout << "what was there is in " << restored->moved_aside << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  vicreg::service::ServerOptions options;
  CLI::App app("Queues and places jobs, keeps them alive, and remembers everything durable of a vicreg cluster.",
               "vicreg-coordinator");
  app.add_option("--dir", options.folder, "State folder: control.db, metrics.db, lock")->required();
  app.add_option("--artifacts", options.artifact_root,
                 "Folder of checkpoints and exports, shared with the workers (default: DIR/../artifacts)");
  app.add_option("--grpc-address", options.grpc_address, "Where users and workers connect; loopback only")
      ->capture_default_str();
  app.add_option("--http-address", options.http_address, "Where /metrics, /healthz and /readyz are; loopback only")
      ->capture_default_str();
  std::string snapshot;
  bool check = false;
  app.add_option("--restore", snapshot,
                 "Put this snapshot in the place of the store in --dir, then exit; what started since is fenced");
  app.add_flag("--fsck", check, "Check the store in --dir, then exit: 0 when it is sound, 1 when not");
  app.set_version_flag("--version", vicreg::kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.artifact_root.empty()) options.artifact_root = options.folder + "/../artifacts";
  umask(077);
  if (check) return Check(options.folder + "/control.db");
  if (!snapshot.empty()) return Restore(options, snapshot);
  RaiseFileLimit();
  vicreg::InitLog("vicreg-coordinator");
  vicreg::rpc::TakeOverGrpcLog();
  // Blocked before any thread exists, so that only sigwait below sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  // By the way a signal takes, so that all that is open is closed.
  std::atomic<bool> deposed = false;
  options.deposed = [&] {
    deposed = true;
    kill(getpid(), SIGTERM);
  };
  auto server = vicreg::service::Server::Start(options, vicreg::rpc::AllowLocalUser());
  if (!server.ok()) {
    std::cerr << "vicreg-coordinator: " << server.status().message() << "\n";
    return 1;
  }
  spdlog::info("serving gRPC on port {}, HTTP on port {}", (*server)->grpc_port(), (*server)->http_port());
  int signal = 0;
  sigwait(&signals, &signal);
  if (deposed) {
    spdlog::critical("stopping: another coordinator leads");
    return 1;
  }
  spdlog::info("{}: stopping", signal == SIGTERM ? "SIGTERM" : "SIGINT");
  return 0;
}
