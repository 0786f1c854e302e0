#include "coordinator/service/worker_wire.h"

#include <algorithm>
#include <limits>

#include "common/planted.h"

namespace vicreg::service {

// At most `most` bytes, cut between two UTF-8 characters: half of one would make every answer that holds it unreadable.
std::string Cut(const std::string& text, std::size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

std::optional<v1::ConnectResponse> ToWire(const core::Message& message, const core::State& state) {
  v1::ConnectResponse wire;
  const auto ranks_of = [&](const core::Job& job, auto* out) {
    for (const core::Rank& rank : job.ranks) {
      if (rank.node != message.node) continue;
      auto* assignment = out->add_ranks();
      assignment->set_rank(rank.rank);
      assignment->set_slot(rank.slot);
    }
  };
  if (const auto* prepare = std::get_if<core::SendPrepare>(&message.what)) {
    const core::Job& job = state.jobs.at(prepare->job_id);
    wire.mutable_prepare()->set_job_id(job.id);
    wire.mutable_prepare()->set_attempt(job.attempt);
    wire.mutable_prepare()->set_data_root(job.data_root);
    wire.mutable_prepare()->set_device(job.slot_kind == "gpu" ? v1::DEVICE_GPU : v1::DEVICE_CPU);
    ranks_of(job, wire.mutable_prepare());
  } else if (const auto* launch = std::get_if<core::SendLaunch>(&message.what)) {
    const core::Job& job = state.jobs.at(launch->job_id);
    v1::Launch& out = *wire.mutable_launch();
    out.set_job_id(job.id);
    out.set_attempt(job.attempt);
    out.set_world_size(job.world_size);
    out.set_recipe_hash(job.recipe_hash);
    if (!out.mutable_spec()->ParseFromString(job.spec)) return std::nullopt;
    ranks_of(job, &out);
    out.set_substituted_step(job.substituted_step);
    if (job.resumed_step > 0 && !Planted(Plant::kResumeForgotten)) {
      for (const core::Checkpoint& checkpoint : job.checkpoints) {
        if (checkpoint.step != job.resumed_step) continue;
        out.mutable_resume()->set_step(checkpoint.step);
        out.mutable_resume()->set_path(checkpoint.path);
        out.mutable_resume()->set_hash(checkpoint.hash);
      }
    }
  } else if (const auto* stop = std::get_if<core::SendStop>(&message.what)) {
    wire.mutable_stop()->set_job_id(stop->job_id);
    wire.mutable_stop()->set_attempt(stop->attempt);
    wire.mutable_stop()->set_grace_seconds(stop->grace_seconds);
    wire.mutable_stop()->set_cause(stop->cause);
  } else if (const auto* abort = std::get_if<core::SendAbort>(&message.what)) {
    wire.mutable_abort()->set_job_id(abort->job_id);
    wire.mutable_abort()->set_attempt(abort->attempt);
    wire.mutable_abort()->set_cause(abort->cause);
  } else if (const auto* ack = std::get_if<core::SendAck>(&message.what)) {
    wire.mutable_ack()->set_job_id(ack->job_id);
    wire.mutable_ack()->set_attempt(ack->attempt);
    wire.mutable_ack()->set_rank(ack->rank);
    wire.mutable_ack()->set_sequence(ack->sequence);
    wire.mutable_ack()->set_fenced(ack->fenced);
  } else if (const auto* probe = std::get_if<core::SendProbe>(&message.what)) {
    wire.mutable_probe()->set_call_id(-probe->number);
  }
  return wire;
}

v1::ConnectResponse ToWire(const core::Welcome& welcome, std::int64_t term, const std::string& store_id,
                           int heartbeat_ms) {
  v1::ConnectResponse answer;
  v1::Welcome& out = *answer.mutable_welcome();
  out.set_term(term);
  out.set_incarnation(welcome.incarnation);
  out.set_store_id(store_id);
  out.set_heartbeat_ms(heartbeat_ms);
  for (std::size_t i = 0; i < welcome.keep.size(); ++i) {
    const core::Held& held = welcome.keep[i];
    auto* keep = out.add_keep();
    keep->set_job_id(held.job_id);
    keep->set_attempt(held.attempt);
    keep->set_rank(held.rank);
    auto* cursor = out.add_cursors();
    cursor->set_job_id(held.job_id);
    cursor->set_attempt(held.attempt);
    cursor->set_rank(held.rank);
    cursor->set_sequence(welcome.cursors[i]);
  }
  return answer;
}

core::Report ToReport(const v1::RankReport& wire) {
  core::Report report;
  report.job_id = wire.job_id();
  report.attempt = wire.attempt();
  report.rank = wire.rank();
  report.sequence = wire.sequence();
  switch (wire.what_case()) {
    case v1::RankReport::kSpawned:
      report.kind = core::Report::Kind::kSpawned;
      report.pid = wire.spawned().pid();
      break;
    case v1::RankReport::kConnected:
      report.kind = core::Report::Kind::kConnected;
      report.resume_step = wire.connected().resume_step();
      report.total_steps = wire.connected().total_steps();
      break;
    case v1::RankReport::kStepping:
      report.kind = core::Report::Kind::kStepping;
      break;
    case v1::RankReport::kCheckpoint:
      report.kind = core::Report::Kind::kCheckpoint;
      report.checkpoint = {wire.attempt(), wire.checkpoint().step(), wire.checkpoint().path(), wire.checkpoint().hash(),
                           wire.checkpoint().bytes()};
      break;
    case v1::RankReport::kExported:
      report.kind = core::Report::Kind::kExported;
      report.export_path = wire.exported().path();
      break;
    case v1::RankReport::kExited:
      report.kind = core::Report::Kind::kExited;
      report.exit_reason = static_cast<core::ExitReason>(wire.exited().reason());
      report.exit_message = Cut(wire.exited().message(), 4096);
      report.nonfinite_step = std::max<std::int64_t>(wire.exited().nonfinite_step(), 0);
      report.last_step = std::max<std::int64_t>(wire.exited().last_step(), 0);
      break;
    default:
      break;
  }
  return report;
}

core::ProbeAnswer ToProbeAnswer(const v1::Probed& wire, const std::string& node, std::int64_t incarnation) {
  core::ProbeAnswer answer;
  answer.node = node;
  answer.incarnation = incarnation;
  if (wire.call_id() < 0) answer.number = -std::max(wire.call_id(), -std::numeric_limits<std::int64_t>::max());
  if (wire.problems_size() > 0) answer.problem = Cut(wire.problems(0), 500);
  return answer;
}

core::Registration ToRegistration(const v1::Register& wire) {
  core::Registration registration;
  core::Node& node = registration.node;
  node.name = wire.node();
  node.boot_id = wire.boot_id();
  node.build = wire.build();
  node.incarnation = wire.incarnation();
  node.cpu_slots = wire.cpu_slots();
  node.gpu_slots = wire.gpu_uuids_size();
  node.data_roots.assign(wire.data_roots().begin(), wire.data_roots().end());
  node.labels.assign(wire.labels().begin(), wire.labels().end());
  for (const v1::HeldRank& held : wire.held())
    registration.held.push_back({held.job_id(), held.attempt(), held.rank()});
  return registration;
}

}  // namespace vicreg::service
