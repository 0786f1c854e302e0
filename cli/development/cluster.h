#pragma once

// A coordinator and a worker on this machine, for development. What runs is what holds its folder's lock, so no process
// id is kept that could be another process's by now. Everything lives beneath one folder:
//
//   DIR/cluster.json   settings of what was started last
//   DIR/coordinator/   state of vicreg-coordinator      DIR/worker/   of vicreg-worker
//   DIR/artifacts/     checkpoints and exports           DIR/logs/     their logs
//   DIR/up.lock        held while `vicreg up` works

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/process.h"
#include "common/status.h"

namespace vicreg::cli {

struct Settings {
  int cpu = 0;
  int grpc_port = 7070, http_port = 7071;
  std::map<std::string, std::string> data_roots;  // name -> absolute folder

  std::string address() const { return "127.0.0.1:" + std::to_string(grpc_port); }
  bool operator==(const Settings&) const = default;
};

// Settings of FOLDER/cluster.json. NotFound: never started.
absl::StatusOr<Settings> LoadSettings(const std::string& folder);
absl::Status SaveSettings(const std::string& folder, const Settings& settings);

// A port nobody listens on now.
absl::StatusOr<int> FreePort();

// One of the two programs.
class Component {
 public:
  enum class Kind { kCoordinator, kWorker };
  Component(Kind kind, std::string folder) : kind_(kind), folder_(std::move(folder)) {}

  std::string name() const { return kind_ == Kind::kCoordinator ? "coordinator" : "worker"; }
  std::string log_path() const { return folder_ + "/logs/" + name() + ".log"; }
  // 0: does not run.
  int pid() const;

  // Starts it and waits until it serves: the coordinator answers, the node is READY (or its coordinator has ended, and
  // there is nothing to wait for). Its pid. FailedPrecondition with the program's own words when it ends instead.
  absl::StatusOr<int> Start(const Settings& settings);

  // SIGTERM, after `patience` SIGKILL. Of the worker: also its ranks. Sentences of what was done, none when nothing
  // ran.
  absl::StatusOr<std::vector<std::string>> Stop();

 private:
  ProcessSpec Spec(const Settings& settings) const;
  std::string Program() const;
  absl::Status EndRanks() const;

  const Kind kind_;
  const std::string folder_;
};

// $XDG_STATE_HOME/vicreg/dev, else ~/.local/state/vicreg/dev.
std::string DefaultFolder();

}  // namespace vicreg::cli
