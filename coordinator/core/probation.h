#pragma once

// A node of which nobody knows whether ranks can run there (new, of another boot, or lost for a while) is probed before
// anything is placed there: kProbing (state.h). The answer is OnProbed's (decide.h).
//
// A probe is asked for at the node's Register; again when no answer has come within Options::probe, as it may have been
// lost with its connection or its worker may be slow; and after Options::probe_again when it failed and the node could
// not be quarantined. Each has a number, committed before it is sent: what comes to an older one is refused.

#include "coordinator/core/transaction.h"

namespace vicreg::core {

void AskProbe(Transaction& tx, Node& node);

// Of any node, from time to time.
void ProbeWhenDue(Transaction& tx, const Node& node);

}  // namespace vicreg::core
