#include "coordinator/service/cluster_service.h"

#include <algorithm>
#include <map>

#include "common/version.h"
#include "coordinator/service/wire.h"
#include "coordinator/service/worker_wire.h"
#include "coordinator/store/maintenance.h"

namespace vicreg::service {
namespace {

// A worker's own limit is a minute for each kind of slot.
constexpr std::chrono::seconds kProbePatience{150};

}  // namespace

grpc::ServerUnaryReactor* ClusterService::GetCluster(grpc::CallbackServerContext* context, const v1::GetClusterRequest*,
                                                     v1::GetClusterResponse* response) {
  return gate_.Unary(context, "vicreg.v1.ClusterService/GetCluster",
                     [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
                       response->set_version(kVersion);
                       response->set_store_id(coordinator_.store_id());
                       response->set_term(coordinator_.term());
                       const absl::Status ready = coordinator_.Ready();
                       response->set_ready(ready.ok());
                       response->set_message(ready.ok() ? "ready" : std::string(ready.message()));
                       done(absl::OkStatus());
                     });
}

grpc::ServerUnaryReactor* ClusterService::ListNodes(grpc::CallbackServerContext* context, const v1::ListNodesRequest*,
                                                    v1::ListNodesResponse* response) {
  return gate_.Unary(context, "vicreg.v1.ClusterService/ListNodes",
                     [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
                       const std::vector<core::Job> jobs = coordinator_.Jobs();
                       for (const core::Node& node : coordinator_.Nodes()) *response->add_nodes() = ToWire(node, jobs);
                       done(absl::OkStatus());
                     });
}

grpc::ServerUnaryReactor* ClusterService::ChangeNode(grpc::CallbackServerContext* context,
                                                     const v1::ChangeNodeRequest* request,
                                                     v1::ChangeNodeResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.ClusterService/ChangeNode", [=, this](const rpc::Principal& who, const rpc::UnaryDone& done) {
        const double grace = request->has_grace_seconds() ? request->grace_seconds() : 120;
        Problems problems;
        if (request->admin() < v1::NODE_ADMIN_OPEN || request->admin() > v1::NODE_ADMIN_DRAINING)
          problems.Add("admin: found " + std::to_string(request->admin()) +
                       "; expected NODE_ADMIN_OPEN, NODE_ADMIN_CORDONED or NODE_ADMIN_DRAINING");
        if (!(grace >= 0 && grace <= 3600))
          problems.Add("grace_seconds: found " + std::to_string(grace) + "; expected 0 to 3600");
        if (const absl::Status fine = problems.status(); !fine.ok()) {
          done(fine);
          return;
        }
        const auto admin = static_cast<core::AdminState>(request->admin() - v1::NODE_ADMIN_OPEN);
        coordinator_.Post([=, name = request->name(), actor = who.name](
                              core::Transaction& tx) { return core::SetNodeAdmin(tx, name, admin, grace, actor); },
                          [this, name = request->name(), response, done](const absl::Status& status) {
                            if (status.ok()) {
                              for (const core::Node& node : coordinator_.Nodes()) {
                                if (node.name == name) *response->mutable_node() = ToWire(node, coordinator_.Jobs());
                              }
                            }
                            done(status);
                          });
      });
}

grpc::ServerUnaryReactor* ClusterService::ProbeNode(grpc::CallbackServerContext* context,
                                                    const v1::ProbeNodeRequest* request,
                                                    v1::ProbeNodeResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.ClusterService/ProbeNode", [=, this](const rpc::Principal& who, const rpc::UnaryDone& done) {
        const std::string& name = request->name();
        const std::vector<core::Node> nodes = coordinator_.Nodes();
        const auto asked =
            std::find_if(nodes.begin(), nodes.end(), [&](const core::Node& n) { return n.name == name; });
        if (asked == nodes.end()) {
          done(absl::NotFoundError("no node " + name.substr(0, 80) + ": `vicreg node list` shows all"));
          return;
        }
        const auto answered = [=, this, actor = who.name, incarnation = asked->incarnation](const v1::Probed& probed) {
          {
            const std::lock_guard lock(mutex_);
            waiting_.erase(name);
          }
          *response->mutable_problems() = probed.problems();
          *response->mutable_facts() = probed.facts();
          core::ProbeAnswer answer = ToProbeAnswer(probed, name, incarnation);
          answer.actor = actor;
          coordinator_.Post(
              [=](core::Transaction& tx) {
                core::OnProbed(tx, answer);
                return absl::OkStatus();
              },
              [=, this](const absl::Status& status) {
                for (const core::Node& node : coordinator_.Nodes()) {
                  if (node.name == name) *response->mutable_node() = ToWire(node, coordinator_.Jobs());
                }
                done(status);
              });
        };
        const std::int64_t id = probes_.Add(answered);
        bool running = false;
        {
          const std::lock_guard lock(mutex_);
          running =
              !waiting_.try_emplace(name, Waiting{id, coordinator_.clock().SteadyNow() + kProbePatience, done}).second;
        }
        v1::ConnectResponse ask;
        ask.mutable_probe()->set_call_id(id);
        if (running) {
          probes_.Forget(id);
          done(absl::ResourceExhaustedError("a probe of node " + name + " is running: wait for its answer"));
        } else if (!coordinator_.SendTo(name, ask) && probes_.Forget(id)) {
          const std::lock_guard lock(mutex_);
          waiting_.erase(name);
          done(absl::UnavailableError("the worker of node " + name + " is not connected: start it, then probe again"));
        }
      });
}

void ClusterService::Expire(TimePoint now) {
  std::vector<std::pair<std::string, rpc::UnaryDone>> late;
  {
    const std::lock_guard lock(mutex_);
    for (auto entry = waiting_.begin(); entry != waiting_.end();) {
      const bool mine = entry->second.give_up <= now && probes_.Forget(entry->second.call_id);
      if (mine) late.emplace_back(entry->first, entry->second.done);
      entry = mine ? waiting_.erase(entry) : std::next(entry);
    }
  }
  for (const auto& [name, done] : late)
    done(absl::UnavailableError("the worker of node " + name + " did not answer within 150 s: see its log"));
}

grpc::ServerUnaryReactor* ClusterService::TakeSnapshot(grpc::CallbackServerContext* context,
                                                       const v1::TakeSnapshotRequest*,
                                                       v1::TakeSnapshotResponse* response) {
  return gate_.Unary(context, "vicreg.v1.ClusterService/TakeSnapshot",
                     [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
                       const auto file = store::TakeSnapshot(folder_, coordinator_.clock().WallMicros());
                       if (file.ok()) {
                         coordinator_.NoteBackup(coordinator_.clock().WallMicros());
                         response->set_path("snapshots/" + file->name);
                         response->set_bytes(file->bytes);
                         response->set_sha256(file->sha256);
                       }
                       done(file.status());
                     });
}

grpc::ServerUnaryReactor* ClusterService::ListQueues(grpc::CallbackServerContext* context, const v1::ListQueuesRequest*,
                                                     v1::ListQueuesResponse* response) {
  return gate_.Unary(context, "vicreg.v1.ClusterService/ListQueues",
                     [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
                       std::map<core::QueueKey, v1::Queue> queues;
                       for (const core::Queue& queue : coordinator_.Queues())
                         queues[{queue.project, queue.name}] = ToWire(queue);
                       const auto of = [&](const std::string& project, const std::string& name) -> v1::Queue& {
                         const auto [found, added] = queues.try_emplace({project, name});
                         if (added) found->second = ToWire(core::Queue{project, name, true, -1000, 1000, {}});
                         return found->second;
                       };
                       of("default", "default");
                       for (const core::Job& job : coordinator_.Jobs()) {
                         if (core::IsTerminal(job.state)) continue;
                         v1::Queue& queue = of(job.project, job.queue);
                         if (core::HoldsSlots(job.state)) {
                           queue.set_running(queue.running() + 1);
                         } else {
                           queue.set_waiting(queue.waiting() + 1);
                         }
                       }
                       for (auto& [key, queue] : queues) *response->add_queues() = std::move(queue);
                       done(absl::OkStatus());
                     });
}

grpc::ServerUnaryReactor* ClusterService::SetQueue(grpc::CallbackServerContext* context,
                                                   const v1::SetQueueRequest* request, v1::SetQueueResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.ClusterService/SetQueue", [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
        const v1::Queue& wire = request->queue();
        const core::Queue queue{wire.project(),      wire.name(),         !wire.closed(),
                                wire.min_priority(), wire.max_priority(), {wire.labels().begin(), wire.labels().end()}};
        coordinator_.Post([queue](core::Transaction& tx) { return core::SetQueue(tx, queue); },
                          [queue, response, done](const absl::Status& status) {
                            if (status.ok()) *response->mutable_queue() = ToWire(queue);
                            done(status);
                          });
      });
}

grpc::ServerUnaryReactor* ClusterService::ListQuotas(grpc::CallbackServerContext* context, const v1::ListQuotasRequest*,
                                                     v1::ListQuotasResponse* response) {
  return gate_.Unary(context, "vicreg.v1.ClusterService/ListQuotas",
                     [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
                       std::map<std::string, v1::Quota> quotas;
                       for (const core::Project& project : coordinator_.Projects())
                         quotas[project.name] = ToWire(project);
                       for (const core::Job& job : coordinator_.Jobs()) {
                         if (core::IsTerminal(job.state)) continue;
                         core::Project absent;
                         absent.name = job.project;
                         v1::Quota& quota = quotas.try_emplace(job.project, ToWire(absent)).first->second;
                         if (!core::HoldsSlots(job.state)) continue;
                         if (job.slot_kind == "gpu") {
                           quota.set_gpu_used(quota.gpu_used() + job.world_size);
                         } else {
                           quota.set_cpu_used(quota.cpu_used() + job.world_size);
                         }
                       }
                       for (auto& [name, quota] : quotas) *response->add_quotas() = std::move(quota);
                       done(absl::OkStatus());
                     });
}

grpc::ServerUnaryReactor* ClusterService::SetQuota(grpc::CallbackServerContext* context,
                                                   const v1::SetQuotaRequest* request, v1::SetQuotaResponse* response) {
  return gate_.Unary(context, "vicreg.v1.ClusterService/SetQuota",
                     [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
                       const v1::Quota& wire = request->quota();
                       const core::Project project{wire.project(), wire.has_cpu_slots() ? wire.cpu_slots() : -1,
                                                   wire.has_gpu_slots() ? wire.gpu_slots() : -1,
                                                   wire.has_weight() ? wire.weight() : 1};
                       coordinator_.Post([project](core::Transaction& tx) { return core::SetProject(tx, project); },
                                         [project, response, done](const absl::Status& status) {
                                           if (status.ok()) *response->mutable_quota() = ToWire(project);
                                           done(status);
                                         });
                     });
}

}  // namespace vicreg::service
