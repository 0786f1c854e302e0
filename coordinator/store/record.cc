#include "coordinator/store/record.h"

#include <nlohmann/json.hpp>

namespace vicreg::core {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Rank, rank, node, incarnation, slot, state, pid, acked, exit_reason, exit_message)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Checkpoint, attempt, step, path, hash, bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Job, id, name, owner, recipe_hash, slot_kind, data_root, world_size, max_charges,
                                   checkpoint_keep, queue_seq, state, reason, message, attempt, ranks, prepared, cancel,
                                   charges, resumed_step, total_steps, checkpoints, export_path, events, submitted_us,
                                   started_us, ended_us, restarts)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Node, name, boot_id, build, incarnation, state, cpu_slots, gpu_slots, data_roots,
                                   message, last_heard_us)

}  // namespace vicreg::core

namespace vicreg::store {

std::string JobRecord(const core::Job& job) {
  nlohmann::json json = job;
  json["substituted_step"] = job.substituted_step;
  for (std::size_t i = 0; i < job.ranks.size(); ++i) json["ranks"][i]["nonfinite_step"] = job.ranks[i].nonfinite_step;
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

core::Job JobFromRecord(const std::string& record, const std::string& spec) {
  const auto json = nlohmann::json::parse(record);
  auto job = json.get<core::Job>();
  // Fields that the build which wrote the record may not have known yet.
  job.substituted_step = json.value("substituted_step", std::int64_t{0});
  for (std::size_t i = 0; i < job.ranks.size(); ++i)
    job.ranks[i].nonfinite_step = json.at("ranks").at(i).value("nonfinite_step", std::int64_t{0});
  job.spec = spec;
  return job;
}

std::string NodeRecord(const core::Node& node) {
  return nlohmann::json(node).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

core::Node NodeFromRecord(const std::string& record) { return nlohmann::json::parse(record).get<core::Node>(); }

}  // namespace vicreg::store
