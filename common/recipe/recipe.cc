#include "common/recipe/recipe.h"

#include <algorithm>
#include <cmath>

namespace vicreg::recipe {

std::int64_t InSteps(const Length& length, std::int64_t samples, std::int64_t batch_size, std::int64_t least) {
  if (length.epochs <= 0) return std::max(length.steps, least);
  const std::int64_t per_epoch = std::max<std::int64_t>(samples / batch_size, 1);
  return std::max<std::int64_t>(std::llround(length.epochs * static_cast<double>(per_epoch)), least);
}

}  // namespace vicreg::recipe
