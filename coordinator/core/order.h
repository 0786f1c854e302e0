#pragma once

// Who may choose slots first: priority, then the project that has least for its weight, then age.

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "coordinator/core/transaction.h"

namespace vicreg::core {

class Order {
 public:
  // `pending` in order of age; `held`: slots that each project's gangs hold.
  Order(const std::vector<const Job*>& pending, std::map<std::string, int> held, const Transaction& state);

  // Null: none is left.
  const Job* Next();
  // It was given `slots`: its project's turn comes later.
  void Placed(const Job& job, int slots) { held_[job.project] += slots; }

 private:
  std::map<int, std::map<std::string, std::deque<const Job*>>, std::greater<>> pending_;
  std::map<std::string, int> held_;
  std::map<std::string, double> weight_;
};

}  // namespace vicreg::core
