#pragma once

// Why a job waits: one reason and one sentence with the numbers behind it and what would help.

#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/fit.h"

namespace vicreg::core {

struct Misfit {
  const Job& job;
  const Shape& shape;
  const std::vector<const Node*>& nodes;
  const Slots& slots;
  const Eligible& eligible;

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
  // Slots of its nodes that are free, promised ones too.
  int Free() const;

 private:
  std::string Needs() const;
  int Total() const;
};

// "1 slot", "2 slots".
std::string Count(int count, const std::string& what);

}  // namespace vicreg::core
