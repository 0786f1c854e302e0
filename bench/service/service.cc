// vicreg-bench-service: clients of a real coordinator, and the floor they are held against (see scripts/bench).
//   vicreg-bench-service bare     serves empty answers, says {"port": N}, until its input ends
//   vicreg-bench-service          reads lines {"mode": ..., "address": ..., ...}; answers one JSON line each:
//     submits   `clients` together submit `rate` jobs a second for `seconds`
//     calls     the same number of empty unary calls
//     streams   `workers` send a heartbeat a second each, while the CPU time of process `pid` is taken
//     unary     the same number of empty unary calls, each worker on its own connection
//     workers   connects `workers` (slots 8, and a tiny node) that stay; fill, fit and again need them
//     fill      submits `count` jobs that never fit, each a class of its own
//     fit       submits `count` jobs that fit, one after another: from the call to the Launch at a worker
//     again     how long after `begin` (Unix seconds) the address served, and a job submitted then was launched

#include <grpcpp/grpcpp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "bench/service/bare.h"
#include "bench/service/workers.h"
#include "bench/usage.h"
#include "common/ids.h"
#include "common/rpc/log.h"
#include "vicreg/v1/jobs_service.grpc.pb.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments own;
  own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  own.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20);
  own.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  own.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 20);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), own);
}

void Check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

json Quantiles(std::vector<double> samples) {
  if (samples.empty()) throw std::runtime_error("nothing was measured");
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double q) {
    return samples[static_cast<std::size_t>(q * static_cast<double>(samples.size() - 1))];
  };
  return {{"samples", samples.size()}, {"p50", at(0.5)}, {"p99", at(0.99)}, {"worst", samples.back()}};
}

// CPU seconds of another process.
double CpuSecondsOf(int pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), {});
  // Fields 14 and 15; the name in parentheses may hold blanks.
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  double user = 0, system = 0;
  if (!(fields >> user >> system)) throw std::runtime_error("no process " + std::to_string(pid));
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

v1::SubmitJobRequest JobOf(int world, int priority = 0, const std::string& label = "") {
  v1::SubmitJobRequest request;
  request.set_request_id(NewUuid());
  v1::JobSpec& spec = *request.mutable_spec();
  spec.set_name("bench");
  spec.set_preset("demo-cpu");
  spec.set_priority(priority);
  spec.mutable_data()->set_root("images");
  spec.mutable_world_size()->set_min(world);
  spec.mutable_world_size()->set_max(world);
  if (!label.empty()) spec.mutable_placement()->add_labels(label);
  return request;
}

std::string Submit(v1::JobsService::Stub& jobs, const v1::SubmitJobRequest& request, bool wait = false) {
  grpc::ClientContext context;
  context.set_wait_for_ready(wait);
  v1::SubmitJobResponse response;
  Check(jobs.SubmitJob(&context, request, &response));
  return response.job().id();
}

// How long each of `rate` calls a second took for `seconds`, from `clients` threads on a connection each. A call that
// comes late because the one before took long counts from when it was due.
json Paced(const json& wanted, const std::function<std::function<void()>(const std::string&)>& client) {
  const int clients = wanted.at("clients");
  const double rate = wanted.at("rate"), seconds = wanted.at("seconds");
  std::vector<std::vector<double>> times(static_cast<std::size_t>(clients));
  std::vector<std::thread> threads;
  std::atomic<bool> failed{false};
  const auto begin = Clock::now() + std::chrono::milliseconds(200);
  for (int i = 0; i < clients; ++i) {
    threads.emplace_back([&, i] {
      try {
        const std::function<void()> call = client(wanted.at("address"));
        call();  // connects
        for (int k = 0; k < static_cast<int>(rate * seconds) / clients; ++k) {
          const auto due = begin + std::chrono::duration_cast<Clock::duration>(Seconds((k * clients + i) / rate));
          std::this_thread::sleep_until(due);
          call();
          times[static_cast<std::size_t>(i)].push_back(Seconds(Clock::now() - due).count());
        }
      } catch (const std::exception& error) {
        std::cerr << "vicreg-bench-service: " << error.what() << std::endl;
        failed = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failed) throw std::runtime_error("a client failed");
  std::vector<double> all;
  for (const auto& some : times) all.insert(all.end(), some.begin(), some.end());
  return Quantiles(all);
}

json Submits(const json& wanted) {
  return Paced(wanted, [](const std::string& address) -> std::function<void()> {
    return [jobs = std::shared_ptr(v1::JobsService::NewStub(Connect(address)))] { Submit(*jobs, JobOf(2)); };
  });
}

std::function<void()> EmptyCall(const std::string& address) {
  return [cluster = std::shared_ptr(v1::ClusterService::NewStub(Connect(address)))] {
    grpc::ClientContext context;
    v1::GetClusterResponse response;
    Check(cluster->GetCluster(&context, {}, &response));
  };
}

// CPU time of `pid` and of this process for `seconds` of what goes on.
json Watched(const json& wanted, const std::function<void()>& during) {
  const double before = CpuSecondsOf(wanted.at("pid")), own = CpuSeconds();
  const auto begin = Clock::now();
  during();
  const double seconds = Seconds(Clock::now() - begin).count();
  return {{"core", (CpuSecondsOf(wanted.at("pid")) - before) / seconds},
          {"client_core", (CpuSeconds() - own) / seconds}};
}

Workers::Wanted WorkersOf(const json& wanted) {
  Workers::Wanted workers;
  workers.address = wanted.at("address");
  workers.count = wanted.at("workers");
  return workers;
}

json Streams(const json& wanted) {
  Workers workers(WorkersOf(wanted));
  if (!workers.WaitWelcomed(wanted.at("workers"), std::chrono::seconds(60)))
    throw std::runtime_error("only " + std::to_string(workers.welcomed()) + " workers were welcomed within 60 s");
  std::this_thread::sleep_for(std::chrono::seconds(1));
  workers.TakeRoundTrips();
  json answer = Watched(wanted, [&] { std::this_thread::sleep_for(Seconds(wanted.at("seconds").get<double>())); });
  answer.update(Quantiles(workers.TakeRoundTrips()));
  answer["lost_streams"] = workers.lost_streams();
  return answer;
}

// From one thread, asynchronously: as many connections as workers, one call a second on each.
json Unary(const json& wanted) {
  const int workers = wanted.at("workers");
  const double seconds = wanted.at("seconds");
  struct Call {
    grpc::ClientContext context;
    v1::GetClusterResponse response;
  };
  std::vector<std::unique_ptr<v1::ClusterService::Stub>> stubs;
  for (int i = 0; i < workers; ++i) {
    stubs.push_back(v1::ClusterService::NewStub(Connect(wanted.at("address"))));
    grpc::ClientContext context;
    v1::GetClusterResponse response;
    Check(stubs.back()->GetCluster(&context, {}, &response));
  }
  std::atomic<int> open{0}, failed{0};
  static const v1::GetClusterRequest kEmpty;
  int calls = 0;
  json answer = Watched(wanted, [&] {
    const auto begin = Clock::now();
    for (; calls < static_cast<int>(workers * seconds); ++calls) {
      std::this_thread::sleep_until(begin +
                                    std::chrono::duration_cast<Clock::duration>(Seconds(1.0 * calls / workers)));
      auto call = std::make_shared<Call>();
      ++open;
      stubs[static_cast<std::size_t>(calls % workers)]->async()->GetCluster(
          &call->context, &kEmpty, &call->response, [call, &open, &failed](const grpc::Status& status) {
            if (!status.ok()) ++failed;
            --open;
          });
    }
    while (open > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  if (failed > 0) throw std::runtime_error(std::to_string(failed) + " calls failed");
  answer["samples"] = calls;
  return answer;
}

// World sizes and priorities that no two share; the one node they may go to has a single slot.
json Fill(const json& wanted) {
  const int count = wanted.at("count");
  constexpr int kClients = 16;
  std::atomic<int> next{0};
  std::vector<std::thread> threads;
  std::atomic<bool> failed{false};
  const auto begin = Clock::now();
  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([&] {
      try {
        const auto jobs = v1::JobsService::NewStub(Connect(wanted.at("address")));
        for (int k = next++; k < count; k = next++) Submit(*jobs, JobOf(2 + k % 100, k / 100 % 100, "size=tiny"));
      } catch (const std::exception& error) {
        std::cerr << "vicreg-bench-service: " << error.what() << std::endl;
        failed = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failed) throw std::runtime_error("a submit failed");
  return {{"per_second", count / Seconds(Clock::now() - begin).count()}};
}

json Fit(const json& wanted, Workers& workers) {
  const auto jobs = v1::JobsService::NewStub(Connect(wanted.at("address")));
  std::vector<double> times;
  for (int i = 0; i < wanted.at("count").get<int>(); ++i) {
    const auto begin = Clock::now();
    const std::string id = Submit(*jobs, JobOf(2));
    const auto launched = workers.WaitLaunched(id, std::chrono::seconds(30));
    if (launched == Clock::time_point::max()) throw std::runtime_error("job " + id + " was not launched within 30 s");
    times.push_back(Seconds(launched - begin).count());
  }
  return Quantiles(times);
}

json Again(const json& wanted, Workers& workers) {
  const double begun = wanted.at("begin");
  const auto since = [&](std::chrono::system_clock::time_point at) {
    return Seconds(at.time_since_epoch()).count() - begun;
  };
  const auto channel = Connect(wanted.at("address"));
  const auto cluster = v1::ClusterService::NewStub(channel);
  v1::GetClusterResponse answer;
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  Check(cluster->GetCluster(&context, {}, &answer));
  const double serving = since(std::chrono::system_clock::now());
  const auto jobs = v1::JobsService::NewStub(channel);
  const std::string id = Submit(*jobs, JobOf(2));
  if (workers.WaitLaunched(id, std::chrono::seconds(60)) == Clock::time_point::max())
    throw std::runtime_error("job " + id + " was not launched within 60 s");
  const double scheduling = since(std::chrono::system_clock::now());
  const bool all = workers.WaitWelcomed(wanted.at("workers"), std::chrono::seconds(60));
  return {{"serving", serving},
          {"scheduling", scheduling},
          {"all_workers", all ? since(std::chrono::system_clock::now()) : -1}};
}

json Measure(const json& wanted, std::unique_ptr<Workers>& workers) {
  const std::string mode = wanted.at("mode");
  if (mode == "submits") return Submits(wanted);
  if (mode == "calls") return Paced(wanted, EmptyCall);
  if (mode == "streams") return Streams(wanted);
  if (mode == "unary") return Unary(wanted);
  if (mode == "fill") return Fill(wanted);
  if (mode == "workers") {
    Workers::Wanted of = WorkersOf(wanted);
    of.tiny = true;
    of.heartbeat = std::chrono::seconds(2);
    workers = std::make_unique<Workers>(of);
    if (!workers->WaitWelcomed(of.count + 1, std::chrono::seconds(60)))
      throw std::runtime_error("only " + std::to_string(workers->welcomed()) + " workers were welcomed within 60 s");
    return {{"welcomed", workers->welcomed()}};
  }
  if (workers == nullptr) throw std::invalid_argument("mode " + mode + ": unknown, or first mode workers");
  if (mode == "fit") return Fit(wanted, *workers);
  if (mode == "again") return Again(wanted, *workers);
  throw std::invalid_argument("mode " + mode + " is unknown");
}

void Serve() {
  std::cout << json{{"ready", true}} << std::endl;
  std::unique_ptr<Workers> workers;
  for (std::string line; std::getline(std::cin, line);) {
    const auto begin = Clock::now();
    const double cpu = CpuSeconds();
    json answer = Measure(json::parse(line), workers);
    answer["wall"] = Seconds(Clock::now() - begin).count();
    answer["cpu"] = CpuSeconds() - cpu;
    answer["peak_bytes"] = Memory("VmHWM:");
    std::cout << answer << std::endl;
  }
}

void ServeBare() {
  const BareServer server;
  std::cout << json{{"port", server.port()}} << std::endl;
  while (std::cin.get() != std::char_traits<char>::eof()) {
  }
}

// A connection of each worker.
void RaiseFileLimit() {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace
}  // namespace vicreg::bench

int main(int argc, char** argv) {
  vicreg::rpc::TakeOverGrpcLog(true);
  vicreg::bench::RaiseFileLimit();
  try {
    if (argc == 2 && std::string(argv[1]) == "bare") {
      vicreg::bench::ServeBare();
    } else {
      vicreg::bench::Serve();
    }
  } catch (const std::exception& error) {
    std::cerr << "vicreg-bench-service: " << error.what() << "\n";
    return 1;
  }
}
