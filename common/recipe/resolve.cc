#include "common/recipe/resolve.h"

#include <google/protobuf/unknown_field_set.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <set>

#include "common/ids.h"
#include "common/recipe/recipe_json.h"
#include "common/recipe/resolver.h"

namespace vicreg::recipe {

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string Suggest(const std::string& found, const std::vector<std::string>& known) {
  std::string all;
  for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
  const std::string nearest = spec::Nearest(found, known);
  return "unknown name \"" + found + "\"; expected one of " + all +
         (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
}

void Resolver::Run() {
  RefuseUnknown(given_, "");
  ApplyPreset();
  FillDefaults();
  Scheduling();
  Data();
  Network();
  Objective();
  Accumulation();
  Lengths();
  Optimizer();
  Evaluation();
  Precision();
  if (problems.empty()) {
    out.hash = Hash(out.recipe);
    Warn();
  }
}

void Resolver::CheckName(const std::string& field, const std::string& name) {
  if (!IsName(name)) Bad(field, "found \"" + name.substr(0, 80) + "\"; expected " + kNameRule);
}

// A newer client may send what this build has never heard of. Dropping it would train something else than was asked
// for.
void Resolver::RefuseUnknown(const google::protobuf::Message& message, const std::string& path) {
  const auto& reflection = *message.GetReflection();
  const std::string prefix = path.empty() ? "" : path + ".";
  if (!reflection.GetUnknownFields(message).empty()) {
    Bad(path, "holds field number " + std::to_string(reflection.GetUnknownFields(message).field(0).number()) +
                  ", which this build does not know: use a client of this version");
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    if (field->is_repeated()) {
      if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
      for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
        RefuseUnknown(reflection.GetRepeatedMessage(message, field, i),
                      prefix + field->name() + "[" + std::to_string(i) + "]");
      }
    } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      RefuseUnknown(reflection.GetMessage(message, field), prefix + field->name());
    } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_ENUM) {
      const int value = reflection.GetEnumValue(message, field);
      if (field->enum_type()->FindValueByNumber(value) == nullptr) {
        Bad(prefix + field->name(),
            "found value " + std::to_string(value) + ", which this build does not know: use a client of this version");
      }
    }
  }
}

void Resolver::Scheduling() {
  CheckName("name", s().name());
  CheckName("project", s().project());
  CheckName("queue", s().queue());
  Range("priority", s().priority(), -1000, 1000);
  const v1::WorldSize& world = s().world_size();
  bool sized = Range("world_size", world.min(), 1, 4096);
  if (sized && world.max() < world.min()) {
    Bad("world_size", "found min " + std::to_string(world.min()) + " and max " + std::to_string(world.max()) +
                          "; expected max to be at least min");
    sized = false;
  }
  if (sized) sized = Range("world_size", world.max(), 1, 4096);
  if (Range<std::int64_t>("batch_size", s().batch_size(), 2, 1048576, "variance needs at least two rows") && sized &&
      world.max() > s().batch_size()) {
    Bad("world_size", "found " + std::to_string(world.max()) + " ranks for a global batch of " +
                          std::to_string(s().batch_size()) +
                          " rows; expected at most one rank per row: lower world_size or raise batch_size");
  }
  if (s().device() == v1::DEVICE_GPU && offered_ && !offered_->gpus) {
    Bad("device",
        "found gpu, and no worker offers GPU slots: write device: cpu, or start a worker that was built with "
        "-DVICREG_CUDA=ON on a machine with GPUs (another build trains on CPUs only)");
  }
  Placement();
  Range("restart.charges", s().restart().charges(), 0, 100);
  if (const auto deadline = spec::ParseTime(s().deadline());
      !s().deadline().empty() &&
      (!deadline || *deadline < std::chrono::minutes(1) || *deadline > std::chrono::hours(24 * 365)))
    Bad("deadline", "found \"" + s().deadline().substr(0, 60) + "\"; expected 1m to 365d, such as 90m or 12h");
  out.recipe.seed = s().seed();
  out.recipe.batch_size = s().batch_size();
}

void Resolver::Placement() {
  const auto& labels = s().placement().labels();
  if (labels.size() > 16) Bad("placement.labels", "found " + std::to_string(labels.size()) + "; expected at most 16");
  for (const std::string& label : labels) {
    if (!IsLabel(label)) {
      Bad("placement.labels", "found \"" + label.substr(0, 130) + "\"; expected " + kLabelRule);
    } else if (offered_ && offered_->labels.count(label) == 0) {
      std::string known;
      for (const std::string& other : offered_->labels) known += (known.empty() ? "" : ", ") + other;
      Bad("placement.labels", "found " + label + ", which no worker has; there are: " +
                                  (known.empty() ? "none" : known) + "; start a worker with --label " + label);
    }
  }
}

absl::StatusOr<Resolved> Resolve(const v1::JobSpec& spec, const Offered& offered) {
  Resolver resolver(spec, offered);
  resolver.Run();
  if (resolver.problems.empty()) return std::move(resolver.out);
  std::string text;
  for (const spec::Problem& p : resolver.problems) text += (text.empty() ? "" : "\n") + p.field + ": " + p.text;
  return absl::InvalidArgumentError(text);
}

absl::StatusOr<Resolved> ResolveText(std::string_view text, const std::string& filename,
                                     const std::vector<std::string>& sets, const Offered& offered) {
  spec::Parsed parsed = spec::ParseJobWithMarks(text, sets);
  Resolver resolver(parsed.spec, offered, parsed.marks);
  resolver.Run();
  std::vector<spec::Problem> problems = parsed.problems;
  std::set<std::string> said;
  for (const spec::Problem& p : problems) said.insert(p.field);
  for (spec::Problem p : resolver.problems) {
    // A value that could not be read is not also missing, nor is anything of a file that is no YAML at all.
    if (said.count(p.field) != 0 || (parsed.marks.empty() && !parsed.problems.empty())) continue;
    // The nearest thing that stands in the file: the field, or what it belongs to.
    for (std::string path = p.field; !path.empty();
         path = path.substr(0, path.find_last_of('.') == std::string::npos ? 0 : path.find_last_of('.'))) {
      if (const auto mark = parsed.marks.find(path); mark != parsed.marks.end()) {
        p.mark = mark->second;
        break;
      }
    }
    problems.push_back(std::move(p));
  }
  if (problems.empty()) return std::move(resolver.out);
  std::stable_sort(problems.begin(), problems.end(), [](const spec::Problem& a, const spec::Problem& b) {
    return std::pair(a.mark.line, a.mark.column) < std::pair(b.mark.line, b.mark.column);
  });
  return absl::InvalidArgumentError(spec::Format(problems, filename));
}

}  // namespace vicreg::recipe
