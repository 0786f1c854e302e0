#pragma once

// Slots of one kind, and which of them a gang gets: one node when one fits, else one rack, else the fewest nodes, as
// far as the gang's topology allows. Within that, what leaves the least behind.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/core/state.h"

namespace vicreg::core {

// One placeable node.
struct Place {
  const Node* node = nullptr;
  std::string rack;       // its label rack=..., or empty
  int total = 0;          // slots it has
  std::vector<int> free;  // ascending
  int marked = 0;         // of the free ones: promised to a gang that waits
  int available() const { return std::max(0, static_cast<int>(free.size()) - marked); }
};

// What a gang asks of nodes.
struct Shape {
  std::string data_root;
  std::vector<std::string> labels;  // of the job and of its queue
  std::set<std::string> excluded;
  std::set<NodePair> bad_pairs = {};
  auto operator<=>(const Shape&) const = default;
};
// `queue`: the job's; null: none of its name.
Shape ShapeOf(const Job& job, const Queue* queue);
// The node has the root and the labels, whatever failed there.
bool Suits(const Node& node, const Shape& shape);

class Slots {
 public:
  // All free; nodes that are not ready and open are left out.
  Slots(const std::vector<const Node*>& nodes, const std::string& kind);

  // A slot of a node that is not placeable is nobody's business here.
  void Take(const Slot& slot);
  void Free(const Slot& slot);

  std::vector<Place>& places() { return places_; }
  const std::vector<Place>& places() const { return places_; }
  std::size_t free_count() const;

 private:
  Place* Find(const std::string& node);
  std::vector<Place> places_;  // by name
  std::size_t newest_ = 0;     // of them found: slots of a gang come a node at a time
};

// Indices into Slots::places().
using Eligible = std::vector<std::size_t>;

// Nodes that offer the root and have the labels. Those that failed under the job are left out unless without them it
// could never have `world` ranks.
Eligible EligibleFor(const Slots& slots, const Shape& shape, int world);

// Of those, without one node of each pair that is bad for the job: which one, is as a gang of `fewest` fits now, or if
// it does not, could. All of them if it could never fit so.
Eligible WithoutBadPairs(const Slots& slots, const Eligible& eligible, const Shape& shape, int fewest,
                         const Topology& topology);

// The largest gang of `fewest` to `most` ranks that fits now; marked slots are not free. Slots of rank 0, 1, ...; empty
// when none fits.
std::vector<Slot> Pick(const Slots& slots, const Eligible& eligible, int fewest, int most, const Topology& topology);

// May a gang of this topology spread over all its nodes, if it must?
inline bool MaySpread(const Topology& topology) { return !topology.required || topology.level == Level::kAny; }

// Could `world` ranks sit there if everything were free?
bool FitsWhenEmpty(const Slots& slots, const Eligible& eligible, int world, const Topology& topology);

// Promises free slots, as they are and as they become free, to a gang of `world` ranks: the node or rack that is
// nearest to holding it.
void Earmark(Slots& slots, const Eligible& eligible, int world, const Topology& topology);

}  // namespace vicreg::core
