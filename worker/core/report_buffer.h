#pragma once

// What one rank (or its supervisor) said and the coordinator has not yet committed. Reports get sequence numbers in
// order of arrival and are sent again, in that order, after every reconnect. Pure data; guarded by its owner.
//
// Bounded: while kMostReports or kMostBytes wait for the coordinator the buffer is full, and the agent reads no further
// on the rank's stream. Nothing is dropped, for the history promises no gap: the rank keeps what is not acknowledged
// (worker/rank/link.h), trains on, and is read again when an acknowledgement makes room. The supervisor's own reports,
// at most two, are always taken.

#include <cstdint>
#include <deque>

#include "common/planted.h"
#include "vicreg/v1/worker_service.pb.h"

namespace vicreg::worker {

class ReportBuffer {
 public:
  static constexpr std::size_t kMostReports = 2048;
  static constexpr std::size_t kMostBytes = std::size_t{4} << 20;

  // Numbers and keeps `report`; `rank_sequence` is the rank's own number for it, 0 for the supervisor's.
  const v1::RankReport& Add(v1::RankReport report, std::int64_t rank_sequence) {
    report.set_sequence(++newest_);
    const std::size_t bytes = report.ByteSizeLong();
    bytes_ += bytes;
    reports_.push_back({std::move(report), rank_sequence, bytes});
    if (rank_sequence > newest_rank_) newest_rank_ = rank_sequence;
    return reports_.back().report;
  }

  // Of a rank that an earlier worker started, which had numbered reports up to `sequence`: what is kept, and all that
  // comes, is numbered after those. Once, before anything was sent.
  void StartAfter(std::int64_t sequence) {
    newest_ += sequence;
    for (Kept& kept : reports_) kept.report.set_sequence(kept.report.sequence() + sequence);
  }

  // Drops what is committed; returns the newest of the rank's own numbers among it, 0 for none.
  std::int64_t Ack(std::int64_t sequence) {
    std::int64_t rank_sequence = 0;
    if (Planted(Plant::kAckOffByOne)) ++sequence;
    while (!reports_.empty() && reports_.front().report.sequence() <= sequence) {
      if (reports_.front().rank_sequence > 0) rank_sequence = reports_.front().rank_sequence;
      bytes_ -= reports_.front().bytes;
      reports_.pop_front();
    }
    if (rank_sequence > 0) committed_rank_ = rank_sequence;
    return rank_sequence;
  }

  // A rank that reconnects repeats what it does not know to be committed.
  bool IsRepeat(std::int64_t rank_sequence) const { return rank_sequence <= newest_rank_; }

  // The newest of the rank's own numbers that is committed, 0 for none.
  std::int64_t committed_rank() const { return committed_rank_; }

  template <typename F>
  void ForEach(F f) const {
    for (const Kept& kept : reports_) f(kept.report);
  }
  bool empty() const { return reports_.empty(); }
  bool full() const { return reports_.size() >= kMostReports || bytes_ >= kMostBytes; }
  std::size_t size() const { return reports_.size(); }

 private:
  struct Kept {
    v1::RankReport report;
    std::int64_t rank_sequence;
    std::size_t bytes;
  };
  std::int64_t newest_ = 0, newest_rank_ = 0, committed_rank_ = 0;
  std::size_t bytes_ = 0;
  std::deque<Kept> reports_;
};

}  // namespace vicreg::worker
