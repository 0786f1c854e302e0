#include "tests/simulation/clients.h"

#include <optional>
#include <utility>

#include "tests/simulation/world.h"
#include "vicreg/v1/job.pb.h"

namespace vicreg::simulation {

void Clients::Do(const Step& step, Random& draw) {
  switch (step.what) {
    case What::kSubmit:
      return Submit(draw);
    case What::kSubmitAgain:
      return Resubmit(draw);
    case What::kCordon:
    case What::kDrain:
    case What::kOpen:
    case What::kProbe:
    case What::kQuota:
    case What::kQueue:
      return Operate(step.what, draw);
    default:
      return Wish(step.what, draw);
  }
}

void Clients::Ask(Call call) {
  ++open_;
  Try(std::make_shared<Call>(std::move(call)));
}

// Lost on the way there, or on the way back; refused, as the coordinator is away; or answered.
void Clients::Try(const std::shared_ptr<Call>& call) {
  Random& random = world_.random;
  const auto again = [this, call](std::chrono::microseconds after) {
    world_.events.After(after, [this, call] { Try(call); });
  };
  const bool lossy = !world_.healing;
  if (lossy && random.Chance(5)) return again(random.Between(seconds(2), seconds(20)));
  world_.events.After(random.Between(microseconds(200), milliseconds(10)), [this, call, again, lossy] {
    if (world_.coordinator == nullptr) return again(world_.random.Between(milliseconds(200), seconds(5)));
    const auto answered = std::make_shared<bool>(false);
    const bool lost = lossy && world_.random.Chance(5);
    world_.coordinator->Post(call->decide, [this, call, answered, lost](const absl::Status& status) {
      if (lost) return;
      world_.events.After(world_.random.Between(microseconds(200), milliseconds(10)), [this, call, answered, status] {
        if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) return;
        if (std::exchange(*answered, true)) return;
        --open_;
        world_.Note(call->what + ": " + (status.ok() ? "OK" : std::string(status.message())));
        if (status.ok()) call->answered();
      });
    });
    world_.events.After(world_.random.Between(seconds(3), seconds(10)), [answered, again] {
      // No answer in time: the same again.
      if (!std::exchange(*answered, true)) again(milliseconds(1));
    });
  });
}

void Clients::Submit(Random& draw) {
  core::Job job;
  v1::JobSpec spec;
  spec.set_name("simulated");
  spec.set_seed(draw.Next() % 1000);
  spec.mutable_length()->set_steps(4 + draw.Draw(16));
  job.data_root = draw.Chance(4) ? "nowhere" : draw.Chance(70) ? "x" : "y";
  spec.mutable_data()->set_root(job.data_root);
  job.name = spec.name();
  job.owner = "local:user";
  job.spec = spec.SerializeAsString();
  job.recipe_hash = "hash";
  job.min_world = job.max_world = job.world_size = draw.Chance(3) ? 50 : 1 + draw.Draw(4);
  if (draw.Chance(30)) job.max_world = job.min_world + draw.Draw(3);
  job.batch_size = 64;
  job.priority = draw.Chance(70) ? 0 : draw.Draw(3);
  job.project = draw.Chance(30) ? "other" : "default";
  job.topology = {static_cast<core::Level>(draw.Draw(3)), draw.Chance(15)};
  job.max_charges = 1 + draw.Draw(4);
  job.checkpoint_keep = 1 + draw.Draw(3);
  job.one_attempt = draw.Chance(10);
  if (draw.Chance(15)) job.deadline_us = (10 + draw.Draw(120)) * std::int64_t{1'000'000};
  job.total_steps = spec.length().steps();
  submitted_.push_back({job, "request " + std::to_string(submitted_.size() + 1)});
  const std::size_t which = submitted_.size() - 1;
  const auto id = std::make_shared<std::string>();
  Ask({"submit " + submitted_[which].request_id,
       [this, which, id](core::Transaction& tx) -> absl::Status {
         const Submitted& s = submitted_[which];
         const std::string fresh = "job " + std::to_string(which + 1) + "." + std::to_string(++ids_);
         ASSIGN_OR_RETURN(*id, core::Submit(tx, s.job, fresh, s.request_id, "sha of " + s.job.spec));
         return absl::OkStatus();
       },
       [this, which, id] {
         world_.ledger.OnSubmitAnswered(submitted_[which].request_id, *id, submitted_[which].job.spec);
         known_.push_back(*id);
       }});
}

// The same request with the same bytes, or with others.
void Clients::Resubmit(Random& draw) {
  if (submitted_.empty()) return;
  const auto which = static_cast<std::size_t>(draw.Draw(static_cast<int>(submitted_.size())));
  const bool other = draw.Chance(50);
  const auto id = std::make_shared<std::string>();
  const auto known = std::make_shared<bool>(false);
  Ask({"submit again " + submitted_[which].request_id,
       [this, which, other, id, known](core::Transaction& tx) -> absl::Status {
         const Submitted& s = submitted_[which];
         *known = tx.FindRequest(s.request_id) != nullptr;
         if (!*known) return absl::NotFoundError("not yet");
         const auto got =
             core::Submit(tx, s.job, "never", s.request_id, "sha of " + s.job.spec + (other ? ", changed" : ""));
         if (other != absl::IsAlreadyExists(got.status()))
           world_.Wrong(s.request_id + " was answered differently the second time");
         if (got.ok()) *id = *got;
         return got.status();
       },
       [this, which, id] {
         world_.ledger.OnSubmitAnswered(submitted_[which].request_id, *id, submitted_[which].job.spec);
       }});
}

std::string Clients::AnyJob(Random& draw) const {
  return known_.empty() ? "none" : known_[static_cast<std::size_t>(draw.Draw(static_cast<int>(known_.size())))];
}

void Clients::Wish(What what, Random& draw) {
  const core::Wish wish{AnyJob(draw), "local:user", draw.Chance(30) ? 1.0 : 10.0};
  const int number = draw.Draw(6);
  const std::string request = "wish " + std::to_string(++requests_);
  Decide decide = [what, wish, number](core::Transaction& tx) -> absl::Status {
    switch (what) {
      case What::kCancel:
        return core::Cancel(tx, wish);
      case What::kPause:
        return core::Pause(tx, wish);
      case What::kResume:
        return core::Resume(tx, wish);
      case What::kHold:
        return core::Hold(tx, wish);
      case What::kRelease:
        return core::Release(tx, wish);
      case What::kRequeue:
        return core::RequeueJob(tx, wish);
      case What::kRestart: {
        const core::Job* job = tx.FindJob(wish.job_id);
        std::optional<std::int64_t> step;
        if (job != nullptr && number > 2) step = job->checkpoints.empty() ? 0 : job->checkpoints.back().step;
        return core::Restart(tx, wish, step);
      }
      case What::kResize:
        return core::Resize(tx, wish, 1 + number);
      default:
        return core::SetPriority(tx, wish, number);
    }
  };
  std::function<void()> answered = [] {};
  if (what == What::kCancel) answered = [this, id = wish.job_id] { world_.ledger.OnCancelAnswered(id); };
  Ask({std::string(Name(what)) + " " + wish.job_id,
       [decide, wish, request](core::Transaction& tx) {
         return core::Once(tx, request, "sha", wish.job_id, [&] { return decide(tx); });
       },
       std::move(answered)});
}

void Clients::Operate(What what, Random& draw) {
  const Machine& machine =
      *world_.machines[static_cast<std::size_t>(draw.Draw(static_cast<int>(world_.machines.size())))];
  const std::string& node = machine.name();
  // The worker's answer; what it was asked through is the service's.
  if (what == What::kProbe) {
    return Ask({"probe " + node, [node, problem = machine.probe_problem()](core::Transaction& tx) {
                  const core::Node* now = tx.FindNode(node);
                  if (now != nullptr) core::OnProbed(tx, {node, now->incarnation, 0, problem, "local:operator"});
                  return absl::OkStatus();
                }});
  }
  if (what == What::kQuota) {
    core::Project project;
    project.name = draw.Chance(50) ? "default" : "other";
    project.cpu_quota = draw.Draw(5);
    project.weight = 1 + draw.Draw(3);
    return Ask(
        {"quota of " + project.name, [project](core::Transaction& tx) { return core::SetProject(tx, project); }});
  }
  if (what == What::kQueue) {
    core::Queue queue;
    queue.project = draw.Chance(50) ? "default" : "other";
    queue.name = "default";
    queue.open = draw.Chance(50);
    return Ask({"queue of " + queue.project, [queue](core::Transaction& tx) { return core::SetQueue(tx, queue); }});
  }
  const core::AdminState admin = what == What::kCordon  ? core::AdminState::kCordoned
                                 : what == What::kDrain ? core::AdminState::kDraining
                                                        : core::AdminState::kOpen;
  Ask({std::string(Name(what)) + " " + node,
       [node, admin](core::Transaction& tx) { return core::SetNodeAdmin(tx, node, admin, 10, "local:operator"); }});
}

void Clients::LetGo() {
  if (world_.coordinator == nullptr || open_ > 0) return;
  const core::State& state = world_.coordinator->state();
  for (const auto& [name, node] : state.nodes) {
    if (node.admin == core::AdminState::kOpen && node.state != core::NodeState::kQuarantined) continue;
    Ask({"open " + name, [name = name](core::Transaction& tx) {
           return core::SetNodeAdmin(tx, name, core::AdminState::kOpen, 10, "local:operator");
         }});
  }
  for (const auto& [name, project] : state.projects) {
    if (project.cpu_quota < 0) continue;
    core::Project open = project;
    open.cpu_quota = -1;
    Ask({"no quota of " + name, [open](core::Transaction& tx) { return core::SetProject(tx, open); }});
  }
  for (const auto& [key, queue] : state.queues) {
    if (queue.open) continue;
    core::Queue open = queue;
    open.open = true;
    Ask({"open queue of " + key.first, [open](core::Transaction& tx) { return core::SetQueue(tx, open); }});
  }
  for (const auto& [seq, id] : state.live) {
    const core::Job& job = state.jobs.at(id);
    const core::Wish wish{id, "local:user"};
    if (job.held) {
      Ask({"release " + id, [wish](core::Transaction& tx) { return core::Release(tx, wish); }});
    } else if (job.state == core::JobState::kPaused) {
      Ask({"resume " + id, [wish](core::Transaction& tx) { return core::Resume(tx, wish); }});
    }
  }
}

}  // namespace vicreg::simulation
