#pragma once

// Whether a job may begin its next attempt where it had the last one, without giving its slots up in between: caches
// are warm, whose fault it was shows, and the workers are asked while the delay passes. Only while nobody else should
// have them.

#include "coordinator/core/transaction.h"

namespace vicreg::core {

// `job` has ranks: of an attempt that has settled, or reserved for the next one. Yes only if every node of theirs is
// READY and open, suits it and is not blamed, it is not held, its queue is open, its project within its quota, and no
// better claim waits: no queued job goes before it in the scheduler's order that could be given one of these nodes.
// Slots that were promised (earmarked) to a gang that goes before it are such a claim, however many more that needs.
bool MayStay(const Transaction& tx, const Job& job);

}  // namespace vicreg::core
