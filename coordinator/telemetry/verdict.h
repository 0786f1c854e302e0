#pragma once

// Is the training healthy? A pure function of recent rows; the first rule that holds gives the verdict. Thresholds were
// chosen so that runs known to collapse are named and 25/25/1 is not. Not judged, because a row does not carry what it
// needs: stalled jobs (the time of asking).

#include <string>
#include <vector>

#include "vicreg/v1/metrics.pb.h"

namespace vicreg::telemetry {

struct Verdict {
  std::string name;      // warming_up, healthy, collapsed, not_invariant, redundant, diverging
  std::string sentence;  // rule and values
};

// `newest_first`: up to 40 rows; medians of the newest 20 decide.
Verdict Judge(const std::vector<v1::MetricRow>& newest_first);

}  // namespace vicreg::telemetry
