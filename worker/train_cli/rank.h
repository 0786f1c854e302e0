#pragma once

// One rank of `vicreg-train run`, in its own process. Internal: started by run.cc alone.

#include <string>

namespace vicreg::train {

struct LocalRank {
  std::string folder;  // holds recipe.json and the rendezvous folder
  std::string job, recipe_hash, data_root, artifacts;
  int rank = 0, world_size = 1, threads = 1;
  bool gpu = false;
};

// Rank 0 prints one JSON line per step. Returns the exit status: 0 finished, 3 stopped by a signal, 1 failed.
int RunLocalRank(const LocalRank& options);

}  // namespace vicreg::train
