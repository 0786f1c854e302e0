#include "coordinator/service/jobs_service.h"

#include <algorithm>

#include "common/files.h"
#include "common/ids.h"
#include "common/recipe/resolve.h"
#include "coordinator/service/wire.h"

namespace vicreg::service {
namespace {

constexpr std::size_t kMaxQueued = 20'000;  // of a project

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
recipe::Offered OfferedBy(const std::vector<const core::Node*>& nodes) {
  if (nodes.empty()) return std::nullopt;
  recipe::Offered offered(std::in_place);
  for (const core::Node* node : nodes) {
    offered->roots.insert(node->data_roots.begin(), node->data_roots.end());
    offered->labels.insert(node->labels.begin(), node->labels.end());
    offered->gpus |= node->gpu_slots > 0;
  }
  return offered;
}

absl::Status CheckOffered(const core::Transaction& tx, const v1::JobSpec& spec) {
  const std::vector<const core::Node*> nodes = tx.Nodes();
  const auto any = [&](const auto& has) { return std::any_of(nodes.begin(), nodes.end(), has); };
  const auto in = [](const std::vector<std::string>& all, const std::string& one) {
    return std::find(all.begin(), all.end(), one) != all.end();
  };
  const auto& labels = spec.placement().labels();
  const bool fine =
      nodes.empty() ||
      (any([&](const core::Node* node) { return in(node->data_roots, spec.data().root()); }) &&
       (spec.device() != v1::DEVICE_GPU || any([](const core::Node* node) { return node->gpu_slots > 0; })) &&
       std::all_of(labels.begin(), labels.end(), [&](const std::string& label) {
         return any([&](const core::Node* node) { return in(node->labels, label); });
       }));
  // What is offered altogether is for the message.
  return fine ? absl::OkStatus() : recipe::Resolve(spec, OfferedBy(nodes)).status();
}

core::Level ToLevel(v1::TopologyLevel level) {
  switch (level) {
    case v1::TOPOLOGY_LEVEL_ANY:
      return core::Level::kAny;
    case v1::TOPOLOGY_LEVEL_RACK:
      return core::Level::kRack;
    default:
      return core::Level::kNode;
  }
}

// All that only the cluster knows to be wrong with a job, at once.
absl::Status CheckHere(const core::Transaction& tx, const v1::JobSpec& spec, const core::Job& job) {
  const absl::Status offered = CheckOffered(tx, spec), queue = core::CheckQueue(tx, job);
  if (offered.ok() || queue.ok()) return offered.ok() ? queue : offered;
  return absl::InvalidArgumentError(std::string(offered.message()) + "\n" + std::string(queue.message()));
}

core::Job ToJob(const recipe::Resolved& resolved, const std::string& owner) {
  core::Job job;
  job.name = resolved.spec.name();
  job.owner = owner;
  job.spec = resolved.spec.SerializeAsString();
  job.recipe_hash = resolved.hash;
  job.slot_kind = resolved.spec.device() == v1::DEVICE_GPU ? "gpu" : "cpu";
  job.data_root = resolved.spec.data().root();
  job.project = resolved.spec.project();
  job.queue = resolved.spec.queue();
  job.priority = resolved.spec.priority();
  job.labels.assign(resolved.spec.placement().labels().begin(), resolved.spec.placement().labels().end());
  job.topology = {ToLevel(resolved.spec.placement().topology()), resolved.spec.placement().required()};
  job.min_world = job.world_size = resolved.spec.world_size().min();
  job.max_world = resolved.spec.world_size().max();
  job.batch_size = static_cast<int>(resolved.spec.batch_size());
  job.max_charges = resolved.spec.restart().charges();
  job.one_attempt = resolved.spec.restart().never();
  job.deadline_us =
      std::chrono::microseconds(spec::ParseTime(resolved.spec.deadline()).value_or(std::chrono::seconds(0))).count();
  job.checkpoint_keep = resolved.spec.checkpoint().keep();
  job.total_steps = resolved.recipe.length.epochs > 0 ? 0 : resolved.recipe.length.steps;
  return job;
}

}  // namespace

std::map<std::string, double> JobsService::Etas() const {
  std::map<std::string, double> etas;
  for (const core::Job& job : coordinator_.Jobs()) {
    if (job.state != core::JobState::kRunning) continue;
    if (const v1::Job wire = ToWire(job, coordinator_.history()); wire.has_eta_seconds())
      etas[job.id] = wire.eta_seconds();
  }
  return etas;
}

grpc::ServerUnaryReactor* JobsService::SubmitJob(grpc::CallbackServerContext* context,
                                                 const v1::SubmitJobRequest* request, v1::SubmitJobResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.JobsService/SubmitJob", [=, this](const rpc::Principal& who, const rpc::UnaryDone& done) {
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
        auto plan = std::make_shared<core::Foreseen>();
        const std::map<std::string, double> ends_in = request->dry_run() ? Etas() : std::map<std::string, double>();
        coordinator_.Post(
            [=, spec = resolved->spec, dry_run = request->dry_run(), request_id = request->request_id(),
             sha256 = Sha256Hex(request->spec().SerializeAsString())](core::Transaction& tx) -> absl::Status {
              // A repeated request gets its first answer, whatever has changed since.
              if (tx.FindRequest(request_id) == nullptr) {
                RETURN_IF_ERROR(CheckHere(tx, spec, job));
                if (tx.QueuedCount(job.project) >= kMaxQueued) {
                  return absl::ResourceExhaustedError("project " + job.project + " has " + std::to_string(kMaxQueued) +
                                                      " queued jobs, its limit: wait, or cancel some");
                }
              }
              if (dry_run) {
                *plan = core::PlanOf(tx, job);
                if (plan->slots.empty()) plan->starts_in_seconds = core::EarliestStart(tx, job, ends_in);
                return absl::OkStatus();
              }
              ASSIGN_OR_RETURN(*id, core::Submit(tx, job, NewUuid(), request_id, sha256));
              return absl::OkStatus();
            },
            [this, id, plan, response, done, spec = resolved->spec, hash = resolved->hash](const absl::Status& status) {
              if (status.ok() && id->empty()) {
                *response->mutable_plan() = ToWire(*plan);
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
                       done(job ? absl::OkStatus() : core::NoJob(request->id()));
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
        std::set<core::JobState> states;
        for (const int state : request->states()) states.insert(static_cast<core::JobState>(state));
        // One more than asked for tells whether there is another page.
        for (const core::Job& job : coordinator_.Jobs(after, static_cast<std::size_t>(limit) + 1, states)) {
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

namespace {

void CheckWish(Problems& problems, double grace, const std::string& note) {
  if (!(grace >= 0 && grace <= 3600))
    problems.Add("grace_seconds: found " + std::to_string(grace) + "; expected 0 to 3600");
  if (note.size() > 200) problems.Add("note: found " + std::to_string(note.size()) + " bytes; expected at most 200");
}

}  // namespace

grpc::ServerUnaryReactor* JobsService::CancelJob(grpc::CallbackServerContext* context,
                                                 const v1::CancelJobRequest* request, v1::CancelJobResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.JobsService/CancelJob", [=, this](const rpc::Principal& who, const rpc::UnaryDone& done) {
        const double grace = request->has_grace_seconds() ? request->grace_seconds() : 10;
        Problems problems;
        CheckWish(problems, grace, request->note());
        if (const absl::Status fine = problems.status(); !fine.ok()) {
          done(fine);
          return;
        }
        const core::Wish wish{request->id(), who.name, grace, request->note()};
        coordinator_.Post([wish](core::Transaction& tx) { return core::Cancel(tx, wish); },
                          [this, id = request->id(), response, done](const absl::Status& status) {
                            if (status.ok())
                              *response->mutable_job() = ToWire(*coordinator_.FindJob(id), coordinator_.history());
                            done(status);
                          });
      });
}

namespace {

absl::Status Decide(core::Transaction& tx, const core::Wish& wish, const v1::ChangeJobRequest& request) {
  switch (request.change_case()) {
    case v1::ChangeJobRequest::kPause:
      return core::Pause(tx, wish);
    case v1::ChangeJobRequest::kResume:
      return core::Resume(tx, wish);
    case v1::ChangeJobRequest::kHold:
      return core::Hold(tx, wish);
    case v1::ChangeJobRequest::kRelease:
      return core::Release(tx, wish);
    case v1::ChangeJobRequest::kRequeue:
      return core::RequeueJob(tx, wish);
    case v1::ChangeJobRequest::kRestart:
      return core::Restart(
          tx, wish, request.restart().has_from_step() ? std::optional(request.restart().from_step()) : std::nullopt);
    case v1::ChangeJobRequest::kResize:
      return core::Resize(tx, wish, request.resize().world_size());
    case v1::ChangeJobRequest::kReprioritize:
      return core::SetPriority(tx, wish, request.reprioritize().priority());
    case v1::ChangeJobRequest::CHANGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("change: found none");
}

absl::Status CheckChange(const v1::ChangeJobRequest& request, double grace) {
  Problems problems;
  if (!IsUuid(request.request_id())) {
    problems.Add("request_id: found \"" + request.request_id().substr(0, 80) +
                 "\"; expected a lower-case UUID made by the client");
  }
  CheckWish(problems, grace, request.note());
  if (request.expected_version() < 0) {
    problems.Add("expected_version: found " + std::to_string(request.expected_version()) +
                 "; expected Job.version, or 0");
  }
  if (request.change_case() == v1::ChangeJobRequest::CHANGE_NOT_SET) {
    problems.Add("change: found none; expected pause, resume, hold, release, requeue, restart, resize or reprioritize");
  }
  return problems.status();
}

}  // namespace

grpc::ServerUnaryReactor* JobsService::ChangeJob(grpc::CallbackServerContext* context,
                                                 const v1::ChangeJobRequest* request, v1::ChangeJobResponse* response) {
  return gate_.Unary(
      context, "vicreg.v1.JobsService/ChangeJob", [=, this](const rpc::Principal& who, const rpc::UnaryDone& done) {
        const double grace = request->has_grace_seconds() ? request->grace_seconds() : 120;
        if (const absl::Status fine = CheckChange(*request, grace); !fine.ok()) {
          done(fine);
          return;
        }
        const core::Wish wish{request->id(), who.name, grace, request->note(), request->expected_version()};
        coordinator_.Post(
            [wish, change = *request, sha256 = Sha256Hex(request->SerializeAsString())](core::Transaction& tx) {
              return core::Once(tx, change.request_id(), sha256, wish.job_id, [&] { return Decide(tx, wish, change); });
            },
            [this, id = request->id(), response, done](const absl::Status& status) {
              if (status.ok()) *response->mutable_job() = ToWire(*coordinator_.FindJob(id), coordinator_.history());
              done(status);
            });
      });
}

}  // namespace vicreg::service
