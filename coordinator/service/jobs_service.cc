#include "coordinator/service/jobs_service.h"

#include <algorithm>

#include "common/files.h"
#include "common/ids.h"
#include "common/recipe/resolve.h"
#include "common/version.h"
#include "coordinator/service/wire.h"

namespace vicreg::service {
namespace {

constexpr int kMaxQueued = 2000;

absl::Status NoJob(const std::string& id) {
  return absl::NotFoundError("no job " + id.substr(0, 80) + ": `vicreg list` shows all");
}

// Status messages travel in headers, which hold 8 KiB. Whole lines, and how many were left out.
absl::Status Abridged(const absl::Status& status) {
  constexpr std::size_t kMost = 4000;
  const std::string text(status.message());
  if (text.size() <= kMost) return status;
  const std::size_t end = std::min(text.rfind('\n', kMost), kMost);
  const auto left_out = std::count(text.begin() + static_cast<std::ptrdiff_t>(end), text.end(), '\n');
  return absl::Status(status.code(), text.substr(0, end) + "\nand " + std::to_string(left_out) + " more problems");
}

// By every node ever seen: a root or a GPU whose node is away for the moment is no slip of the pen. Before the first
// node nothing is known.
template <typename Nodes>
recipe::Offered OfferedBy(const Nodes& nodes) {
  if (nodes.empty()) return std::nullopt;
  recipe::Offered offered(std::in_place);
  for (const core::Node& node : nodes) {
    offered->roots.insert(node.data_roots.begin(), node.data_roots.end());
    offered->gpus |= node.gpu_slots > 0;
  }
  return offered;
}

absl::Status CheckOffered(const core::Transaction& tx, const v1::JobSpec& spec) {
  std::vector<core::Node> nodes;
  for (const core::Node* node : tx.Nodes()) nodes.push_back(*node);
  const recipe::Offered offered = OfferedBy(nodes);
  const bool fine =
      !offered || (offered->roots.count(spec.data().root()) != 0 && (offered->gpus || spec.device() != v1::DEVICE_GPU));
  return fine ? absl::OkStatus() : recipe::Resolve(spec, offered).status();
}

core::Job ToJob(const recipe::Resolved& resolved, const std::string& owner) {
  core::Job job;
  job.name = resolved.spec.name();
  job.owner = owner;
  job.spec = resolved.spec.SerializeAsString();
  job.recipe_hash = resolved.hash;
  job.slot_kind = resolved.spec.device() == v1::DEVICE_GPU ? "gpu" : "cpu";
  job.data_root = resolved.spec.data().root();
  job.world_size = resolved.spec.world_size().min();
  job.max_charges = resolved.spec.restart().charges();
  job.checkpoint_keep = resolved.spec.checkpoint().keep();
  job.total_steps = resolved.recipe.length.epochs > 0 ? 0 : resolved.recipe.length.steps;
  return job;
}

}  // namespace

grpc::ServerUnaryReactor* JobsService::SubmitJob(grpc::CallbackServerContext* context,
                                                 const v1::SubmitJobRequest* request, v1::SubmitJobResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.JobsService/SubmitJob", [=, this](const rpc::Principal& who, rpc::UnaryDone done) {
        if (!IsUuid(request->request_id())) {
          done(absl::InvalidArgumentError("request_id: found \"" + request->request_id().substr(0, 80) +
                                          "\"; expected a lower-case UUID made by the client"));
          return;
        }
        auto resolved = recipe::Resolve(request->spec());
        if (!resolved.ok()) {
          done(Abridged(resolved.status()));
          return;
        }
        for (const std::string& warning : resolved->warnings) response->add_warnings(warning);
        const core::Job job = ToJob(*resolved, who.name);
        auto id = std::make_shared<std::string>();
        coordinator_.Post(
            [=, spec = resolved->spec, dry_run = request->dry_run(), request_id = request->request_id(),
             sha256 = Sha256Hex(request->spec().SerializeAsString())](core::Transaction& tx) -> absl::Status {
              // A repeated request gets its first answer, whatever has changed since.
              if (tx.FindRequest(request_id) == nullptr) {
                RETURN_IF_ERROR(CheckOffered(tx, spec));
                const auto live = tx.LiveJobs();
                if (std::count_if(live.begin(), live.end(), [](const core::Job* j) {
                      return j->state == core::JobState::kQueued;
                    }) >= kMaxQueued) {
                  return absl::ResourceExhaustedError(
                      "2000 jobs are queued, the limit of a project: wait, or cancel some");
                }
              }
              if (dry_run) return absl::OkStatus();
              ASSIGN_OR_RETURN(*id, core::Submit(tx, job, NewUuid(), request_id, sha256));
              return absl::OkStatus();
            },
            [this, id, response, done, spec = resolved->spec, hash = resolved->hash](const absl::Status& status) {
              if (status.ok() && id->empty()) {
                *response->mutable_job()->mutable_spec() = spec;
                response->mutable_job()->set_recipe_hash(hash);
              } else if (status.ok()) {
                *response->mutable_job() = ToWire(*coordinator_.FindJob(*id), coordinator_.history());
              }
              done(status);
            });
      });
}

grpc::ServerUnaryReactor* JobsService::GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                              v1::GetJobResponse* response) {
  return gate_.Unary(context, "vicreg.v1.JobsService/GetJob",
                     [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
                       const auto job = coordinator_.FindJob(request->id());
                       if (job) *response->mutable_job() = ToWire(*job, coordinator_.history());
                       done(job ? absl::OkStatus() : NoJob(request->id()));
                     });
}

grpc::ServerUnaryReactor* JobsService::ListJobs(grpc::CallbackServerContext* context,
                                                const v1::ListJobsRequest* request, v1::ListJobsResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.JobsService/ListJobs", [=, this](const rpc::Principal&, const rpc::UnaryDone& done) {
        const int limit = request->page_size() == 0 ? 1000 : std::clamp(request->page_size(), 1, 10000);
        std::int64_t after = 0;
        if (!request->page_token().empty()) {
          char* end = nullptr;
          after = std::strtoll(request->page_token().c_str(), &end, 10);
          if (*end != '\0') {
            done(absl::InvalidArgumentError("page_token: found \"" + request->page_token().substr(0, 80) +
                                            "\"; expected one that ListJobs gave"));
            return;
          }
        }
        for (const core::Job& job : coordinator_.Jobs()) {
          const bool wanted =
              request->states().empty() || std::find(request->states().begin(), request->states().end(),
                                                     static_cast<int>(job.state)) != request->states().end();
          if (job.queue_seq <= after || !wanted) continue;
          if (response->jobs_size() == limit) {
            response->set_next_page_token(std::to_string(after));
            break;
          }
          *response->add_jobs() = ToWire(job, coordinator_.history());
          after = job.queue_seq;
        }
        done(absl::OkStatus());
      });
}

grpc::ServerUnaryReactor* JobsService::CancelJob(grpc::CallbackServerContext* context,
                                                 const v1::CancelJobRequest* request, v1::CancelJobResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.JobsService/CancelJob", [=, this](const rpc::Principal& who, const rpc::UnaryDone& done) {
        const double grace = request->has_grace_seconds() ? request->grace_seconds() : 10;
        if (!(grace >= 0 && grace <= 3600)) {
          done(absl::InvalidArgumentError("grace_seconds: found " + std::to_string(grace) + "; expected 0 to 3600"));
          return;
        }
        coordinator_.Post([id = request->id(), grace,
                           name = who.name](core::Transaction& tx) { return core::Cancel(tx, id, grace, name); },
                          [this, id = request->id(), response, done](const absl::Status& status) {
                            if (status.ok())
                              *response->mutable_job() = ToWire(*coordinator_.FindJob(id), coordinator_.history());
                            done(status);
                          });
      });
}

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

}  // namespace vicreg::service
