#include "coordinator/core/leader.h"

#include <utility>

#include "common/planted.h"
#include "coordinator/core/attempt.h"
#include "coordinator/core/decide.h"

namespace vicreg::core {
namespace {

constexpr std::chrono::milliseconds kTimerStep{250};
constexpr std::chrono::seconds kProbe{1};
// Between two batches: longer, and we did not run. Nobody could be heard meanwhile.
constexpr std::chrono::seconds kStall{1};

}  // namespace

absl::Status Leader::Start(TimePoint now, std::int64_t wall_us) {
  ASSIGN_OR_RETURN(state_, store_.Load());
  state_.began = uninterrupted_since_ = decided_ = now;
  Transaction recovery(state_, options_, now, wall_us);
  Recover(recovery);
  if (!recovery.changed()) return absl::OkStatus();
  RETURN_IF_ERROR(store_.Commit(recovery));
  recovery.ApplyTo(state_);
  return absl::OkStatus();
}

std::vector<const Job*> Leader::BegunAttempts() const {
  std::vector<const Job*> begun;
  for (const Age& age : state_.holding) {
    const Job& job = state_.jobs.at(age.second);
    const bool forgotten = Planted(Plant::kBeginningForgotten) && job.state == JobState::kStopping;
    if (HoldsProcesses(job) && !forgotten) begun.push_back(&job);
  }
  return begun;
}

Batch Leader::Decide(TimePoint now, std::int64_t wall_us, std::vector<Command> commands) {
  Batch batch{std::move(commands), {}, Transaction(state_, options_, now, wall_us), {}, false, {}};
  if (deposed()) {
    // To whoever asks it is as if this one had ended: another answers.
    batch.saved = absl::UnavailableError(std::string(degraded_.message()));
    batch.answers.assign(batch.commands.size(), batch.saved);
    batch.works = degraded_;
    return batch;
  }
  Transaction& transaction = batch.transaction;
  for (const Command& command : batch.commands) batch.answers.push_back(command.decide(transaction));
  if (now - decided_ > kStall) uninterrupted_since_ = now;
  decided_ = now;
  // While the store is away we decide nothing of our own: it could not be committed, and a heartbeat in the same batch
  // would fail with it.
  const bool writable = degraded_.ok();
  // Timers are coarse, and look at every node and live job.
  if (writable && (batch.commands.empty() || now >= next_timers_)) {
    OnTime(transaction, std::chrono::duration_cast<std::chrono::milliseconds>(now - uninterrupted_since_));
    next_timers_ = now + kTimerStep;
  }
  if (writable && transaction.NeedsPass()) Schedule(transaction);
  if (transaction.changed()) batch.saved = store_.Commit(transaction);
  // An outage ends with the first write that works; where nobody writes, we try.
  batch.works = batch.saved;
  if (absl::IsAborted(batch.saved)) batch.saved = absl::UnavailableError(std::string(batch.works.message()));
  batch.probed = !transaction.changed() && !degraded_.ok() && now >= next_probe_;
  if (batch.probed) batch.works = store_.Probe();
  if (!batch.works.ok()) {
    uninterrupted_since_ = now;
    next_probe_ = now + kProbe;
  }
  return batch;
}

void Leader::Apply(Batch& batch) {
  Transaction& transaction = batch.transaction;
  if (batch.saved.ok() || Planted(Plant::kApplyBeforeCommit)) transaction.ApplyTo(state_);
  // What called for a pass still does.
  if (!batch.saved.ok() || transaction.NeedsPass()) state_.next_pass = kAtOnce;
  if (transaction.changed() || batch.probed) degraded_ = batch.works;
}

// Not saved: nothing was applied and nobody is told, so there is nothing to undo.
void Leader::Answer(Batch& batch) {
  for (std::size_t i = 0; i < batch.commands.size(); ++i)
    batch.commands[i].done(batch.saved.ok() || Planted(Plant::kAnswerBeforeCommit) ? batch.answers[i] : batch.saved);
}

}  // namespace vicreg::core
