#pragma once

// One rank of W, alone: what its collectives received in a real run of W ranks is kept, then handed to it again without
// copying. So the time of its own work can be measured where W ranks would share too few cores, communication excluded.

#include <memory>
#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::bench {

// Results of collectives in call order.
using Tape = std::vector<at::Tensor>;

// `group`, noting what each collective gave this rank.
train::Group Recording(train::Group& group, Tape& tape);

// A group of `size` ranks whose collectives give rank 0 what `tape` holds, from its beginning. The tape must outlive
// it.
train::Group Replaying(const Tape& tape, int size);

}  // namespace vicreg::bench
