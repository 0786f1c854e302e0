#include "coordinator/service/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <thread>

#include "common/address.h"
#include "coordinator/service/cluster_service.h"
#include "coordinator/service/jobs_service.h"
#include "coordinator/store/maintenance.h"
#include "coordinator/web/server.h"

namespace vicreg::service {
namespace {

constexpr int kMaxMessage = 1 << 20;
constexpr std::chrono::minutes kBackupEvery{15}, kBackupAgain{1};

class RealServer : public Server {
 public:
  RealServer(std::unique_ptr<store::SqliteStore> store, std::unique_ptr<telemetry::History> history,
             const ServerOptions& options, std::unique_ptr<rpc::Policy> policy)
      : folder_(options.folder),
        gate_(std::move(policy)),
        coordinator_(std::move(store), std::move(history), SystemClock(), options.artifact_root),
        rendezvous_(SystemClock()),
        logs_(coordinator_.term() << 32),
        probes_(coordinator_.term() << 32),
        jobs_(coordinator_, fanout_, logs_, gate_),
        cluster_(coordinator_, probes_, options.folder, gate_),
        workers_(coordinator_, rendezvous_, logs_, probes_, gate_) {}

  ~RealServer() override {
    http_.reset();
    stopping_ = true;
    if (janitor_.joinable()) janitor_.join();
    cluster_.Expire(TimePoint::max());  // no call may be left open
    if (grpc_) grpc_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
    grpc_.reset();
  }

  absl::Status Begin(const ServerOptions& options) {
    ASSIGN_OR_RETURN(const HostPort where, ParseLoopback(options.grpc_address, "--grpc-address"));
    RETURN_IF_ERROR(coordinator_.Start(options.deposed));
    grpc::EnableDefaultHealthCheckService(true);
    static std::once_flag reflection;
    // Only ever on loopback, as ParseLoopback made sure.
    std::call_once(reflection, [] { grpc::reflection::InitProtoReflectionServerBuilderPlugin(); });
    grpc::ServerBuilder builder;
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(kMaxMessage);
    builder.AddListeningPort(options.grpc_address, grpc::InsecureServerCredentials(), &grpc_port_);
    builder.RegisterService(&jobs_);
    builder.RegisterService(&cluster_);
    builder.RegisterService(&workers_);
    grpc_ = builder.BuildAndStart();
    if (!grpc_ || grpc_port_ == 0) {
      return absl::FailedPreconditionError(
          "address " + options.grpc_address +
          " is in use or cannot be bound: choose another with --grpc-address, or stop the program that holds it");
    }
    web::HttpServer::Pages pages;
    pages.metrics = [this] {
      return telemetry::Expose(coordinator_.View(fanout_.count()), SystemClock().WallMicros());
    };
    pages.ready = [this] { return coordinator_.Ready(); };
    ASSIGN_OR_RETURN(http_, web::HttpServer::Start(options.http_address, pages));
    janitor_ = std::thread([this] { Clean(); });
    return absl::OkStatus();
  }

  int grpc_port() const override { return grpc_port_; }
  int http_port() const override { return http_->port(); }

 private:
  // A copy of the store from time to time; one that fails is tried again a minute later.
  void BackUp() {
    const TimePoint now = SystemClock().SteadyNow();
    if (now < next_backup_) return;
    const auto taken = store::TakeSnapshot(folder_, SystemClock().WallMicros());
    next_backup_ = now + (taken.ok() ? kBackupEvery : kBackupAgain);
    if (taken.ok()) {
      coordinator_.NoteBackup(SystemClock().WallMicros());
    } else {
      spdlog::error("no backup: {}", std::string(taken.status().message()));
    }
  }

  // Waiting rendezvous calls have deadlines of their own.
  void Clean() {
    while (!stopping_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      cluster_.Expire(SystemClock().SteadyNow());
      BackUp();
      rendezvous_.Expire([this](const std::string& job_id, int attempt) {
        const auto job = coordinator_.FindJob(job_id);
        return job && job->attempt == attempt && !core::IsTerminal(job->state);
      });
    }
  }

  const std::string folder_;
  TimePoint next_backup_ = SystemClock().SteadyNow() + kBackupEvery;  // janitor only
  // In order of starting; destroyed in reverse.
  const rpc::Gate gate_;
  Coordinator coordinator_;
  Rendezvous rendezvous_;
  LogCalls logs_;
  ProbeCalls probes_;
  Fanout fanout_;
  JobsService jobs_;
  ClusterService cluster_;
  WorkerService workers_;
  int grpc_port_ = 0;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<web::HttpServer> http_;
  std::atomic<bool> stopping_{false};
  std::thread janitor_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      std::unique_ptr<rpc::Policy> policy) {
  // Addresses first: nothing is touched for a flag that cannot work.
  RETURN_IF_ERROR(ParseLoopback(options.grpc_address, "--grpc-address").status());
  RETURN_IF_ERROR(ParseLoopback(options.http_address, "--http-address").status());
  ASSIGN_OR_RETURN(auto store, store::SqliteStore::Open(options.folder));
  ASSIGN_OR_RETURN(auto history, telemetry::History::Open(options.folder));
  auto server = std::make_unique<RealServer>(std::move(store), std::move(history), options, std::move(policy));
  RETURN_IF_ERROR(server->Begin(options));
  return server;
}

}  // namespace vicreg::service
