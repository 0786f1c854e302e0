#pragma once

// The steps of one attempt that several operations share.

#include "coordinator/core/transaction.h"

namespace vicreg::core {

// A rank is gone (exited or lost): the attempt stops, or if it was the last one, is settled into what comes next.
void OnRankGone(Transaction& tx, Job& job, const std::string& actor);

// A reservation that will not start: the job keeps its place in the queue.
void Unreserve(Transaction& tx, Job& job, const std::string& why, const std::string& actor);

std::set<std::string> NodesOf(const Job& job);

}  // namespace vicreg::core
