#include "coordinator/service/wire.h"

#include <algorithm>

#include "coordinator/telemetry/verdict.h"

namespace vicreg::service {

v1::Job ToWire(const core::Job& job, const telemetry::History& history) {
  v1::Job out;
  out.set_id(job.id);
  out.mutable_spec()->ParseFromString(job.spec);
  out.set_recipe_hash(job.recipe_hash);
  out.set_state(static_cast<v1::JobState>(job.state));
  out.set_reason(static_cast<v1::Reason>(job.reason));
  out.set_message(job.message);
  out.set_attempt(job.attempt);
  out.set_total_steps(job.total_steps);
  out.set_slots_want(core::SlotsWanted(job));
  out.set_submitted_us(job.submitted_us);
  out.set_started_us(job.started_us);
  out.set_ended_us(job.ended_us);
  out.set_charges(job.charges);
  out.set_owner(job.owner);
  out.set_exported(!job.export_path.empty());
  out.set_priority(job.priority);
  out.set_min_world_size(job.min_world);
  out.set_max_world_size(job.max_world);
  out.set_held(job.held);
  if (const auto found = job.restarts.find("preempt"); found != job.restarts.end()) out.set_preemptions(found->second);
  out.set_version(job.events);
  int have = 0;
  for (const core::Rank& rank : job.ranks) {
    v1::RankStatus& status = *out.add_ranks();
    status.set_rank(rank.rank);
    status.set_node(rank.node);
    status.set_slot(rank.slot);
    status.set_state(core::Name(rank.state));
    status.set_pid(rank.pid);
    status.set_exit_reason(static_cast<v1::ExitReason>(rank.exit_reason));
    status.set_exit_message(rank.exit_message);
    if (!rank.settled() && core::HoldsSlots(job.state)) ++have;
  }
  out.set_slots_have(have);
  for (const core::Checkpoint& checkpoint : job.checkpoints) {
    v1::Checkpoint& c = *out.add_checkpoints();
    c.set_attempt(checkpoint.attempt);
    c.set_step(checkpoint.step);
    c.set_hash(checkpoint.hash);
    c.set_bytes(checkpoint.bytes);
  }
  if (const auto last = history.LastRow(job.id)) {
    *out.mutable_last_row() = *last;
    out.set_step(last->step());
    const std::vector<v1::MetricRow> recent = history.Recent(job.id, 50);
    const telemetry::Verdict verdict = telemetry::Judge(recent);
    out.set_verdict(verdict.name);
    out.set_verdict_message(verdict.sentence);
    std::vector<double> rates;
    for (const v1::MetricRow& row : recent) rates.push_back(row.images_per_second());
    std::nth_element(rates.begin(), rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2), rates.end());
    const double rate = rates[rates.size() / 2];
    if (job.state == core::JobState::kRunning && rate > 0 && job.total_steps > 0) {
      out.set_eta_seconds(static_cast<double>(job.total_steps - last->step()) *
                          static_cast<double>(out.spec().batch_size()) / rate);
    }
  }
  if (const auto knn = history.LastKnn(job.id)) out.set_knn_accuracy(*knn);
  return out;
}

v1::WatchEventsResponse ToWire(const core::Event& event) {
  v1::WatchEventsResponse out;
  out.set_seq(event.seq);
  out.set_job_seq(event.job_seq);
  out.set_job_id(event.job_id);
  out.set_time_us(event.time_us);
  out.set_kind(event.kind);
  out.set_actor(event.actor);
  out.set_reason(static_cast<v1::Reason>(event.reason));
  out.set_message(event.message);
  out.set_attempt(event.attempt);
  out.set_term(event.term);
  return out;
}

v1::Queue ToWire(const core::Queue& queue) {
  v1::Queue out;
  out.set_project(queue.project);
  out.set_name(queue.name);
  out.set_closed(!queue.open);
  out.set_min_priority(queue.min_priority);
  out.set_max_priority(queue.max_priority);
  out.mutable_labels()->Assign(queue.labels.begin(), queue.labels.end());
  return out;
}

v1::Quota ToWire(const core::Project& project) {
  v1::Quota out;
  out.set_project(project.name);
  if (project.cpu_quota >= 0) out.set_cpu_slots(project.cpu_quota);
  if (project.gpu_quota >= 0) out.set_gpu_slots(project.gpu_quota);
  out.set_weight(project.weight);
  return out;
}

v1::PlacementPlan ToWire(const core::Foreseen& plan) {
  v1::PlacementPlan out;
  out.set_starts_now(!plan.slots.empty());
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    v1::RankStatus& rank = *out.add_ranks();
    rank.set_rank(static_cast<int>(i));
    rank.set_node(plan.slots[i].node);
    rank.set_slot(plan.slots[i].index);
  }
  out.set_reason(static_cast<v1::Reason>(plan.why.reason));
  out.set_message(plan.why.message);
  out.mutable_displaces()->Assign(plan.displaces.begin(), plan.displaces.end());
  if (plan.starts_in_seconds) out.set_starts_in_seconds(*plan.starts_in_seconds);
  return out;
}

v1::Node ToWire(const core::Node& node, const std::vector<core::Job>& jobs) {
  v1::Node out;
  out.set_name(node.name);
  out.set_state(static_cast<v1::NodeState>(node.state));
  out.set_incarnation(node.incarnation);
  out.set_message(node.message);
  out.set_last_heard_us(node.last_heard_us);
  out.set_build(node.build);
  for (const std::string& root : node.data_roots) out.add_data_roots(root);
  out.set_admin(static_cast<v1::NodeAdmin>(static_cast<int>(node.admin) + v1::NODE_ADMIN_OPEN));
  out.mutable_labels()->Assign(node.labels.begin(), node.labels.end());
  out.set_strikes(static_cast<int>(node.strikes.size()));
  for (const char* kind : {"cpu", "gpu"}) {
    if (node.Slots(kind) == 0) continue;
    v1::SlotCount& slots = *out.add_slots();
    slots.set_kind(kind);
    slots.set_total(node.Slots(kind));
    int used = 0;
    for (const core::Job& job : jobs) {
      if (!core::HoldsSlots(job.state) || job.slot_kind != kind) continue;
      used += static_cast<int>(std::count_if(job.ranks.begin(), job.ranks.end(),
                                             [&](const core::Rank& r) { return r.node == node.name && !r.settled(); }));
    }
    slots.set_used(used);
  }
  return out;
}

}  // namespace vicreg::service
