#include "tests/simulation/ledger.h"

#include <algorithm>

#include "coordinator/core/invariants.h"
#include "tests/simulation/world.h"

namespace vicreg::simulation {
namespace {

using core::JobState;
using core::Reason;

}  // namespace

// ---- clients ----

void Ledger::OnSubmitAnswered(const std::string& request_id, const std::string& job_id, const std::string& spec) {
  const auto [entry, added] = acknowledged_.try_emplace(request_id, job_id, spec);
  if (!added && entry->second.first != job_id)
    world_.Wrong("request " + request_id + " was answered with " + entry->second.first + ", then with " + job_id);
  acknowledged_jobs_.insert(job_id);
}

void Ledger::OnCancelAnswered(const std::string& job_id) {
  const auto seen = seen_.find(job_id);
  if (seen != seen_.end() && !core::IsTerminal(seen->second.state)) cancelled_.insert(job_id);
}

// What was promised to users, whatever happened since.
void Ledger::CheckPromises(const core::State& state) {
  for (const auto& [request, answer] : acknowledged_) {
    const auto job = state.jobs.find(answer.first);
    if (job == state.jobs.end()) {
      world_.Wrong("acknowledged job " + answer.first + " is lost");
    } else if (job->second.spec != answer.second) {
      world_.Wrong("acknowledged job " + answer.first + " has another spec");
    }
  }
  for (const std::string& id : cancelled_) {
    const auto job = state.jobs.find(id);
    if (job != state.jobs.end() && job->second.state != JobState::kCancelled &&
        job->second.destination != core::Destination::kCancel)
      world_.Wrong("the acknowledged cancellation of " + id + " is lost");
  }
  for (const auto& [id, request] : state.requests) {
    if (acknowledged_.count(id) != 0 && acknowledged_.at(id).first != request.job_id)
      world_.Wrong("request " + id + " belongs to another job than was answered");
  }
}

// ---- the coordinator ----

void Ledger::OnHeard(const core::State& state, const std::string& node, std::int64_t incarnation) {
  const auto found = state.nodes.find(node);
  if (found == state.nodes.end() || found->second.incarnation != incarnation) return;
  // What is said to a coordinator whose place another took is not heard by that one.
  if (state.term < term_) return;
  std::deque<TimePoint>& times = heard_[node];
  times.push_back(world_.events.now());
  if (times.size() > 16) times.pop_front();
}

void Ledger::OnCommit(const core::State& before, const core::Transaction& tx, const core::State& after) {
  for (const auto& broken : {core::Broken(after), core::BrokenBy(before, tx, after)}) {
    for (const std::string& sentence : broken) world_.Wrong(sentence);
  }
  CheckNodes(before, tx, after);
  for (const core::Event& event : tx.events()) {
    const core::Job& job = after.jobs.at(event.job_id);
    world_.Note(event.job_id + " " + event.kind + " #" + std::to_string(event.attempt) + ": " + event.message);
    if (event.kind == "SUBMITTED") {
      const auto [entry, added] = job_of_.try_emplace(job.id.substr(0, job.id.find('.')), job.id);
      if (!added && entry->second != job.id) world_.Wrong("one request made " + entry->second + " and " + job.id);
    }
    CheckPlacement(tx, event, job);
    CheckEnd(event, job);
    CheckLast(tx, event, job);
    CheckCharges(tx, event, job);
    CheckRowsOf(event, job);
  }
  for (const auto& [id, changed] : tx.jobs()) {
    const core::Job& job = after.jobs.at(id);
    See(job);
    for (const core::Checkpoint& checkpoint : job.checkpoints) {
      if (world_.artifacts.count(checkpoint.path) == 0)
        world_.Wrong("checkpoint " + checkpoint.path + " was committed and has no files");
    }
  }
}

void Ledger::See(const core::Job& job) {
  Seen& seen = seen_[job.id];
  seen.state = job.state;
  seen.attempt = job.attempt;
  seen.events = job.events;
  seen.checkpoint = core::NewestStep(job);
  seen.charges = job.charges;
}

bool Ledger::Passed(const std::string& node, std::int64_t probe) const {
  return std::any_of(world_.machines.begin(), world_.machines.end(), [&](const auto& machine) {
    return machine->name() == node && machine->passed_probes.count(probe) != 0;
  });
}

void Ledger::CheckNodes(const core::State& before, const core::Transaction& tx, const core::State& after) {
  const TimePoint now = tx.now;
  for (const auto& [name, old] : before.nodes) {
    const core::Node& node = after.nodes.at(name);
    // Said by a heartbeat alone.
    if (old.state == core::NodeState::kLost && node.state != core::NodeState::kLost && node.message == "heard again")
      world_.Wrong("lost node " + name + " came back without registering");
    if (old.state == core::NodeState::kProbing && node.state == core::NodeState::kReady &&
        node.message == "passed a probe by coordinator" && !Passed(name, node.probe))
      world_.Wrong("node " + name + " is READY by a probe that it did not pass");
    if (node.state != core::NodeState::kLost) lost_.erase(name);
    if (node.state != core::NodeState::kLost || old.state == core::NodeState::kLost) continue;
    lost_[name] = now;
    world_.Note("node " + name + " is LOST");
    if (now - after.began < tx.options.failover_grace)
      world_.Wrong("node " + name + " was given up within the failover grace");
    // What arrived while this coordinator was slow, or could not commit, was heard.
    const std::deque<TimePoint>& times = heard_[name];
    const auto after_it = std::upper_bound(times.begin(), times.end(), now);
    if (after_it == times.begin()) continue;
    const auto silent = now - *std::prev(after_it);
    if (silent < tx.options.lost - seconds(3))
      world_.Wrong("node " + name + " was given up although it was heard " +
                   std::to_string(std::chrono::duration_cast<milliseconds>(silent).count()) + " ms before");
  }
}

namespace {

// The next attempt of a job that crashed, on the slots it has.
bool InPlace(const core::Event& event) { return event.kind == "RESERVED" && event.actor == "restart policy"; }

}  // namespace

void Ledger::CheckPlacement(const core::Transaction& tx, const core::Event& event, const core::Job& job) {
  if (event.kind != "RESERVED" || event.attempt != job.attempt) return;
  Seen& seen = seen_[job.id];
  // Told apart by what nobody but a retry in place is told: its delay, which the ledger counts for itself.
  auto& may_start = may_start_[{job.id, job.attempt}];
  may_start = tx.now;
  if (InPlace(event) && event.reason != Reason::kRollback)
    may_start += tx.options.backoff_first * (1 << (std::max(job.charges, 1) - 1));
  if (job.attempt <= seen.attempt)
    world_.Wrong(job.id + " has attempt " + std::to_string(job.attempt) + " for the second time");
  if (seen.retry && tx.now - seen.backoff_since < tx.options.backoff_first)
    world_.Wrong(job.id + " did not wait before its next attempt");
  if (job.resumed_step != core::NewestStep(job) && job.state == JobState::kReserved)
    world_.Wrong(job.id + " does not resume from its newest checkpoint");
  resumed_[{job.id, job.attempt}] = job.resumed_step;
  if (job.world_size < job.min_world || job.world_size > job.max_world)
    world_.Wrong(job.id + " was placed with " + std::to_string(job.world_size) + " ranks");
  const int quota = tx.FindProject(job.project).Quota(job.slot_kind);
  int held = 0;
  for (const core::Job* other : tx.HoldingJobs()) {
    if (other->project == job.project) held += other->world_size;
  }
  if (quota >= 0 && held > quota) world_.Wrong("project " + job.project + " holds more slots than its quota");
}

void Ledger::CheckEnd(const core::Event& event, const core::Job& job) {
  if (event.kind == "SUCCEEDED" && trained_.count({job.id, job.attempt}) == 0)
    world_.Wrong(job.id + " SUCCEEDED in an attempt that did not finish its steps");
  if (event.kind == "SUCCEEDED") {
    for (const core::Rank& rank : job.ranks) {
      const worker::Key key{job.id, job.attempt, rank.rank};
      const auto end = ended_.find(key), said = last_words_.find(key);
      // It may have been killed after it said so.
      if (end == ended_.end() || (end->second != 0 && (said == last_words_.end() || said->second != 0)))
        world_.Wrong(job.id + " SUCCEEDED although rank " + std::to_string(rank.rank) + " did not end so");
    }
  }
  if (event.kind != "FAILED") return;
  static const std::set<Reason> kListed = {Reason::kConfig,
                                           Reason::kData,
                                           Reason::kFingerprint,
                                           Reason::kNumeric,
                                           Reason::kCrashLoop,
                                           Reason::kNoValidCheckpoint,
                                           Reason::kOutOfMemory,
                                           Reason::kInternal,
                                           Reason::kDeadline,
                                           Reason::kPreempted,
                                           Reason::kDeterministicCrash};
  // Of one that may not start again, whatever ended its attempt.
  static const std::set<Reason> kLast = {Reason::kCrash, Reason::kHang, Reason::kInfra, Reason::kNodeLost};
  const bool listed = kListed.count(event.reason) != 0 || (job.one_attempt && kLast.count(event.reason) != 0);
  if (!listed) world_.Wrong(job.id + " FAILED for a reason that is not listed");
  if (event.reason == Reason::kCrashLoop && job.charges < job.max_charges)
    world_.Wrong(job.id + " FAILED before its budget was used");
}

// A deadline is counted by no clock that jumps, and where it is forbidden nothing starts twice.
void Ledger::CheckLast(const core::Transaction& tx, const core::Event& event, const core::Job& job) {
  if (event.kind == "SUBMITTED") submitted_.try_emplace(job.id, tx.now);
  // One whose submit was said to have failed, and was found by the next coordinator, has none.
  const auto submitted = submitted_.find(job.id);
  if (event.kind == "FAILED" && event.reason == Reason::kDeadline && submitted != submitted_.end() &&
      tx.now - submitted->second < microseconds(job.deadline_us))
    world_.Wrong(job.id + " was ended before its deadline");
  if (event.kind == "STARTING" && job.one_attempt && !started_.insert(job.id).second)
    world_.Wrong(job.id + " was started again, which its job file forbids");
}

// A job resumes from no checkpoint that its curve does not reach.
void Ledger::CheckRowsOf(const core::Event& event, const core::Job& job) {
  if (event.kind != "CHECKPOINT") return;
  const std::int64_t step = core::NewestStep(job), durable = world_.metric_disk.jobs[job.id].head.step;
  if (durable < step)
    world_.Wrong("checkpoint of step " + std::to_string(step) + " of " + job.id +
                 " was committed, and rows only up to " + std::to_string(durable) + " are durable");
}

// Only failures that are the user's are charged.
void Ledger::CheckCharges(const core::Transaction& tx, const core::Event& event, const core::Job& job) {
  Seen& seen = seen_[job.id];
  const auto settles = [&](const core::Event& e) {
    return e.job_id == job.id &&
           (e.kind == "BACKOFF" || e.kind == "QUEUED" || e.kind == "PAUSED" || e.kind == "CANCELLED" || InPlace(e));
  };
  // Two in one commit: whose charge it is cannot be told.
  const bool alone = std::count_if(tx.events().begin(), tx.events().end(), settles) == 1;
  const bool charged = alone && job.charges > seen.charges;
  if (event.kind == "BACKOFF" || InPlace(event)) {
    seen.backoff_since = tx.now;
    seen.retry = event.kind == "BACKOFF" && event.reason != Reason::kRollback;
    if (charged && event.reason != Reason::kCrash && event.reason != Reason::kHang)
      world_.Wrong(job.id + " was charged for an end that was not its fault");
  } else if (settles(event) && charged) {
    world_.Wrong(job.id + " was charged for a planned stop");
  }
  const bool delay_over = event.kind == "QUEUED" && event.actor == "coordinator";
  if (event.kind != "BACKOFF" && event.kind != "RESERVED" && !delay_over) seen.retry = false;
}

void Ledger::OnRecovered(const core::State& state) {
  term_ = state.term;
  world_.Note("coordinator " + std::to_string(world_.coordinators) + " serves, term " + std::to_string(state.term));
  for (const std::string& sentence : core::Broken(state)) world_.Wrong(sentence);
  CheckPromises(state);
  std::map<std::string, std::int64_t> job_seq;
  std::int64_t seq = 0;
  for (const core::Event& event : world_.disk.synced.events) {
    if (event.seq != ++seq) world_.Wrong("the stored events have a gap before " + std::to_string(event.seq));
    if (event.job_seq != ++job_seq[event.job_id]) world_.Wrong("the stored events of " + event.job_id + " have a gap");
  }
  for (const auto& [id, seen] : seen_) {
    const auto found = state.jobs.find(id);
    if (found == state.jobs.end()) {
      world_.Wrong(id + ", which somebody saw, is lost");
      continue;
    }
    const core::Job& job = found->second;
    if (core::IsTerminal(seen.state) && job.state != seen.state)
      world_.Wrong(id + " was seen " + core::Name(seen.state) + " and is " + core::Name(job.state));
    if (job.attempt < seen.attempt) world_.Wrong(id + " went back to attempt " + std::to_string(job.attempt));
    if (job.events < seen.events) world_.Wrong(id + " lost events that were seen");
    if (core::NewestStep(job) < seen.checkpoint && job.events == seen.events)
      world_.Wrong(id + " lost a checkpoint that was committed");
    if (job.events != job_seq[id]) world_.Wrong("the stored events of " + id + " do not fold to its record");
  }
  // A commit that was said to have failed may be there after all.
  for (const auto& [id, job] : state.jobs) See(job);
}

namespace {

// Of all ranks of its newest attempt.
std::int64_t Acknowledged(const core::Job* job) {
  std::int64_t sum = 0;
  for (const core::Rank& rank : job == nullptr ? std::vector<core::Rank>() : job->ranks) sum += rank.acked;
  return sum;
}

}  // namespace

void Ledger::BeforeReport(const core::Transaction& tx, const std::string& node, std::int64_t incarnation,
                          const core::Report& report) {
  events_before_ = tx.events().size();
  acked_before_ = Acknowledged(tx.FindJob(report.job_id));
  const core::Job* job = tx.FindJob(report.job_id);
  const core::Node* from = tx.FindNode(node);
  stale_ = job == nullptr || report.attempt != job->attempt || from == nullptr || from->incarnation != incarnation;
}

void Ledger::AfterReport(const core::Transaction& tx, const core::Report& report) {
  if (stale_ && (tx.events().size() != events_before_ || Acknowledged(tx.FindJob(report.job_id)) != acked_before_))
    world_.Wrong("a stale report of " + report.job_id + " attempt " + std::to_string(report.attempt) +
                 " changed something");
  if (report.exit_reason == core::ExitReason::kHung && hung_.count({report.job_id, report.attempt, report.rank}) == 0)
    world_.Wrong("rank " + std::to_string(report.rank) + " of " + report.job_id + " was declared hung and was not");
  if (stale_) return;
  for (std::size_t i = events_before_; i < tx.events().size(); ++i) {
    if (tx.events()[i].kind != "CHECKPOINT") continue;
    if (core::NewestStep(*tx.FindJob(report.job_id)) != report.checkpoint.step)
      world_.Wrong("checkpoint of step " + std::to_string(report.checkpoint.step) + " of " + report.job_id +
                   " was committed and is not the newest");
  }
}

// ---- ranks ----

void Ledger::OnSpawn(const worker::Key& key, const std::string& node, int slot) {
  const auto [entry, added] = spawned_.try_emplace(key, node, slot);
  if (!added) world_.Wrong(worker::Text(key) + " was started twice");
  if (const auto lost = lost_.find(node); lost != lost_.end() && lost->second > answered_[node])
    world_.Wrong(worker::Text(key) + " was started on " + node +
                 ", which has been given up since its worker was heard");
  if (resumed_.count({std::get<0>(key), std::get<1>(key)}) == 0)
    world_.Wrong(worker::Text(key) + " was started before its attempt was committed");
  if (const auto from = may_start_.find({std::get<0>(key), std::get<1>(key)});
      from != may_start_.end() && world_.events.now() < from->second)
    world_.Wrong(worker::Text(key) + " was started before its delay was over");
}

void Ledger::OnProcessEnd(const worker::Key& key, int wait_status) { ended_[key] = wait_status; }

void Ledger::OnGangBegins(const std::string& job_id, int attempt, std::int64_t step) {
  world_.Note(job_id + " attempt " + std::to_string(attempt) + " steps from " + std::to_string(step));
  const auto resumed = resumed_.find({job_id, attempt});
  if (resumed == resumed_.end() || resumed->second != step)
    world_.Wrong(job_id + " attempt " + std::to_string(attempt) + " starts at step " + std::to_string(step) +
                 ", not where it was to resume");
  steps_[{job_id, attempt}] = step;
}

void Ledger::OnStep(const std::string& job_id, int attempt, std::int64_t step) {
  std::int64_t& newest = steps_[{job_id, attempt}];
  if (step != newest + 1)
    world_.Wrong(job_id + " made step " + std::to_string(step) + " after " + std::to_string(newest));
  newest = step;
}

void Ledger::CheckProcesses(const core::State& state) {
  std::map<worker::Key, TimePoint> outdated;
  for (const auto& machine : world_.machines) {
    const Link& link = machine->link();
    const bool cut = world_.events.now() < std::max(link.up_from, link.down_from);
    if (machine->worker() == nullptr || !machine->worker()->welcomed() || machine->frozen() || cut) continue;
    for (const auto& [pid, process] : machine->processes()) {
      const auto job = state.jobs.find(std::get<0>(process->key()));
      if (!process->alive() || world_.events.now() < process->unkillable_until) continue;
      if (job != state.jobs.end() && job->second.attempt == std::get<1>(process->key()) &&
          core::HoldsSlots(job->second.state))
        continue;
      const auto before = outdated_.find(process->key());
      const TimePoint since = before == outdated_.end() ? world_.events.now() : before->second;
      outdated[process->key()] = since;
      if (world_.events.now() - since > seconds(60))
        world_.Wrong(worker::Text(process->key()) + " is over, and its process lives on");
    }
  }
  outdated_ = std::move(outdated);
}

void Ledger::CheckOrphans() {
  const TimePoint now = world_.events.now();
  for (const auto& machine : world_.machines) {
    if (machine->worker() == nullptr || machine->frozen()) continue;
    const TimePoint alone_since = std::max(answered_[machine->name()], machine->runs_since());
    if (now - alone_since < kOrphanGrace + kOrphanStop + seconds(20)) continue;
    for (const auto& [pid, process] : machine->processes()) {
      // One that has nothing left to do has its own patience.
      if (process->alive() && !process->leaving() && now >= process->unkillable_until + seconds(5))
        world_.Wrong(worker::Text(process->key()) + " trains on although no coordinator has answered its worker for " +
                     std::to_string(std::chrono::duration_cast<seconds>(now - alone_since).count()) + " s");
    }
  }
}

// ---- the end ----

void Ledger::CheckRows(const std::string& job_id, std::int64_t total) {
  const auto found = world_.metric_disk.jobs.find(job_id);
  const std::vector<std::int64_t> none;
  const auto& curve = found == world_.metric_disk.jobs.end() ? none : found->second.curve;
  if (static_cast<std::int64_t>(curve.size()) != total)
    world_.Wrong("the curve of " + job_id + " has " + std::to_string(curve.size()) + " rows of " +
                 std::to_string(total));
  for (std::size_t i = 0; i < curve.size(); ++i) {
    if (curve[i] == static_cast<std::int64_t>(i) + 1) continue;
    world_.Wrong("the curve of " + job_id + " lacks step " + std::to_string(i + 1));
    break;
  }
  if (found == world_.metric_disk.jobs.end()) return;
  auto written = found->second.written;
  std::sort(written.begin(), written.end());
  if (std::adjacent_find(written.begin(), written.end()) != written.end())
    world_.Wrong("the history of " + job_id + " holds a row twice");
}

void Ledger::AtTheEnd(const core::State& state) {
  CheckPromises(state);
  for (const auto& [id, job] : state.jobs) {
    if (job.state == JobState::kSucceeded) CheckRows(id, job.total_steps);
    if (const auto rows = world_.metric_disk.jobs.find(id); rows != world_.metric_disk.jobs.end() && rows->second.stale)
      world_.Wrong("the history of " + id + " took a row of an attempt that was over");
    if (cancelled_.count(id) != 0 && job.state != JobState::kCancelled)
      world_.Wrong("cancelled " + id + " is " + core::Name(job.state));
  }
}

}  // namespace vicreg::simulation
