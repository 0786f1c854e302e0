#include "coordinator/core/restart.h"

#include <algorithm>

#include "common/planted.h"

namespace vicreg::core {
namespace {

enum class Class { kFinal, kUser, kInfrastructure };

Class ClassOf(ExitReason reason) {
  switch (reason) {
    case ExitReason::kConfig:
    case ExitReason::kData:
    case ExitReason::kFingerprint:
    case ExitReason::kNoValidCheckpoint:
    case ExitReason::kNumeric:
    case ExitReason::kMismatch:
      return Class::kFinal;
    case ExitReason::kRendezvous:
    case ExitReason::kCollective:
    case ExitReason::kStorage:
    case ExitReason::kDevice:
    case ExitReason::kStartFailed:
    case ExitReason::kLost:
    case ExitReason::kAborted:
    case ExitReason::kFenced:
    case ExitReason::kStopped:
    case ExitReason::kCancelled:
      return Class::kInfrastructure;
    default:
      return Class::kUser;
  }
}

Reason FinalReason(ExitReason reason) {
  switch (reason) {
    case ExitReason::kConfig:
      return Reason::kConfig;
    case ExitReason::kData:
      return Reason::kData;
    case ExitReason::kFingerprint:
      return Reason::kFingerprint;
    case ExitReason::kNoValidCheckpoint:
      return Reason::kNoValidCheckpoint;
    case ExitReason::kNumeric:
      return Reason::kNumeric;
    default:
      return Reason::kInternal;
  }
}

// Lower explains more: a signal explains the peers' broken collectives, not the other way round.
int Precedence(ExitReason reason) {
  switch (reason) {
    case ExitReason::kCompleted:
      return 100;
    case ExitReason::kAborted:
      return 90;
    case ExitReason::kStopped:
    case ExitReason::kCancelled:
      return 85;
    case ExitReason::kCollective:
    case ExitReason::kRendezvous:
      return 50;
    case ExitReason::kLost:
      return 40;
    default:
      return ClassOf(reason) == Class::kFinal ? 0 : 10;
  }
}

}  // namespace

AttemptEnd CauseOf(const std::vector<Rank>& ranks) {
  const Rank* first = nullptr;
  for (const Rank& rank : ranks) {
    if (first == nullptr || Precedence(rank.exit_reason) < Precedence(first->exit_reason)) first = &rank;
  }
  if (first == nullptr) return {};
  return {first->exit_reason, first->rank,
          "rank " + std::to_string(first->rank) + " on " + first->node + " ended with " + Name(first->exit_reason) +
              (first->exit_message.empty() ? "" : ": " + first->exit_message),
          first->nonfinite_step, first->last_step};
}

namespace {

// What it says of a crash that it is the job's `times`-th in this place.
CrashSite SiteOf(const CrashSite& before, const AttemptEnd& end) {
  const bool same = before.rank == end.rank && before.step == end.last_step;
  return {end.rank, end.last_step, same ? before.times + 1 : 1};
}

NextMove FailDeterministic(const AttemptEnd& end, int charges, const CrashSite& crash) {
  const std::string rank = std::to_string(end.rank), step = std::to_string(end.last_step);
  NextMove move{NextMove::Kind::kFail, Reason::kDeterministicCrash, {}, charges, {}};
  move.message = "deterministic crash: " + end.what + "; rank " + rank + " has ended so " +
                 std::to_string(crash.times) + " times after step " + step +
                 ", and would again: look at its log (`vicreg logs ID --rank " + rank + "`) and at what step " +
                 std::to_string(end.last_step + 1) + " does, then submit the job anew";
  move.crash = crash;
  return move;
}

}  // namespace

std::chrono::milliseconds BackoffAfter(int charges, const Options& options) {
  auto delay = options.backoff_first;
  for (int i = 1; i < charges && delay < options.backoff_most; ++i) delay *= 2;
  return Planted(Plant::kNoBackoff) ? std::chrono::milliseconds(0) : std::min(delay, options.backoff_most);
}

NextMove DecideAfterEnd(const Job& job, const AttemptEnd& end, std::int64_t newest_step, const Options& options) {
  if (end.reason == ExitReason::kCompleted)
    return {NextMove::Kind::kSucceed, Reason::kCompleted, {}, job.charges, "every rank finished its steps"};
  if (end.reason == ExitReason::kNumeric && end.nonfinite_step > 0) {
    if (job.substituted_step == 0) {
      return {NextMove::Kind::kRetry,
              Reason::kRollback,
              {},
              job.charges,
              end.what + "; going back to step " + std::to_string(newest_step) +
                  " once, with other samples in the batch of step " + std::to_string(end.nonfinite_step),
              end.nonfinite_step};
    }
    return {NextMove::Kind::kFail,
            Reason::kNumeric,
            {},
            job.charges,
            end.what + "; the job was rolled back once already, with other samples at step " +
                std::to_string(job.substituted_step)};
  }
  const Class blame = ClassOf(end.reason);
  if (blame == Class::kFinal) {
    return {NextMove::Kind::kFail, FinalReason(end.reason), {}, job.charges, end.what, 0, /*final=*/true};
  }
  // Memory that did not suffice may have been somebody else's; twice it is the job's own.
  const bool oom = end.reason == ExitReason::kDeviceOom || end.reason == ExitReason::kHostOom;
  if (oom && job.restarts.count("oom") != 0) {
    return {NextMove::Kind::kFail,
            Reason::kOutOfMemory,
            {},
            job.charges,
            end.what + "; the second time: lower batch_size, or give it more ranks or larger devices"};
  }
  int charges = newest_step > job.resumed_step ? 0 : job.charges;
  if (blame == Class::kUser || Planted(Plant::kInfrastructureCharged)) ++charges;
  std::optional<CrashSite> crash;
  if (blame == Class::kUser && !oom && end.last_step > 0) crash = SiteOf(job.crash, end);
  if (crash && crash->times >= options.same_crashes) return FailDeterministic(end, charges, *crash);
  if (charges > 0 && charges >= job.max_charges) {
    return {NextMove::Kind::kFail,
            Reason::kCrashLoop,
            {},
            charges,
            "crash loop: " + end.what + "; " + std::to_string(charges) + " times without a checkpoint after step " +
                std::to_string(job.resumed_step)};
  }
  const std::chrono::milliseconds delay = BackoffAfter(charges, options);
  const Reason reason = end.reason == ExitReason::kHung   ? Reason::kHang
                        : blame == Class::kUser           ? Reason::kCrash
                        : end.reason == ExitReason::kLost ? Reason::kNodeLost
                                                          : Reason::kInfra;
  return {NextMove::Kind::kRetry, reason, delay, charges, end.what, 0, false, crash};
}

}  // namespace vicreg::core
