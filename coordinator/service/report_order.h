#pragma once

// In which order what comes on one worker's stream counts. Rows go to the metric history and all other reports to the
// control store, each with its own writer (docs/decisions/0001); two rules keep their order. Pure.
//
//  - A report counts only when all rows ahead of it on its stream are durable. It waits for a barrier in the history,
//  and
//    behind rows that could not be stored nothing counts: they are sent again on the next stream, where a report that
//    had ended their attempt would have fenced them.
//  - Rows are not acknowledged ahead of reports that the core has yet to commit, as an acknowledgement says that the
//  worker
//    may forget all that came before.
//
// Rows and barriers come back on the history's thread, decided reports on the core's.

#include <atomic>

#include "common/planted.h"
#include "common/status.h"

namespace vicreg::service {

class ReportOrder {
 public:
  void RowsFailed() { rows_failed_ = true; }

  // A report other than rows has come; Decided must follow.
  void Came() { ++undecided_; }
  // Its barrier came back so.
  bool Counts(const absl::Status& barrier) const {
    return (barrier.ok() && !rows_failed_) || Planted(Plant::kRowsOvertaken);
  }
  // It was committed, or does not count.
  void Decided() { --undecided_; }
  // Else they wait for the core.
  bool MayAcknowledgeRows() const { return undecided_ == 0; }

 private:
  std::atomic<int> undecided_{0};
  bool rows_failed_ = false;  // history's thread only
};

}  // namespace vicreg::service
