#pragma once

// The bugs that can be planted, by name.

#include <optional>
#include <span>
#include <string>

#include "common/planted.h"

namespace vicreg::simulation {

struct PlantInfo {
  Plant plant;
  const char* name;
  const char* what;
};
std::span<const PlantInfo> Plants();
std::optional<Plant> FindPlant(const std::string& name);

}  // namespace vicreg::simulation
