#include "cli/development/cluster.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/client.h"
#include "cli/text.h"
#include "common/enum_names.h"
#include "common/files.h"

namespace vicreg::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kStartTimeout{30};
constexpr milliseconds kStopPatience{15'000};  // the worker gives its ranks 5 s and their reports a little more

// Binds and lets go; the port that was bound, 0 when it is taken.
int Probe(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  // As the servers do: a port in TIME_WAIT is free.
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  socklen_t size = sizeof address;
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, 1) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

// The program's last words, for an error.
std::string Tail(const std::string& path) {
  const auto text = ReadFile(path);
  if (!text.ok()) return "";
  std::string tail;
  std::size_t end = text->find_last_not_of('\n');
  for (int lines = 0; lines < 5 && end != std::string::npos && end > 0; ++lines) {
    const std::size_t begin = text->rfind('\n', end);
    tail = "\n  " +
           text->substr(begin == std::string::npos ? 0 : begin + 1,
                        end - (begin == std::string::npos ? 0 : begin + 1) + 1) +
           tail;
    if (begin == std::string::npos || begin == 0) break;
    end = begin - 1;
  }
  return tail;
}

// `message`: of that node.
std::int64_t NewestIncarnation(Client& client, bool& ready, std::string& message) {
  std::int64_t newest = 0;
  ready = false;
  const auto nodes = client.Call(client.cluster(), &v1::ClusterService::Stub::ListNodes, v1::ListNodesRequest());
  if (!nodes.ok()) return 0;
  for (const v1::Node& node : nodes->nodes()) {
    if (node.incarnation() < newest) continue;
    newest = node.incarnation();
    ready = node.state() == v1::NODE_STATE_READY;
    message = ready ? "" : "its node is " + ShortName(node.state()) + ": " + Printable(node.message()) + "; ";
  }
  return newest;
}

// False: still there after `patience`.
bool WaitForEnd(int pidfd, milliseconds patience) {
  pollfd wait{pidfd, POLLIN, 0};
  return poll(&wait, 1, static_cast<int>(patience.count())) == 1;
}

}  // namespace

std::string DefaultFolder() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base =
      state != nullptr && *state != '\0' ? fs::path(state) : fs::path(home != nullptr ? home : "/tmp") / ".local/state";
  return (base / "vicreg/dev").string();
}

absl::StatusOr<int> FreePort() {
  const int port = Probe(0);
  if (port == 0) return ErrnoStatus(errno, "find a free port on", "127.0.0.1");
  return port;
}

absl::StatusOr<Settings> LoadSettings(const std::string& folder) {
  const std::string path = folder + "/cluster.json";
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  try {
    Settings settings;
    settings.cpu = json.at("cpu");
    settings.grpc_port = json.at("grpc_port");
    settings.http_port = json.at("http_port");
    settings.data_roots = json.at("data_roots");
    return settings;
  } catch (const nlohmann::json::exception& error) {
    return absl::DataLossError(path + " is damaged (" + error.what() + "): remove it and give all flags again");
  }
}

absl::Status SaveSettings(const std::string& folder, const Settings& settings) {
  const nlohmann::ordered_json json = {{"cpu", settings.cpu},
                                       {"grpc_port", settings.grpc_port},
                                       {"http_port", settings.http_port},
                                       {"data_roots", settings.data_roots}};
  return WriteFileAtomically(folder + "/cluster.json", json.dump(2) + "\n");
}

int Component::pid() const { return LockHolder(folder_ + "/" + name() + "/lock"); }

std::string Component::Program() const {
  std::error_code error;
  return (fs::read_symlink("/proc/self/exe", error).parent_path() / ("vicreg-" + name())).string();
}

ProcessSpec Component::Spec(const Settings& settings) const {
  ProcessSpec spec;
  spec.program = Program();
  spec.log_path = log_path();
  for (const char* name : {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}) {
    if (const char* value = std::getenv(name); value != nullptr) spec.environment.emplace_back(name, value);
  }
  const std::string artifacts = folder_ + "/artifacts";
  if (kind_ == Kind::kCoordinator) {
    spec.arguments = {"--dir",          folder_ + "/coordinator",
                      "--artifacts",    artifacts,
                      "--grpc-address", settings.address(),
                      "--http-address", "127.0.0.1:" + std::to_string(settings.http_port)};
  } else {
    spec.arguments = {"--dir",         folder_ + "/worker", "--artifacts", artifacts,
                      "--coordinator", settings.address(),  "--cpu",       std::to_string(settings.cpu)};
    for (const auto& [root, path] : settings.data_roots)
      spec.arguments.insert(spec.arguments.end(), {"--data-root", root + "=" + path});
  }
  return spec;
}

absl::StatusOr<int> Component::Start(const Settings& settings) {
  RETURN_IF_ERROR(MakeFolders(folder_ + "/logs"));
  if (kind_ == Kind::kCoordinator) {
    std::string taken;
    if (Probe(settings.grpc_port) == 0)
      taken = "port " + std::to_string(settings.grpc_port) + " is in use by another program: choose --grpc-port";
    if (Probe(settings.http_port) == 0)
      taken += (taken.empty() ? "" : "\n") + ("port " + std::to_string(settings.http_port)) +
               " is in use by another program: choose --http-port";
    if (!taken.empty()) return absl::FailedPreconditionError(taken);
  }
  Client client(settings.address());
  client.set_patience(milliseconds(100));
  bool ready = false;
  std::string waits_for;
  const std::int64_t before = kind_ == Kind::kWorker ? NewestIncarnation(client, ready, waits_for) : 0;
  ASSIGN_OR_RETURN(const Process process, Spawn(Spec(settings)));
  const auto give_up = steady_clock::now() + kStartTimeout;
  while (true) {
    if (WaitForEnd(process.pidfd, milliseconds(20))) {
      close(process.pidfd);
      waitpid(process.pid, nullptr, 0);
      return absl::FailedPreconditionError("the " + name() + " ended at once; it said:" + Tail(log_path()));
    }
    if (kind_ == Kind::kCoordinator) {
      const auto cluster =
          client.Call(client.cluster(), &v1::ClusterService::Stub::GetCluster, v1::GetClusterRequest());
      ready = cluster.ok() && cluster->ready();
    } else {
      ready = NewestIncarnation(client, ready, waits_for) > before && ready;
      // It registers when there is one again; whoever keeps the coordinator must not wait here for that.
      ready = ready || Component(Kind::kCoordinator, folder_).pid() == 0;
    }
    if (ready) {
      close(process.pidfd);
      return process.pid;
    }
    if (steady_clock::now() > give_up) {
      kill(process.pid, SIGTERM);
      close(process.pidfd);
      return absl::DeadlineExceededError("the " + name() + " did not serve within 30 s; " + waits_for + "see " +
                                         log_path());
    }
  }
}

absl::Status Component::EndRanks() const {
  std::error_code error;
  if (fs::is_empty(folder_ + "/worker/ranks", error) || error) return absl::OkStatus();
  ProcessSpec spec = Spec(Settings());
  spec.arguments.push_back("--end-ranks");
  ASSIGN_OR_RETURN(const Process process, Spawn(spec));
  int status = 0;
  waitpid(process.pid, &status, 0);
  close(process.pidfd);
  if (status != 0) return absl::InternalError("ranks of a worker that is gone could not be ended; see " + log_path());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Component::Stop() {
  std::vector<std::string> done;
  const int pid = this->pid();
  if (const int pidfd = pid != 0 ? PidfdOpen(pid) : -1; pidfd >= 0) {
    kill(pid, SIGTERM);
    bool ended = WaitForEnd(pidfd, kStopPatience);
    done.push_back("stopped the " + name() + " (process " + std::to_string(pid) + ")");
    if (!ended) {
      kill(pid, SIGKILL);
      done.back() = "killed the " + name() + " (process " + std::to_string(pid) + "), which did not stop when asked";
      ended = WaitForEnd(pidfd, milliseconds(5000));
    }
    waitpid(pid, nullptr, WNOHANG);  // ours when we started it
    close(pidfd);
    if (!ended)
      return absl::InternalError("the " + name() + " (process " + std::to_string(pid) + ") does not end after SIGKILL");
  }
  if (kind_ == Kind::kWorker) RETURN_IF_ERROR(EndRanks());
  return done;
}

}  // namespace vicreg::cli
