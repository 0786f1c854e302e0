#pragma once

// The jobs that simulated clusters are given.

#include <algorithm>
#include <string>

#include "coordinator/core/state.h"

namespace vicreg::bench {

// As long as a UUID.
inline std::string IdOf(int number) {
  const std::string digits = std::to_string(number);
  return std::string(36 - digits.size(), '0') + digits;
}

inline core::Job JobOf(int world) {
  core::Job job;
  job.name = "bench";
  job.owner = "local:bench";
  job.spec = std::string(400, 's');  // bytes of a resolved spec
  job.data_root = "images";
  job.min_world = job.max_world = job.world_size = world;
  job.batch_size = std::max(1024, world);
  return job;
}

}  // namespace vicreg::bench
