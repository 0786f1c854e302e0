#include "coordinator/core/invariants.h"

#include <algorithm>

#include "coordinator/core/attempt.h"
#include "coordinator/core/index.h"
#include "coordinator/core/scheduler.h"

namespace vicreg::core {
namespace {

using Sentences = std::vector<std::string>;

std::string Called(const Job& job) { return job.id + " (" + Name(job.state) + ") "; }

bool IsEdge(JobState from, JobState to) {
  using enum JobState;
  switch (from) {
    case kQueued:
      return to == kReserved || to == kPaused || to == kCancelled || to == kQueued || to == kFailed;
    case kReserved:
      return to == kStarting || to == kBackoff || to == kQueued || to == kPaused || to == kCancelled || to == kFailed;
    case kStarting:
      return to == kRunning || to == kStopping || to == kSucceeded;
    case kRunning:
      return to == kStopping || to == kSucceeded;
    case kStopping:
      return to == kReserved || to == kBackoff || to == kQueued || to == kPaused || to == kSucceeded || to == kFailed ||
             to == kCancelled;
    case kBackoff:
      return to == kQueued || to == kPaused || to == kCancelled || to == kFailed;
    case kPaused:
      return to == kQueued || to == kCancelled || to == kPaused || to == kFailed;
    default:
      return false;
  }
}

// The state an event leads to; nullopt: it only notes something.
std::optional<JobState> Leads(const std::string& kind) {
  using enum JobState;
  static const std::map<std::string, JobState> kKinds = {
      {"SUBMITTED", kQueued},  {"QUEUED", kQueued},       {"RESERVED", kReserved}, {"NOT_PLACED", kBackoff},
      {"STARTING", kStarting}, {"RUNNING", kRunning},     {"STOPPING", kStopping}, {"BACKOFF", kBackoff},
      {"PAUSED", kPaused},     {"SUCCEEDED", kSucceeded}, {"FAILED", kFailed},     {"CANCELLED", kCancelled}};
  const auto found = kKinds.find(kind);
  return found == kKinds.end() ? std::nullopt : std::optional(found->second);
}

std::vector<Slot> SlotsOf(const Job& job) {
  std::vector<Slot> slots;
  for (const Rank& rank : job.ranks) slots.push_back({rank.node, rank.slot});
  return slots;
}

void CheckEvents(const State& before, const Transaction& tx, const State& after, Sentences& broken) {
  std::int64_t seq = before.next_event_seq;
  std::map<std::string, std::pair<JobState, std::int64_t>> folded;  // state, job_seq
  for (const Event& e : tx.events()) {
    if (e.seq != seq++) broken.push_back("event " + std::to_string(e.seq) + " leaves a gap");
    if (e.actor.empty() || e.message.empty() || e.term != after.term)
      broken.push_back("event " + e.kind + " of " + e.job_id + " does not say who, why or when");
    const auto known = before.jobs.find(e.job_id);
    if (e.kind == "SUBMITTED") {
      if (known != before.jobs.end()) broken.push_back(e.job_id + " was submitted twice");
      folded[e.job_id] = {JobState::kQueued, 1};
      continue;
    }
    auto& [state, job_seq] =
        folded
            .try_emplace(e.job_id, known == before.jobs.end() ? std::pair(JobState::kQueued, std::int64_t{0})
                                                              : std::pair(known->second.state, known->second.events))
            .first->second;
    if (e.job_seq != ++job_seq)
      broken.push_back("events of " + e.job_id + " have a gap before " + std::to_string(e.job_seq));
    const auto to = Leads(e.kind);
    const bool to_itself = state == JobState::kStopping && to == state;
    if (to && !to_itself && !IsEdge(state, *to))
      broken.push_back(e.job_id + " went from " + Name(state) + " to " + Name(*to));
    if (const Job& job = after.jobs.at(e.job_id); state == JobState::kStopping && to == JobState::kReserved &&
                                                  job.attempt == e.attempt && job.state == JobState::kReserved &&
                                                  SlotsOf(job) != SlotsOf(known->second))
      broken.push_back(e.job_id + " was to stay where it was, and is elsewhere");
    if (to) state = *to;
  }
  if (seq != after.next_event_seq) broken.push_back("the number of the next event is wrong");
  for (const auto& [id, fold] : folded) {
    const Job& job = after.jobs.at(id);
    if (job.state != fold.first || job.events != fold.second)
      broken.push_back("the events of " + id + " do not fold to its state " + Name(job.state));
  }
}

void CheckChange(const Job& old, const Job& job, bool rolled_back, Sentences& broken) {
  const auto wrong = [&](const std::string& what) { broken.push_back(Called(job) + what); };
  if (IsTerminal(old.state)) wrong("was changed although it had ended");
  if (job.attempt < old.attempt) wrong("has a smaller attempt number");
  if (Spent(old) && job.attempt > old.attempt && HoldsSlots(job.state)) wrong("has had its only attempt");
  if (job.lived_us < old.lived_us) wrong("is younger than before");
  if (old.destination == Destination::kCancel && job.destination != Destination::kCancel)
    wrong("forgot its cancellation");
  if (job.queue_seq != old.queue_seq) wrong("lost its place");
  if (job.spec != old.spec) wrong("has another spec");
  if (NewestStep(job) < NewestStep(old) && !rolled_back) wrong("went back to an older checkpoint");
  if (!old.checkpoints.empty() && job.checkpoints.empty() && !rolled_back) wrong("has lost its last checkpoint");
  if (Graver(old.destination, job.destination) && job.state == JobState::kStopping) wrong("was asked for more before");
  if (job.attempt != old.attempt || job.ranks.size() != old.ranks.size()) return;
  for (std::size_t i = 0; i < job.ranks.size(); ++i) {
    const Rank &now = job.ranks[i], &then = old.ranks[i];
    if (now.acked < then.acked) wrong("forgot an acknowledged report");
    if (then.settled() && now.exit_reason != then.exit_reason) wrong("changed the end of a rank");
    if (now.state < then.state && !then.settled())
      wrong("has a rank that went back to " + std::string(Name(now.state)));
    if (now.incarnation < then.incarnation) wrong("has a rank of an older incarnation");
  }
}

void CheckJob(const Job& job, Sentences& broken) {
  using enum JobState;
  const auto wrong = [&](const std::string& what) { broken.push_back(Called(job) + what); };
  if (job.destination == Destination::kCancel &&
      (job.state == kSucceeded || job.state == kFailed || job.state == kBackoff || job.state == kQueued)) {
    wrong("was asked to end as CANCELLED");
  }
  if (job.state == kSucceeded && !std::all_of(job.ranks.begin(), job.ranks.end(),
                                              [](const Rank& r) { return r.exit_reason == ExitReason::kCompleted; }))
    wrong("has a rank that did not complete");
  if (job.held && (job.state == kQueued || job.state == kReserved)) wrong("may start although it is held");
  if (job.state == kStarting && job.prepared != NodesOf(job)) wrong("was launched before all workers confirmed");
}

// A gang gets slots that there are, of nodes that take something new: at the end of the commit if a pass gave them, as
// it comes last; before or after it if the gang stays where it was.
void CheckPlacements(const State& before, const Transaction& tx, const State& after, Sentences& broken) {
  for (const Event& e : tx.events()) {
    const Job& job = after.jobs.at(e.job_id);
    if (e.kind != "RESERVED" || e.attempt != job.attempt || job.state != JobState::kReserved) continue;
    for (const Rank& rank : job.ranks) {
      const Node& node = after.nodes.at(rank.node);
      const auto old = before.nodes.find(rank.node);
      const bool was = e.actor != "scheduler" && old != before.nodes.end() && old->second.placeable();
      if (!node.placeable() && !was)
        broken.push_back(job.id + " was placed on " + node.name + ", which takes nothing new");
      if (rank.slot < 0 || rank.slot >= node.Slots(job.slot_kind))
        broken.push_back(job.id + " got a slot that " + node.name + " lacks");
    }
  }
}

void CheckNodes(const State& before, const Transaction& tx, const State& after, Sentences& broken) {
  bool quarantines = false;
  for (const auto& [name, changed] : tx.nodes()) {
    const Node& node = after.nodes.at(name);
    const auto found = before.nodes.find(name);
    const Node* old = found == before.nodes.end() ? nullptr : &found->second;
    const auto wrong = [&, called = name](const std::string& what) { broken.push_back("node " + called + " " + what); };
    if (old != nullptr && node.incarnation < old->incarnation) wrong("went back to an older incarnation");
    if (old != nullptr && node.probe < old->probe) wrong("went back to an older probe");
    const bool unknown = old == nullptr || old->boot_id != node.boot_id || old->state == NodeState::kLost;
    // By an operator it may be opened, or tried, in the commit in which it registers.
    const bool vouched = node.message.starts_with("opened by ") || node.message.starts_with("passed a probe by ");
    if (unknown && !vouched && (node.state == NodeState::kReady || node.state == NodeState::kSuspect))
      wrong("is in use although nobody has probed it since it was new, rebooted or lost");
    if (node.state == NodeState::kProbing && node.probe == 0) wrong("waits for a probe that nobody asked for");
    quarantines |= node.state == NodeState::kQuarantined && (old == nullptr || old->state != node.state);
  }
  const auto quarantined = std::count_if(after.nodes.begin(), after.nodes.end(),
                                         [](const auto& n) { return n.second.state == NodeState::kQuarantined; });
  if (quarantines &&
      static_cast<double>(quarantined) > tx.options.quarantine_share * static_cast<double>(after.nodes.size()))
    broken.push_back("more nodes are quarantined than may be: " + std::to_string(quarantined));
}

}  // namespace

std::vector<std::string> Broken(const State& state) {
  std::vector<std::string> broken = BrokenIndexes(state);
  std::map<std::pair<std::string, int>, std::string> claims;
  for (const auto& [id, job] : state.jobs) {
    const bool active = HoldsSlots(job.state);
    if (active && static_cast<int>(job.ranks.size()) != job.world_size)
      broken.push_back(id + " is " + Name(job.state) + " with part of its gang");
    if (active && job.attempt < 1) broken.push_back(id + " is " + Name(job.state) + " without an attempt");
    for (const Rank& rank : job.ranks) {
      if (!active) continue;
      if (const auto [other, added] = claims.emplace(std::pair(rank.node + "/" + job.slot_kind, rank.slot), id);
          !added) {
        broken.push_back("slot " + std::to_string(rank.slot) + " of " + rank.node + " is claimed by " + id + " and " +
                         other->second);
      }
    }
    if (IsTerminal(job.state) && job.reason == Reason::kNone) broken.push_back(id + " ended without a reason");
    if (job.state == JobState::kRunning) {
      for (const Rank& rank : job.ranks) {
        if (rank.settled() && rank.exit_reason != ExitReason::kCompleted)
          broken.push_back(id + " is RUNNING although rank " + std::to_string(rank.rank) + " is gone");
      }
    }
  }
  return broken;
}

std::vector<std::string> BrokenBy(const State& before, const Transaction& tx, const State& after) {
  Sentences broken;
  CheckEvents(before, tx, after, broken);
  for (const auto& [id, changed] : tx.jobs()) {
    const Job& job = after.jobs.at(id);
    const bool rolled_back = std::any_of(tx.events().begin(), tx.events().end(), [&id = id](const Event& e) {
      return e.kind == "ROLLED_BACK" && e.job_id == id;
    });
    if (const auto old = before.jobs.find(id); old != before.jobs.end()) {
      CheckChange(old->second, job, rolled_back, broken);
      // The last of the workers has just confirmed. Of those that wait for a delay Overdue speaks.
      if (job.state == JobState::kReserved && job.prepared == NodesOf(job) && job.prepared != old->second.prepared &&
          job.not_before <= tx.now)
        broken.push_back(Called(job) + "waits for workers that have confirmed");
    }
    CheckJob(job, broken);
  }
  for (const Message& message : tx.messages()) {
    const auto* launch = std::get_if<SendLaunch>(&message.what);
    if (launch == nullptr) continue;
    const JobState state = after.jobs.at(launch->job_id).state;
    // Stopped in the same batch: the worker is told right after.
    if (state != JobState::kStarting && state != JobState::kStopping)
      broken.push_back("a launch of " + launch->job_id + ", which is not starting");
    if (after.jobs.at(launch->job_id).not_before > tx.now)
      broken.push_back("a launch of " + launch->job_id + " before its delay is over");
  }
  CheckPlacements(before, tx, after, broken);
  CheckNodes(before, tx, after, broken);
  return broken;
}

std::vector<std::string> Overdue(const State& state, TimePoint now) {
  using enum JobState;
  Sentences broken;
  for (const auto& [queue_seq, id] : state.live) {
    const Job& job = state.jobs.at(id);
    const auto wrong = [&](const std::string& what) { broken.push_back(Called(job) + what); };
    const Explanation why = Explain(job, state.waiting);
    if (why.message.empty() || why.reason == Reason::kNone) wrong("does not say why");
    if (job.state == kReserved && job.deadline <= now) wrong("is past its deadline");
    if (job.state == kReserved && job.not_before <= now && job.prepared == NodesOf(job))
      wrong("waits for workers that have confirmed");
    // While it stops it is on its way.
    if (job.deadline_us > 0 && Graver(Destination::kFail, job.destination) &&
        Lived(job, now, state.began).count() >= job.deadline_us)
      wrong("is past the deadline of its job file");
    if (job.state == kBackoff && job.not_before <= now) wrong("is past its delay");
    if (!HoldsProcesses(job)) continue;
    if (std::all_of(job.ranks.begin(), job.ranks.end(), [](const Rank& r) { return r.settled(); }))
      wrong("waits for ranks that have ended");
    for (const Rank& rank : job.ranks) {
      if (!rank.settled() && state.nodes.at(rank.node).state == NodeState::kLost)
        wrong("waits for a rank of a lost node");
    }
  }
  for (const auto& [name, node] : state.nodes) {
    // Twice the longest time between two probes.
    if (node.state == NodeState::kProbing && node.probed_at != TimePoint{} &&
        now - node.probed_at > 2 * Options().probe_again)
      broken.push_back("node " + name + " was not probed again");
  }
  return broken;
}

State PartBefore(const State& state, const Transaction& tx) {
  State before;
  before.next_event_seq = state.next_event_seq;
  for (const auto& [id, job] : tx.jobs()) {
    if (const auto found = state.jobs.find(id); found != state.jobs.end()) before.jobs.insert(*found);
  }
  for (const auto& [name, node] : tx.nodes()) {
    if (const auto found = state.nodes.find(name); found != state.nodes.end()) before.nodes.insert(*found);
  }
  return before;
}

}  // namespace vicreg::core
