// vicreg-coordinator: flags, construct, serve until SIGTERM or SIGINT, stop.

#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>

#include "common/log.h"
#include "common/rpc/log.h"
#include "common/version.h"
#include "coordinator/service/server.h"
#include "spdlog/spdlog.h"

namespace {

// A connection for each worker and each client.
void RaiseFileLimit() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);  // if refused, as many as there are descriptors for
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
  app.set_version_flag("--version", vicreg::kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.artifact_root.empty()) options.artifact_root = options.folder + "/../artifacts";
  umask(077);
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

  auto server = vicreg::service::Server::Start(options, vicreg::rpc::AllowLocalUser());
  if (!server.ok()) {
    std::cerr << "vicreg-coordinator: " << server.status().message() << "\n";
    return 1;
  }
  spdlog::info("serving gRPC on port {}, HTTP on port {}", (*server)->grpc_port(), (*server)->http_port());
  int signal = 0;
  sigwait(&signals, &signal);
  spdlog::info("{}: stopping", signal == SIGTERM ? "SIGTERM" : "SIGINT");
  return 0;
}
