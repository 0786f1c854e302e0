#pragma once

// Bugs that the simulation plants in the real decisions, one at a time, to prove that it would find them
// (tests/simulation/plants.h). Only its own build of those files asks anything at run time; in every other build the
// answer is no when it is compiled, and nothing of the bug is left.

namespace vicreg {

enum class Plant {
  kNone,
  kAnswerBeforeCommit,
  kApplyBeforeCommit,
  kSyncSkipped,
  kRequestForgotten,
  kTerminalLeft,
  kCancelLost,
  kCancelWhileStopping,
  kHoldIgnored,
  kPreemptionCharged,
  kInfrastructureCharged,
  kNoBackoff,
  kNeverWoken,
  kAttemptReused,
  kLaunchBeforeAllConfirm,
  kLaunchBeforeDelay,
  kLaunchNotRepeated,
  kAttemptFenceDropped,
  kDoubleClaim,
  kTermGuardDropped,
  kLostForgiven,
  kLostWhileStopping,
  kNoGrace,
  kWallClockLease,
  kResumesFromOldest,
  kResumeForgotten,
  kNewestPruned,
  kCordonIgnored,
  kPlacedWhileProbing,
  kProbeAskedOnce,
  kStaleProbeCounts,
  kQuarantineUncapped,
  kQuotaIgnored,
  kDeadlineIgnored,
  kRowsTwice,
  kRowGaps,
  kBeginningForgotten,
  kRowsOvertaken,
  kAckOffByOne,
  kReportsNotRepeated,
  kSlotNotChecked,
  kNeverKilled,
  kLeavingUnlimited,
  kOneWayRenewal,
  kOrphansKept,
  kFencedLeftAlive,
  kLeftoversLeft,
};

#ifdef VICREG_PLANTS
extern Plant planted;  // set before anything runs
inline bool Planted(Plant plant) { return planted == plant; }
#else
constexpr bool Planted(Plant /*plant*/) { return false; }
#endif

}  // namespace vicreg
