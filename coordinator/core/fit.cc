#include "coordinator/core/fit.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "common/planted.h"

namespace vicreg::core {
namespace {

bool Has(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

std::string RackOf(const Node& node) {
  for (const std::string& label : node.labels) {
    if (label.starts_with("rack=")) return label.substr(5);
  }
  return {};
}

// A group of places that a gang may spread over.
using Group = std::vector<std::size_t>;

std::map<std::string, Group> ByRack(const Slots& slots, const Eligible& eligible) {
  std::map<std::string, Group> racks;
  for (const std::size_t i : eligible) {
    // A node that names no rack is not known to be near any other.
    const Place& place = slots.places()[i];
    racks[place.rack.empty() ? "node " + place.node->name : place.rack].push_back(i);
  }
  return racks;
}

int Available(const Slots& slots, const Group& group) {
  return std::accumulate(group.begin(), group.end(), 0,
                         [&](int sum, std::size_t i) { return sum + slots.places()[i].available(); });
}

int Total(const Slots& slots, const Group& group) {
  return std::accumulate(group.begin(), group.end(), 0,
                         [&](int sum, std::size_t i) { return sum + slots.places()[i].total; });
}

// Of one node: the least available that fits, so that larger gaps stay for larger gangs.
std::optional<std::size_t> TightestNode(const Slots& slots, const Group& group, int world) {
  std::optional<std::size_t> best;
  for (const std::size_t i : group) {
    const int available = slots.places()[i].available();
    if (available >= world && (!best || available < slots.places()[*best].available())) best = i;
  }
  return best;
}

// Most room first, so that few nodes take part; the last part goes where it leaves the least behind.
std::vector<std::pair<std::size_t, int>> FewestNodes(const Slots& slots, Group group, int world) {
  std::stable_sort(group.begin(), group.end(), [&](std::size_t a, std::size_t b) {
    return slots.places()[a].available() > slots.places()[b].available();
  });
  std::vector<std::pair<std::size_t, int>> parts;
  while (world > 0 && !group.empty()) {
    const std::optional<std::size_t> last = TightestNode(slots, group, world);
    const std::size_t next = last.value_or(group.front());
    const int count = std::min(world, slots.places()[next].available());
    if (count <= 0) return {};
    parts.emplace_back(next, count);
    world -= count;
    group.erase(std::find(group.begin(), group.end(), next));
  }
  return world == 0 ? parts : std::vector<std::pair<std::size_t, int>>{};
}

std::vector<Slot> SlotsOf(const Slots& slots, const std::vector<std::pair<std::size_t, int>>& parts) {
  std::vector<Slot> chosen;
  for (const auto& [i, count] : parts) {
    const Place& place = slots.places()[i];
    for (int k = 0; k < count; ++k) chosen.push_back({place.node->name, place.free[static_cast<std::size_t>(k)]});
  }
  return chosen;
}

std::vector<Slot> PickExactly(const Slots& slots, const Eligible& eligible, int world, const Topology& topology) {
  if (topology.level == Level::kNode) {
    if (const auto node = TightestNode(slots, eligible, world)) return SlotsOf(slots, {{*node, world}});
    if (topology.required) return {};
  }
  if (topology.level >= Level::kRack) {
    std::vector<std::pair<std::size_t, int>> best;
    int best_left = 0;
    for (const auto& [rack, group] : ByRack(slots, eligible)) {
      const int left = Available(slots, group) - world;
      if (left < 0) continue;
      auto parts = FewestNodes(slots, group, world);
      if (parts.empty()) continue;
      if (best.empty() || std::pair(parts.size(), left) < std::pair(best.size(), best_left)) {
        best = std::move(parts);
        best_left = left;
      }
    }
    if (!best.empty()) return SlotsOf(slots, best);
    if (topology.required) return {};
  }
  return SlotsOf(slots, FewestNodes(slots, eligible, world));
}

// Groups that a gang must not leave.
std::vector<Group> Domains(const Slots& slots, const Eligible& eligible, const Topology& topology) {
  std::vector<Group> domains;
  if (MaySpread(topology)) {
    domains.push_back(eligible);
  } else if (topology.level == Level::kNode) {
    for (const std::size_t i : eligible) domains.push_back({i});
  } else {
    for (auto& [rack, group] : ByRack(slots, eligible)) domains.push_back(std::move(group));
  }
  return domains;
}

}  // namespace

Slots::Slots(const std::vector<const Node*>& nodes, const std::string& kind) {
  for (const Node* node : nodes) {
    const int total = node->Slots(kind);
    const bool planted =
        Planted(Plant::kCordonIgnored) || (Planted(Plant::kPlacedWhileProbing) && node->state == NodeState::kProbing);
    if ((!node->placeable() && !planted) || total == 0) continue;
    Place place{node, RackOf(*node), total, std::vector<int>(static_cast<std::size_t>(total)), 0};
    std::iota(place.free.begin(), place.free.end(), 0);
    places_.push_back(std::move(place));
  }
  const auto by_name = [](const Place& a, const Place& b) { return a.node->name < b.node->name; };
  if (!std::is_sorted(places_.begin(), places_.end(), by_name)) std::sort(places_.begin(), places_.end(), by_name);
}

Place* Slots::Find(const std::string& node) {
  if (newest_ < places_.size() && places_[newest_].node->name == node) return &places_[newest_];
  const auto found = std::lower_bound(places_.begin(), places_.end(), node,
                                      [](const Place& place, const std::string& n) { return place.node->name < n; });
  if (found == places_.end() || found->node->name != node) return nullptr;
  newest_ = static_cast<std::size_t>(found - places_.begin());
  return &*found;
}

void Slots::Take(const Slot& slot) {
  if (Place* place = Find(slot.node)) std::erase(place->free, slot.index);
}

void Slots::Free(const Slot& slot) {
  Place* place = Find(slot.node);
  if (place == nullptr || slot.index >= place->total) return;
  const auto at = std::lower_bound(place->free.begin(), place->free.end(), slot.index);
  if (at == place->free.end() || *at != slot.index) place->free.insert(at, slot.index);
}

std::size_t Slots::free_count() const {
  return std::accumulate(places_.begin(), places_.end(), std::size_t{0},
                         [](std::size_t sum, const Place& place) { return sum + place.free.size(); });
}

Shape ShapeOf(const Job& job, const Queue* queue) {
  Shape shape{job.data_root, job.labels, job.excluded, job.bad_pairs};
  if (queue != nullptr) shape.labels.insert(shape.labels.end(), queue->labels.begin(), queue->labels.end());
  return shape;
}

bool Suits(const Node& node, const Shape& shape) {
  return Has(node.data_roots, shape.data_root) &&
         std::all_of(shape.labels.begin(), shape.labels.end(), [&](const auto& l) { return Has(node.labels, l); });
}

Eligible EligibleFor(const Slots& slots, const Shape& shape, int world) {
  Eligible all, trusted;
  int trusted_total = 0;
  for (std::size_t i = 0; i < slots.places().size(); ++i) {
    const Node& node = *slots.places()[i].node;
    if (!Suits(node, shape)) continue;
    all.push_back(i);
    if (shape.excluded.count(node.name) != 0) continue;
    trusted.push_back(i);
    trusted_total += slots.places()[i].total;
  }
  return trusted_total >= world ? trusted : all;
}

Eligible WithoutBadPairs(const Slots& slots, const Eligible& eligible, const Shape& shape, int fewest,
                         const Topology& topology) {
  const std::vector<NodePair> pairs(shape.bad_pairs.begin(), shape.bad_pairs.end());
  std::optional<Eligible> possible;
  // Each way to leave one of every pair out; pairs are few (kMaxBadPairs).
  for (unsigned choice = 0; choice < (1U << pairs.size()); ++choice) {
    std::set<std::string> left_out;
    for (std::size_t i = 0; i < pairs.size(); ++i)
      left_out.insert((choice >> i & 1U) != 0 ? pairs[i].first : pairs[i].second);
    Eligible rest;
    std::copy_if(eligible.begin(), eligible.end(), std::back_inserter(rest),
                 [&](std::size_t i) { return left_out.count(slots.places()[i].node->name) == 0; });
    if (!FitsWhenEmpty(slots, rest, fewest, topology)) continue;
    if (!Pick(slots, rest, fewest, fewest, topology).empty()) return rest;
    if (!possible) possible = std::move(rest);
  }
  return possible.value_or(eligible);
}

std::vector<Slot> Pick(const Slots& slots, const Eligible& eligible, int fewest, int most, const Topology& topology) {
  int largest = 0;
  for (const Group& domain : Domains(slots, eligible, topology)) largest = std::max(largest, Available(slots, domain));
  const int world = std::min(most, largest);
  return world < fewest ? std::vector<Slot>{} : PickExactly(slots, eligible, world, topology);
}

bool FitsWhenEmpty(const Slots& slots, const Eligible& eligible, int world, const Topology& topology) {
  const std::vector<Group> domains = Domains(slots, eligible, topology);
  return std::any_of(domains.begin(), domains.end(), [&](const Group& g) { return Total(slots, g) >= world; });
}

void Earmark(Slots& slots, const Eligible& eligible, int world, const Topology& topology) {
  std::optional<Group> best;
  for (const Group& domain : Domains(slots, eligible, topology)) {
    if (Total(slots, domain) < world) continue;
    if (!best || Available(slots, domain) > Available(slots, *best)) best = domain;
  }
  if (!best) return;
  std::stable_sort(best->begin(), best->end(), [&](std::size_t a, std::size_t b) {
    return slots.places()[a].available() > slots.places()[b].available();
  });
  for (const std::size_t i : *best) {
    if (world <= 0) return;
    Place& place = slots.places()[i];
    const int promised = std::min(world, place.total - place.marked);
    place.marked += promised;
    // What is not free yet counts too: it is promised as it becomes free.
    world -= promised;
  }
}

}  // namespace vicreg::core
