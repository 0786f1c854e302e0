// vicreg-worker: flags, construct, serve until SIGTERM or SIGINT, stop the ranks, stop.

#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <thread>

#include "common/files.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/rpc/log.h"
#include "common/version.h"
#include "spdlog/spdlog.h"
#include "worker/agent/coordinator_stream.h"
#include "worker/agent/inventory.h"
#include "worker/agent/rank_files.h"
#include "worker/agent/rank_server.h"

namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string folder, coordinator = "127.0.0.1:7070", artifacts, node, rank_program;
  int cpu = 0;
  bool end_ranks = false;
  std::vector<std::string> roots, labels;
};

// Every problem at once, a line each.
std::vector<std::string> Resolve(Flags& flags, vicreg::agent::AgentOptions& options) {
  std::vector<std::string> problems;
  std::error_code error;
  options.node = flags.node;
  if (options.node.empty() || options.node.size() > 253)
    problems.push_back("--node: found \"" + options.node + "\"; expected 1 to 253 characters");
  if (flags.cpu < 0 || flags.cpu > 4096)
    problems.push_back("--cpu: found " + std::to_string(flags.cpu) + "; expected 0 to 4096");
  options.cpu_slots = flags.cpu;
  for (const std::string& root : flags.roots) {
    const std::size_t equals = root.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == root.size()) {
      problems.push_back("--data-root " + root + ": expected NAME=PATH");
      continue;
    }
    const std::string path = root.substr(equals + 1);
    const fs::path absolute = fs::canonical(path, error);
    if (error || !fs::is_directory(absolute, error) || access(absolute.c_str(), R_OK | X_OK) != 0) {
      problems.push_back("--data-root " + root + ": " + path + " is not a readable folder");
      continue;
    }
    options.data_roots[root.substr(0, equals)] = absolute;
  }
  if (flags.labels.size() > 64)
    problems.push_back("--label: found " + std::to_string(flags.labels.size()) + "; expected at most 64");
  for (const std::string& label : flags.labels) {
    if (!vicreg::IsLabel(label)) {
      problems.push_back("--label " + label +
                         ": expected KEY=VALUE, each side 1 to 63 of letters, digits, '.', '_' and '-'");
    }
  }
  options.labels = flags.labels;
  if (flags.rank_program.empty())
    flags.rank_program = fs::read_symlink("/proc/self/exe", error).parent_path() / "vicreg-rank";
  if (access(flags.rank_program.c_str(), X_OK) != 0)
    problems.push_back("--rank-program: " + flags.rank_program + " cannot be executed");
  options.rank_program = flags.rank_program;
  return problems;
}

absl::Status Prepare(const Flags& flags, vicreg::agent::AgentOptions& options, vicreg::FileLock& lock) {
  RETURN_IF_ERROR(vicreg::MakeFolders(flags.folder));
  options.folder = fs::absolute(flags.folder).lexically_normal();
  RETURN_IF_ERROR(vicreg::MakeFolders(flags.artifacts));
  options.artifact_root = fs::absolute(flags.artifacts).lexically_normal();
  ASSIGN_OR_RETURN(lock, vicreg::LockFile(options.folder + "/lock"));
  RETURN_IF_ERROR(vicreg::MakeFolders(options.folder + "/ranks"));
  RETURN_IF_ERROR(vicreg::MakeFolders(options.folder + "/logs"));
  options.socket_path = options.folder + "/rank.sock";
  if (!flags.end_ranks) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<std::string> ended, vicreg::agent::EndLeftovers(options.folder + "/ranks"));
  for (const std::string& sentence : ended) spdlog::warn("{}", sentence);
  return absl::OkStatus();
}

// Those its ranks can compute on; says what was found.
std::string TakeGpus(vicreg::agent::AgentOptions& options) {
  std::string note;
  options.gpus = vicreg::agent::FindGpus(note);
  if (options.gpus.empty()) return note;
  const std::string why =
      vicreg::agent::WhyNoRanksOn("gpu", options.rank_program, options.folder + "/logs/check-device.log");
  if (why.empty()) return note + ", all offered";
  options.gpus.clear();
  return note + ", none offered: " + why;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  vicreg::agent::AgentOptions options;
  char host[256] = "node";
  gethostname(host, sizeof host - 1);
  flags.node = host;
  CLI::App app("Registers this node, starts and watches ranks, relays what they report.", "vicreg-worker");
  app.add_option("--dir", flags.folder, "State folder: lock, rank.sock, ranks/, logs/")->required();
  app.add_option("--coordinator", flags.coordinator, "Address of the coordinator")->capture_default_str();
  app.add_option("--artifacts", flags.artifacts, "Folder of checkpoints and exports, shared with the coordinator")
      ->required();
  app.add_option("--node", flags.node, "Name of this node")->capture_default_str();
  app.add_option("--cpu", flags.cpu, "CPU slots to offer")->capture_default_str();
  app.add_option("--data-root", flags.roots, "NAME=PATH of a folder jobs may read, repeatable");
  app.add_option("--label", flags.labels,
                 "KEY=VALUE that jobs and queues may ask for, repeatable; rack=... is its place");
  app.add_option("--rank-program", flags.rank_program, "vicreg-rank (default: beside this program)");
  app.add_option("--rank-address", options.rank_address,
                 "Address its ranks listen on for their peers, who must reach it; what they say there is neither "
                 "encrypted nor authenticated. The default is for jobs on one machine")
      ->capture_default_str()
      ->check(CLI::ValidIPV4);
  app.add_option("--collective-timeout", options.collective_timeout_s,
                 "Seconds after which a rank whose peers do not take part in a collective leaves")
      ->capture_default_str()
      ->check(CLI::Range(5, 3600));
  app.add_flag("--end-ranks", flags.end_ranks, "End the ranks that a worker of this folder left behind, then exit");
  app.set_version_flag("--version", vicreg::kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  umask(077);
  vicreg::InitLog("vicreg-worker");
  vicreg::rpc::TakeOverGrpcLog();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  if (const auto problems = Resolve(flags, options); !problems.empty()) {
    for (const std::string& problem : problems) std::cerr << "vicreg-worker: " << problem << "\n";
    return 2;
  }
  vicreg::FileLock lock;
  if (const absl::Status status = Prepare(flags, options, lock); !status.ok()) {
    std::cerr << "vicreg-worker: " << status.message() << "\n";
    return 1;
  }
  if (flags.end_ranks) return 0;
  spdlog::info("node {}: {} CPU slots; {}", options.node, options.cpu_slots, TakeGpus(options));
  const int slots = options.cpu_slots + static_cast<int>(options.gpus.size());
  options.threads_per_rank = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / std::max(1, slots));
  const std::string socket_path = options.socket_path;
  vicreg::agent::Agent agent(std::move(options));
  // Before it listens and registers: the coordinator is told of every rank this node holds.
  if (const absl::Status status = agent.AdoptRanks(); !status.ok()) {
    std::cerr << "vicreg-worker: " << status.message() << "\n";
    return 1;
  }
  // On the Unix socket the caller proves itself by its rank's secret as well.
  const vicreg::rpc::Gate gate(vicreg::rpc::AllowLocalUser());
  auto server = vicreg::agent::RankServer::Start(socket_path, agent, gate);
  if (!server.ok()) {
    std::cerr << "vicreg-worker: " << server.status().message() << "\n";
    return 1;
  }
  {
    vicreg::agent::CoordinatorStream stream(flags.coordinator, agent);
    int signal = 0;
    sigwait(&signals, &signal);
    spdlog::info("{}: stopping the ranks", signal == SIGTERM ? "SIGTERM" : "SIGINT");
    agent.StopAll(std::chrono::seconds(5));
  }
  return 0;
}
