#pragma once

// Why a job waits: one reason and one sentence with the numbers behind it and what would help.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/fit.h"

namespace vicreg::core {

// What the ready nodes offer together. Looked up once a pass, and only when a class could never start.
class Offers {
 public:
  explicit Offers(const std::vector<const Node*>& nodes) : nodes_(nodes) {}
  struct All {
    int ready = 0, closed = 0;  // nodes that are ready: open, and others
    int probing = 0;            // nodes that may become ready when they pass
    std::string failed;         // the first of them that did not: its name and why
    std::set<std::string> roots;
    std::map<std::string, std::set<std::string>> labels;  // of the nodes that offer a root
  };
  const All& all();

 private:
  const std::vector<const Node*>& nodes_;
  std::optional<All> all_;
};

struct Misfit {
  const Job& job;
  const Shape& shape;
  Offers& offers;
  const Slots& slots;
  const Eligible& eligible;
  int total, free;  // slots of the eligible nodes; free ones, promised ones too

  // The cluster could not hold it even when empty; nullopt: it could.
  std::optional<Explanation> Never() const;
  Explanation QueueClosed() const;
  Explanation OverQuota(int quota, int held) const;
  Explanation InUse() const;
  Explanation Behind(const Job& first) const;
  // The slots it needs are being freed.
  Explanation Stopping() const;
  // To the victim: who takes its place.
  std::string Preempts(const Job& victim) const;

 private:
  std::string Needs() const;
  // What may change that soon: nodes that are not ready yet. Empty: none.
  std::string Probing() const;
};

// "1 slot", "2 slots".
std::string Count(int count, const std::string& what);

}  // namespace vicreg::core
