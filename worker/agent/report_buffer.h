#pragma once

// What one rank (or its supervisor) said and the coordinator has not yet committed. Reports get sequence numbers in order of arrival and
// are sent again, in that order, after every reconnect. Pure data; guarded by the agent.

#include <cstdint>
#include <deque>

#include "vicreg/v1/worker_service.pb.h"

namespace vicreg::agent {

class ReportBuffer {
 public:
  // Numbers and keeps `report`; `rank_sequence` is the rank's own number for it, 0 for the supervisor's.
  const v1::RankReport& Add(v1::RankReport report, std::int64_t rank_sequence) {
    report.set_sequence(++newest_);
    reports_.push_back({std::move(report), rank_sequence});
    if (rank_sequence > newest_rank_) newest_rank_ = rank_sequence;
    return reports_.back().report;
  }

  // Drops what is committed; returns the newest of the rank's own numbers among it, 0 for none.
  std::int64_t Ack(std::int64_t sequence) {
    std::int64_t rank_sequence = 0;
    while (!reports_.empty() && reports_.front().report.sequence() <= sequence) {
      if (reports_.front().rank_sequence > 0) rank_sequence = reports_.front().rank_sequence;
      reports_.pop_front();
    }
    return rank_sequence;
  }

  // A rank that reconnects repeats what it does not know to be committed.
  bool IsRepeat(std::int64_t rank_sequence) const { return rank_sequence <= newest_rank_; }

  template <typename F>
  void ForEach(F f) const {
    for (const Kept& kept : reports_) f(kept.report);
  }
  bool empty() const { return reports_.empty(); }
  std::size_t size() const { return reports_.size(); }

 private:
  struct Kept {
    v1::RankReport report;
    std::int64_t rank_sequence;
  };
  std::int64_t newest_ = 0, newest_rank_ = 0;
  std::deque<Kept> reports_;
};

}  // namespace vicreg::agent
