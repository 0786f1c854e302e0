#include "tests/simulation/plants.h"

namespace vicreg {

Plant planted = Plant::kNone;

}  // namespace vicreg

namespace vicreg::simulation {

std::span<const PlantInfo> Plants() {
  static constexpr PlantInfo kPlants[] = {
      {Plant::kAnswerBeforeCommit, "answer-before-commit", "OK is said of what could not be committed"},
      {Plant::kApplyBeforeCommit, "apply-before-commit", "what could not be committed is believed all the same"},
      {Plant::kSyncSkipped, "sync-skipped", "a commit is written and not synced"},
      {Plant::kRequestForgotten, "request-forgotten", "a submit does not remember its request id"},
      {Plant::kTerminalLeft, "terminal-left", "a job that has ended can be cancelled"},
      {Plant::kCancelLost, "cancel-lost", "a cancelled job whose ranks completed has SUCCEEDED"},
      {Plant::kCancelWhileStopping, "cancel-while-stopping", "a graver wish is forgotten while a job stops"},
      {Plant::kHoldIgnored, "hold-ignored", "a held job goes back to the queue"},
      {Plant::kPreemptionCharged, "preemption-charged", "a planned stop is charged"},
      {Plant::kInfrastructureCharged, "infrastructure-charged", "an end that nobody is to blame for is charged"},
      {Plant::kNoBackoff, "no-backoff", "the next attempt comes at once"},
      {Plant::kNeverWoken, "never-woken", "what happens to a job wakes no scheduling pass"},
      {Plant::kAttemptReused, "attempt-reused", "an attempt gets the number of the one before"},
      {Plant::kLaunchBeforeAllConfirm, "launch-before-all-confirm",
       "ranks are launched when the first worker has confirmed"},
      {Plant::kLaunchBeforeDelay, "launch-before-delay", "a retry in place does not wait for its delay"},
      {Plant::kLaunchNotRepeated, "launch-not-repeated", "a Launch that was lost with its stream is not sent again"},
      {Plant::kAttemptFenceDropped, "attempt-fence-dropped", "reports of older attempts count"},
      {Plant::kDoubleClaim, "double-claim", "slots of a gang that is reserved are given to another"},
      {Plant::kTermGuardDropped, "term-guard-dropped", "a coordinator whose term is over still writes"},
      {Plant::kLostForgiven, "lost-forgiven", "a heartbeat brings a lost node back, with the ranks that were given up"},
      {Plant::kLostWhileStopping, "lost-while-stopping", "ranks of a lost node are not given up while their job stops"},
      {Plant::kNoGrace, "no-grace", "nodes are given up right after the coordinator started"},
      {Plant::kWallClockLease, "wall-clock-lease", "silence is measured with the wall clock"},
      {Plant::kResumesFromOldest, "resumes-from-oldest", "an attempt resumes from the oldest checkpoint"},
      {Plant::kResumeForgotten, "resume-forgotten", "a Launch does not say where to resume"},
      {Plant::kNewestPruned, "newest-pruned", "the newest checkpoint makes way for the older ones"},
      {Plant::kCordonIgnored, "cordon-ignored", "gangs are placed on nodes that take nothing new"},
      {Plant::kPlacedWhileProbing, "placed-while-probing", "gangs are placed on nodes that have not passed a probe"},
      {Plant::kProbeAskedOnce, "probe-asked-once", "a node is asked for a probe only once"},
      {Plant::kStaleProbeCounts, "stale-probe-counts", "the answer to an older probe makes a node ready"},
      {Plant::kQuarantineUncapped, "quarantine-uncapped", "any share of the nodes may be quarantined"},
      {Plant::kQuotaIgnored, "quota-ignored", "a project gets more slots than its quota"},
      {Plant::kDeadlineIgnored, "deadline-ignored", "a job lives on after its deadline"},
      {Plant::kRowsTwice, "rows-twice", "a metric row that is known is written again"},
      {Plant::kRowGaps, "row-gaps", "a metric row beyond the next one is taken"},
      {Plant::kBeginningForgotten, "beginning-forgotten",
       "a restarted coordinator does not tell the history of attempts that stop"},
      {Plant::kRowsOvertaken, "rows-overtaken", "reports count although rows ahead of them could not be stored"},
      {Plant::kAckOffByOne, "ack-off-by-one", "a worker forgets one report more than was acknowledged"},
      {Plant::kReportsNotRepeated, "reports-not-repeated",
       "reports that were on their way when the stream broke are not sent again"},
      {Plant::kSlotNotChecked, "slot-not-checked", "a worker confirms slots where a process still lives"},
      {Plant::kNeverKilled, "never-killed", "no rank is ever killed"},
      {Plant::kLeavingUnlimited, "leaving-unlimited", "a rank that has said how it ends may take for ever to do so"},
      {Plant::kOneWayRenewal, "one-way-renewal",
       "whatever the coordinator says renews a worker's lease when it is read"},
      {Plant::kOrphansKept, "orphans-kept", "ranks train on for ever without a coordinator"},
      {Plant::kFencedLeftAlive, "fenced-left-alive", "a fenced rank is forgotten and not ended"},
      {Plant::kLeftoversLeft, "leftovers-left", "a restarted worker does not look for the ranks of the one before"},
  };
  return kPlants;
}

std::optional<Plant> FindPlant(const std::string& name) {
  for (const PlantInfo& info : Plants()) {
    if (name == info.name) return info.plant;
  }
  return std::nullopt;
}

}  // namespace vicreg::simulation
