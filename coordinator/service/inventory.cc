#include "coordinator/service/inventory.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string>

#include "common/ids.h"

namespace vicreg::service {
namespace {

constexpr int kMaxSlots = 4096, kMaxRoots = 1000, kMaxLabels = 64;

}  // namespace

absl::Status CheckInventory(const v1::Register& wire) {
  Problems problems;
  const auto shown = [](char c) { return std::isgraph(static_cast<unsigned char>(c)) != 0; };
  const auto quoted = [&](std::string text) {
    std::replace_if(
        text.begin(), text.end(), [&](char c) { return !shown(c); }, '?');
    std::string out(1, '"');  // g++ 12 warns of a sum here at -O3 (GCC bug 105651)
    out.append(text, 0, 80);
    return out += '"';
  };
  const auto found = [&](const std::string& field, const std::string& what) {
    return field + ": found " + quoted(what);
  };
  const auto named = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '_';
  };
  if (wire.node().empty() || wire.node().size() > 253 || !std::all_of(wire.node().begin(), wire.node().end(), named))
    problems.Add(found("node", wire.node()) + "; expected 1 to 253 of letters, digits, '.', '-' and '_'");
  if (wire.boot_id().empty() || wire.boot_id().size() > 64)
    problems.Add(found("boot_id", wire.boot_id()) + "; expected 1 to 64 characters");
  if (wire.build().size() > 64) problems.Add(found("build", wire.build()) + "; expected at most 64 characters");
  if (wire.incarnation() < 0) problems.Add("incarnation: found " + std::to_string(wire.incarnation()));
  if (wire.cpu_slots() < 0 || wire.cpu_slots() > kMaxSlots)
    problems.Add("cpu_slots: found " + std::to_string(wire.cpu_slots()) + "; expected 0 to 4096");
  if (wire.gpu_uuids_size() > kMaxSlots)
    problems.Add("gpu_uuids: found " + std::to_string(wire.gpu_uuids_size()) + "; expected at most 4096");
  std::set<std::string> gpus;
  for (const std::string& gpu : wire.gpu_uuids()) {
    if (gpu.empty() || gpu.size() > 96 || !gpus.insert(gpu).second) {
      problems.Add(found("gpu_uuids", gpu) + "; expected each GPU once, with a UUID of at most 96 characters");
      break;
    }
  }
  if (wire.data_roots_size() > kMaxRoots)
    problems.Add("data_roots: found " + std::to_string(wire.data_roots_size()) + "; expected at most 1000");
  for (const std::string& root : wire.data_roots()) {
    if (root.empty() || root.size() > 63 || !std::all_of(root.begin(), root.end(), shown)) {
      problems.Add(found("data_roots", root) + "; expected names of 1 to 63 characters");
      break;
    }
  }
  if (wire.labels_size() > kMaxLabels)
    problems.Add("labels: found " + std::to_string(wire.labels_size()) + "; expected at most 64");
  for (const std::string& label : wire.labels()) {
    if (!IsLabel(label)) {
      problems.Add(found("labels", label) + "; expected " + kLabelRule);
      break;
    }
  }
  if (wire.held_size() > 2 * kMaxSlots)
    problems.Add("held: found " + std::to_string(wire.held_size()) + " ranks; expected at most 8192");
  if (problems.status().ok()) return absl::OkStatus();
  return absl::FailedPreconditionError("inventory of node " + quoted(wire.node()) + " makes no sense:\n" +
                                       std::string(problems.status().message()));
}

}  // namespace vicreg::service
