#include "coordinator/store/record.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "coordinator/core/index.h"

namespace vicreg::core {

// A field that the build which wrote the record may not have known yet keeps its default.
template <typename T>
void Later(const nlohmann::json& json, const char* key, T& field) {
  if (const auto found = json.find(key); found != json.end()) found->get_to(field);
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Slot, node, index)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Strike, time_us, job_id)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CrashSite, rank, step, times)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Topology, level, required)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Project, name, cpu_quota, gpu_quota, weight)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Queue, project, name, open, min_priority, max_priority, labels)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Checkpoint, attempt, step, path, hash, bytes)

void to_json(nlohmann::json& json, const Rank& r) {
  json = {{"rank", r.rank},
          {"node", r.node},
          {"incarnation", r.incarnation},
          {"slot", r.slot},
          {"state", r.state},
          {"pid", r.pid},
          {"acked", r.acked},
          {"exit_reason", r.exit_reason},
          {"exit_message", r.exit_message},
          {"nonfinite_step", r.nonfinite_step},
          {"last_step", r.last_step}};
}

void from_json(const nlohmann::json& json, Rank& r) {
  json.at("rank").get_to(r.rank);
  json.at("node").get_to(r.node);
  json.at("incarnation").get_to(r.incarnation);
  json.at("slot").get_to(r.slot);
  json.at("state").get_to(r.state);
  json.at("pid").get_to(r.pid);
  json.at("acked").get_to(r.acked);
  json.at("exit_reason").get_to(r.exit_reason);
  json.at("exit_message").get_to(r.exit_message);
  Later(json, "nonfinite_step", r.nonfinite_step);
  Later(json, "last_step", r.last_step);
}

// Each field of a job's record once: written, required, or later.
template <typename Job, typename Field, typename Added>
void Visit(Job& j, Field field, Added later) {
  field("id", j.id);
  field("name", j.name);
  field("owner", j.owner);
  field("recipe_hash", j.recipe_hash);
  field("slot_kind", j.slot_kind);
  field("data_root", j.data_root);
  field("world_size", j.world_size);
  field("max_charges", j.max_charges);
  field("checkpoint_keep", j.checkpoint_keep);
  field("queue_seq", j.queue_seq);
  field("state", j.state);
  field("reason", j.reason);
  field("message", j.message);
  field("attempt", j.attempt);
  field("ranks", j.ranks);
  field("prepared", j.prepared);
  field("charges", j.charges);
  field("resumed_step", j.resumed_step);
  field("total_steps", j.total_steps);
  field("checkpoints", j.checkpoints);
  field("export_path", j.export_path);
  field("events", j.events);
  field("submitted_us", j.submitted_us);
  field("started_us", j.started_us);
  field("ended_us", j.ended_us);
  field("restarts", j.restarts);
  later("substituted_step", j.substituted_step);
  later("project", j.project);
  later("queue", j.queue);
  later("priority", j.priority);
  later("labels", j.labels);
  later("topology", j.topology);
  later("min_world", j.min_world);
  later("max_world", j.max_world);
  later("batch_size", j.batch_size);
  later("destination", j.destination);
  later("cause", j.cause);
  later("held", j.held);
  later("rollback_to", j.rollback_to);
  later("last_slots", j.last_slots);
  later("excluded", j.excluded);
  later("infra_ends_us", j.infra_ends_us);
  later("one_attempt", j.one_attempt);
  later("deadline_us", j.deadline_us);
  later("lived_us", j.lived_us);
  later("crash", j.crash);
  later("bad_pairs", j.bad_pairs);
  later("suspect_pair", j.suspect_pair);
}

void to_json(nlohmann::json& json, const Job& job) {
  const auto write = [&](const char* key, const auto& value) { json[key] = value; };
  Visit(job, write, write);
}

void from_json(const nlohmann::json& json, Job& job) {
  Visit(
      job, [&](const char* key, auto& value) { json.at(key).get_to(value); },
      [&](const char* key, auto& value) { Later(json, key, value); });
  // Written before gangs could have other sizes, and before a stop could mean anything but a cancel.
  if (!json.contains("min_world")) job.min_world = job.max_world = job.world_size;
  if (!json.contains("destination") && json.value("cancel", false)) job.destination = Destination::kCancel;
}

template <typename Node, typename Field, typename Added>
void VisitNode(Node& n, Field field, Added later) {
  field("name", n.name);
  field("boot_id", n.boot_id);
  field("build", n.build);
  field("incarnation", n.incarnation);
  field("state", n.state);
  field("cpu_slots", n.cpu_slots);
  field("gpu_slots", n.gpu_slots);
  field("data_roots", n.data_roots);
  field("message", n.message);
  field("last_heard_us", n.last_heard_us);
  later("labels", n.labels);
  later("admin", n.admin);
  later("strikes", n.strikes);
  later("probe", n.probe);
  later("problem", n.problem);
}

void to_json(nlohmann::json& json, const Node& node) {
  const auto write = [&](const char* key, const auto& value) { json[key] = value; };
  VisitNode(node, write, write);
}

void from_json(const nlohmann::json& json, Node& node) {
  VisitNode(
      node, [&](const char* key, auto& value) { json.at(key).get_to(value); },
      [&](const char* key, auto& value) { Later(json, key, value); });
}

}  // namespace vicreg::core

namespace vicreg::store {
namespace {

std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string JobRecord(const core::Job& job) { return Dump(job); }

core::Job JobFromRecord(const std::string& record, const std::string& spec) {
  auto job = nlohmann::json::parse(record).get<core::Job>();
  job.spec = spec;
  return job;
}

std::string NodeRecord(const core::Node& node) { return Dump(node); }
core::Node NodeFromRecord(const std::string& record) { return nlohmann::json::parse(record).get<core::Node>(); }

void Restore(core::State& state, core::Job job) {
  state.next_queue_seq = std::max(state.next_queue_seq, job.queue_seq + 1);
  core::Put(state, std::move(job));
}

void Restore(core::State& state, core::Node node) {
  // Until it is heard again, nothing is placed there and nothing is given up (failover grace).
  if (node.state != core::NodeState::kLost && node.state != core::NodeState::kQuarantined) {
    // One that was being probed still has to pass: it is asked again when it is heard.
    if (node.state != core::NodeState::kProbing) node.state = core::NodeState::kJoining;
    node.message = "not heard since the coordinator started";
  }
  const std::string name = node.name;
  state.nodes[name] = std::move(node);
}

std::string ProjectRecord(const core::Project& project) { return Dump(project); }
core::Project ProjectFromRecord(const std::string& record) {
  return nlohmann::json::parse(record).get<core::Project>();
}

std::string QueueRecord(const core::Queue& queue) { return Dump(queue); }
core::Queue QueueFromRecord(const std::string& record) { return nlohmann::json::parse(record).get<core::Queue>(); }

}  // namespace vicreg::store
