#include "tests/simulation/disk.h"

#include "common/planted.h"
#include "coordinator/store/record.h"

namespace vicreg::simulation {

void Frame::Add(const Frame& newer) {
  for (const auto& [id, job] : newer.jobs) jobs[id] = job;
  for (const auto& [id, attempt] : newer.attempts) attempts[id] = attempt;
  for (const auto& [name, node] : newer.nodes) nodes[name] = node;
  for (const auto& [name, project] : newer.projects) projects[name] = project;
  for (const auto& [name, queue] : newer.queues) queues[name] = queue;
  for (const auto& [id, request] : newer.requests) requests[id] = request;
  events.insert(events.end(), newer.events.begin(), newer.events.end());
  if (newer.term > 0) term = newer.term;
}

void Disk::OnKill(Random& random) {
  if (failed && random.Chance(50)) unsynced.push_back(*std::move(failed));
  failed.reset();
}

void Disk::OnPowerCut(Random& random) {
  OnKill(random);
  const auto kept = static_cast<std::size_t>(random.Draw(static_cast<int>(unsynced.size()) + 1));
  for (std::size_t i = 0; i < kept; ++i) synced.Add(unsynced[i]);
  unsynced.clear();
}

absl::Status DiskStore::Fail() {
  if (disk_.fail_next > 0) {
    --disk_.fail_next;
    return absl::UnavailableError("simulated: the disk failed once");
  }
  return disk_.failing ? absl::ResourceExhaustedError("simulated: the disk is full") : absl::OkStatus();
}

absl::StatusOr<core::State> DiskStore::Load() {
  RETURN_IF_ERROR(Fail());
  // A start is a durable commit of its term.
  for (const Frame& frame : disk_.unsynced) disk_.synced.Add(frame);
  disk_.unsynced.clear();
  Frame& all = disk_.synced;
  term_ = ++all.term;
  core::State state;
  state.term = term_;
  for (const auto& [id, stored] : all.jobs) {
    store::Restore(state, store::JobFromRecord(stored.first, stored.second));
    const core::Job& job = state.jobs.at(id);
    attempts_[id] = job.attempt;
    if (!core::HoldsSlots(job.state)) continue;
    for (const core::Rank& rank : job.ranks) claims_[{rank.node + "/" + job.slot_kind, rank.slot}] = id;
  }
  for (const auto& [name, record] : all.nodes) store::Restore(state, store::NodeFromRecord(record));
  for (const auto& [name, record] : all.projects) state.projects[name] = store::ProjectFromRecord(record);
  for (const auto& [name, record] : all.queues) {
    core::Queue queue = store::QueueFromRecord(record);
    state.queues[{queue.project, queue.name}] = std::move(queue);
  }
  state.requests.insert(all.requests.begin(), all.requests.end());
  if (!all.events.empty()) newest_event_ = all.events.back().seq;
  state.next_event_seq = newest_event_ + 1;
  return state;
}

absl::Status DiskStore::CheckTerm() const {
  if (term_ == disk_.synced.term || Planted(Plant::kTermGuardDropped)) return absl::OkStatus();
  return absl::AbortedError("simulated: term " + std::to_string(term_) + " is over");
}

// AlreadyExists: what the tables' keys refuse.
absl::Status DiskStore::CheckClaims(const core::Transaction& transaction) const {
  auto claims = claims_;
  for (const auto& [id, job] : transaction.jobs()) {
    std::erase_if(claims, [&id = id](const auto& claim) { return claim.second == id; });
    if (const auto found = attempts_.find(id); found != attempts_.end() && job.attempt < found->second)
      return absl::AlreadyExistsError("attempt of " + id + " fell");
  }
  for (const auto& [id, job] : transaction.jobs()) {
    if (!core::HoldsSlots(job.state)) continue;
    for (const core::Rank& rank : job.ranks) {
      if (!claims.emplace(std::pair(rank.node + "/" + job.slot_kind, rank.slot), id).second)
        return absl::AlreadyExistsError("a slot of " + rank.node + " is claimed already");
    }
  }
  if (!transaction.events().empty() && transaction.events().front().seq <= newest_event_)
    return absl::AlreadyExistsError("event " + std::to_string(transaction.events().front().seq) + " exists");
  return absl::OkStatus();
}

absl::Status DiskStore::Commit(const core::Transaction& transaction) {
  if (disk_.kill_before > 0 && --disk_.kill_before == 0) throw Killed();
  RETURN_IF_ERROR(CheckTerm());
  RETURN_IF_ERROR(CheckClaims(transaction));
  Frame frame;
  for (const auto& [id, job] : transaction.jobs()) frame.jobs[id] = {store::JobRecord(job), job.spec};
  for (const auto& [name, node] : transaction.nodes()) {
    if (!transaction.IsTouchOnly(name)) frame.nodes[name] = store::NodeRecord(node);
  }
  for (const auto& [name, project] : transaction.projects()) frame.projects[name] = store::ProjectRecord(project);
  for (const auto& [key, queue] : transaction.queues())
    frame.queues[key.first + "/" + key.second] = store::QueueRecord(queue);
  frame.requests = transaction.requests();
  frame.events = transaction.events();
  disk_.failed.reset();  // overwritten
  if (absl::Status failed = Fail(); !failed.ok()) {
    disk_.failed = std::move(frame);
    return failed;
  }
  for (const auto& [id, job] : transaction.jobs()) {
    attempts_[id] = job.attempt;
    std::erase_if(claims_, [&id = id](const auto& claim) { return claim.second == id; });
  }
  for (const auto& [id, job] : transaction.jobs()) {
    if (!core::HoldsSlots(job.state)) continue;
    for (const core::Rank& rank : job.ranks) claims_[{rank.node + "/" + job.slot_kind, rank.slot}] = id;
  }
  if (!frame.events.empty()) newest_event_ = frame.events.back().seq;
  if (Planted(Plant::kSyncSkipped)) {
    disk_.unsynced.push_back(frame);
  } else {
    disk_.synced.Add(frame);
  }
  if (disk_.kill_after > 0 && --disk_.kill_after == 0) throw Killed();
  return absl::OkStatus();
}

absl::Status DiskStore::Probe() {
  RETURN_IF_ERROR(CheckTerm());
  return Fail();
}

}  // namespace vicreg::simulation
