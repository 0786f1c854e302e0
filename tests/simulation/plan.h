#pragma once

// What goes wrong in a run, and what users want, when: drawn from the seed before the run begins, so that a failing run
// can be repeated with less of it (shrink.h).

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace vicreg::simulation {

enum class What {
  // ranks
  kRankCrash,
  kRankExits,
  kRankNumeric,
  kRankIgnoresStop,
  kRankUnkillable,
  kRankHangs,
  kRankHangsLeaving,
  kStartsFail,
  kRanksCut,
  // workers and machines
  kWorkerKill,
  kReboot,
  kMachineOff,
  kFreeze,
  kProbeFails,
  kFreezeWhenLaunched,
  // network
  kBreak,
  kCut,
  kCutUp,
  kCutDown,
  kRepeat,
  // coordinator
  kCoordinatorKill,
  kCoordinatorAway,
  kKillBeforeCommit,
  kKillAfterCommit,
  kKillInRecovery,
  kPowerCut,
  kTakeOver,
  kStall,
  kDiskFailsOnce,
  kDiskFails,
  kDiskSlow,
  kHistoryFails,
  kWallJump,
  // users
  kSubmit,
  kSubmitAgain,
  kCancel,
  kPause,
  kResume,
  kHold,
  kRelease,
  kRequeue,
  kRestart,
  kResize,
  kPriority,
  // operators
  kCordon,
  kDrain,
  kOpen,
  kProbe,
  kQuota,
  kQueue,
  kCount
};
const char* Name(What what);

struct Step {
  std::chrono::milliseconds at;  // after the beginning
  What what;
  std::uint64_t draw;  // whom, how long, how much
};

struct Plan {
  std::uint64_t seed = 0;
  std::vector<Step> steps;              // by time
  std::chrono::milliseconds length{0};  // then everything heals
};
Plan MakePlan(std::uint64_t seed);

}  // namespace vicreg::simulation
