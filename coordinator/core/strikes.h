#pragma once

// Failures that a node is to blame for. Too many, or of too many jobs, and nothing more is placed there until an
// operator opens it again; but never so much of the cluster at once that one bad rule could stop it.

#include <string>

#include "coordinator/core/transaction.h"

namespace vicreg::core {

// Is there room for one more quarantined node?
bool MayQuarantine(const Transaction& tx);

void AddStrike(Transaction& tx, const std::string& node, const std::string& job_id, const std::string& what);

}  // namespace vicreg::core
