#pragma once

// Who may choose slots first: priority, then the project that has least for its weight, then age. Jobs of one class
// (index.h) are alike, so only the oldest of each is looked at, and a class whose oldest waits is done with.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/transaction.h"

namespace vicreg::core {

// What decides whose turn it is.
struct Turn {
  int priority = 0;
  double share = 0;  // slots its project holds, for its weight
  std::int64_t queue_seq = 0;
};
inline bool Before(const Turn& a, const Turn& b) {
  if (a.priority != b.priority) return a.priority > b.priority;
  return std::pair(a.share, a.queue_seq) < std::pair(b.share, b.queue_seq);
}

class Order {
 public:
  // `held`: slots that each project's gangs hold. `state` must not change meanwhile.
  Order(std::map<std::string, int> held, const Transaction& state);

  // Null: none is left. One of Placed and Drop answers for it before the next.
  const Job* Next();
  const std::string& alike() const { return current_->first; }  // the class of the newest
  // It was given `slots`: its project's turn comes later.
  void Placed(int slots);
  // It waits, and so do all of its class.
  void Drop() {}

 private:
  using Classes = std::map<std::string, QueuedClass>;
  // What a class was worth when it was put into the heap; its share may only have grown since.
  struct Entry {
    Turn turn;
    Classes::iterator alike;
  };
  static bool Later(const Entry& a, const Entry& b) { return Before(b.turn, a.turn); }
  double ShareOf(const std::string& project) const { return held_.at(project) / weight_.at(project); }
  void Enter(Classes::iterator alike);

  std::map<std::string, int> held_;
  std::map<std::string, double> weight_;
  Classes classes_;
  std::vector<Entry> heap_;
  Classes::iterator current_;
};

}  // namespace vicreg::core
