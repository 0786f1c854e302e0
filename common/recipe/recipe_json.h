#pragma once

// Recipe <-> canonical JSON (fixed key order, shortest round-trip numbers). Its SHA-256 names the experiment. Plain
// types only. A choice that came later is written only where it is not the default, so that older experiments keep
// their names; where it would change what an older build trains without that build noticing, the version is a later one
// (2 to 5), which older builds refuse.

#include <string>
#include <string_view>

#include "common/recipe/recipe.h"

namespace vicreg::recipe {

std::string Serialize(const Recipe& recipe);

// Throws std::invalid_argument naming what is missing or wrong.
Recipe Deserialize(std::string_view json);

const char* Name(Objective objective);
const char* Name(Convention convention);
const char* Name(LossForm form);
const char* Name(OptimizerKind kind);
const char* Name(EmbeddingNorm norm);
const char* Name(Precision precision);
const char* Name(RegularizeOn on);

// SHA-256 of Serialize without what does not change the trained weights (how many checkpoints are kept, when kNN is
// measured, in how many parts a step is computed).
std::string Hash(const Recipe& recipe);

}  // namespace vicreg::recipe
