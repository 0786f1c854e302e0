#include "common/spec/spec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>

#include "common/enum_names.h"

namespace vicreg::spec {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

const char* KindName(const TreeNode& node) {
  switch (node.kind) {
    case TreeNode::Kind::kNull:
      return "nothing";
    case TreeNode::Kind::kScalar:
      return "a value";
    case TreeNode::Kind::kSequence:
      return "a list";
    case TreeNode::Kind::kMap:
      return "a map";
  }
  return "";
}

std::string Found(const TreeNode& node) {
  if (node.kind != TreeNode::Kind::kScalar) return std::string("found ") + KindName(node);
  return (node.quoted ? "found the string \"" : "found \"") + node.scalar.substr(0, 60) + "\"";
}

template <typename T = std::int64_t>
std::optional<T> ParseInteger(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Finite decimal numbers only: no hex, NaN or infinity.
std::optional<double> ParseNumber(const std::string& text) {
  if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

class Walker {
 public:
  explicit Walker(Parsed& out) : out_(out) {}

  void Read(const TreeNode& node, Message& message, const std::string& path) {
    if (ReadShorthand(node, message, path)) return;
    if (node.kind != TreeNode::Kind::kMap) {
      Complain(node.mark, path, Found(node) + "; expected a map of keys");
      return;
    }
    std::map<std::string, Mark> seen;
    for (const auto& [key, value] : node.entries) {
      const std::string field_path = path.empty() ? key.scalar : path + "." + key.scalar;
      if (const auto [first, added] = seen.emplace(key.scalar, key.mark); !added) {
        Complain(key.mark, field_path,
                 "key appears twice; the first is on line " + std::to_string(first->second.line) + ": remove one");
        continue;
      }
      const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(key.scalar);
      if (field == nullptr) {
        Complain(key.mark, field_path, UnknownKey(key.scalar, *message.GetDescriptor()));
        continue;
      }
      // The parser finds out that there is no value at whatever comes next, lines below perhaps.
      const bool nothing = value.kind == TreeNode::Kind::kNull;
      out_.marks[field_path] = nothing || value.mark.line == 0 ? key.mark : value.mark;
      if (nothing) {
        Complain(key.mark, field_path, "found no value; expected " + Expected(*field) + ": give one or remove the key");
        continue;
      }
      ReadField(value, message, *field, field_path);
    }
  }

 private:
  void Complain(const Mark& mark, const std::string& field, const std::string& text) {
    out_.problems.push_back({mark, field, text});
  }

  static std::string UnknownKey(const std::string& key, const Descriptor& type) {
    std::vector<std::string> names;
    for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
    if (const std::string nearest = Nearest(key, names); !nearest.empty())
      return "unknown key; did you mean \"" + nearest + "\"?";
    std::string all;
    for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
    return "unknown key; known here: " + all;
  }

  static std::string EnumNames(const EnumDescriptor& type) {
    std::string all;
    for (int i = 1; i < type.value_count(); ++i) all += (i > 1 ? ", " : "") + Lower(ShortName(*type.value(i)));
    return all;
  }

  static std::string Expected(const FieldDescriptor& field) {
    if (field.is_repeated()) return "a list";
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return "a string";
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return "a number";
      case FieldDescriptor::CPPTYPE_BOOL:
        return "true or false";
      case FieldDescriptor::CPPTYPE_ENUM:
        return "one of " + EnumNames(*field.enum_type());
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return "a map of keys";
      default:
        return "a whole number";
    }
  }

  // `world_size: 2`, `30 steps`, `10 epochs`, `30`, `restart: never`.
  bool ReadShorthand(const TreeNode& node, Message& message, const std::string& path) {
    if (node.kind != TreeNode::Kind::kScalar) return false;
    if (auto* world = google::protobuf::DynamicCastToGenerated<v1::WorldSize>(&message)) {
      const auto value = node.quoted ? std::nullopt : ParseInteger<std::int32_t>(node.scalar);
      if (!value) {
        Complain(node.mark, path,
                 Found(node) + "; expected a whole number of ranks, or {min: 1, max: 8}" + QuoteHint(node));
        return true;
      }
      world->set_min(*value);
      world->set_max(*value);
      return true;
    }
    if (auto* length = google::protobuf::DynamicCastToGenerated<v1::Length>(&message)) {
      const std::size_t space = node.scalar.find(' ');
      const std::string number = node.scalar.substr(0, space);
      const std::string unit = space == std::string::npos ? "steps" : node.scalar.substr(space + 1);
      const auto steps = ParseInteger(number);
      const auto epochs = ParseNumber(number);
      if ((unit == "steps" || unit == "step") && steps) {
        length->set_steps(*steps);
      } else if ((unit == "epochs" || unit == "epoch") && epochs) {
        length->set_epochs(*epochs);
      } else {
        Complain(node.mark, path, Found(node) + "; expected a length such as \"30 steps\" or \"10 epochs\"");
      }
      return true;
    }
    if (auto* restart = google::protobuf::DynamicCastToGenerated<v1::RestartSpec>(&message)) {
      restart->set_never(node.scalar == "never");
      if (!restart->never()) Complain(node.mark, path, Found(node) + "; expected never, or a map such as {charges: 3}");
      return true;
    }
    return false;
  }

  void ReadField(const TreeNode& node, Message& message, const FieldDescriptor& field, const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    if (const auto* oneof = field.real_containing_oneof(); oneof != nullptr && reflection.HasOneof(message, oneof)) {
      Complain(
          node.mark, path,
          "given beside " + reflection.GetOneofFieldDescriptor(message, oneof)->name() + "; expected only one of them");
      return;
    }
    if (field.is_repeated()) {
      if (node.kind != TreeNode::Kind::kSequence) {
        Complain(node.mark, path,
                 Found(node) + "; expected a list, such as " +
                     (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE  ? "[{...}, {...}]"
                      : field.cpp_type() == FieldDescriptor::CPPTYPE_STRING ? "[a=b, c=d]"
                                                                            : "[1024, 1024]"));
        return;
      }
      for (std::size_t i = 0; i < node.items.size(); ++i) {
        const std::string item = path + "[" + std::to_string(i) + "]";
        out_.marks[item] = node.items[i].mark;
        const TreeNode& given = node.items[i];
        if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          Read(given, *reflection.AddMessage(&message, &field), item);
          continue;
        }
        if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
          if (given.kind != TreeNode::Kind::kScalar) Complain(given.mark, item, Found(given) + "; expected text");
          reflection.AddString(&message, &field, given.scalar);
          continue;
        }
        const auto value =
            given.kind == TreeNode::Kind::kScalar && !given.quoted ? ParseInteger(given.scalar) : std::nullopt;
        if (!value) Complain(given.mark, item, Found(given) + "; expected a whole number" + QuoteHint(given));
        reflection.AddInt64(&message, &field, value.value_or(0));
      }
      return;
    }
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Read(node, *reflection.MutableMessage(&message, &field), path);
      return;
    }
    if (node.kind != TreeNode::Kind::kScalar || !SetScalar(node, message, field)) {
      Complain(
          node.mark, path,
          Found(node) + "; expected " + Expected(field) + (IsNumber(field) ? QuoteHint(node) : EnumHint(node, field)));
    }
  }

  static bool IsNumber(const FieldDescriptor& field) {
    return field.cpp_type() != FieldDescriptor::CPPTYPE_STRING && field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM;
  }

  // For a number in quotes, the one slip that cannot be seen in what was found.
  static std::string QuoteHint(const TreeNode& node) {
    return node.quoted && ParseNumber(node.scalar) ? ": remove the quotes" : "";
  }

  static std::string EnumHint(const TreeNode& node, const FieldDescriptor& field) {
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM) return "";
    std::vector<std::string> names;
    for (int i = 1; i < field.enum_type()->value_count(); ++i)
      names.push_back(Lower(ShortName(*field.enum_type()->value(i))));
    const std::string nearest = Nearest(node.scalar, names);
    return nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?";
  }

  static bool SetScalar(const TreeNode& node, Message& message, const FieldDescriptor& field) {
    const Reflection& reflection = *message.GetReflection();
    if (node.quoted && IsNumber(field)) return false;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        reflection.SetString(&message, &field, node.scalar);
        return true;
      case FieldDescriptor::CPPTYPE_INT32: {
        const auto value = ParseInteger<std::int32_t>(node.scalar);
        if (value) reflection.SetInt32(&message, &field, *value);
        return value.has_value();
      }
      case FieldDescriptor::CPPTYPE_INT64: {
        const auto value = ParseInteger(node.scalar);
        if (value) reflection.SetInt64(&message, &field, *value);
        return value.has_value();
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        const auto value = ParseInteger<std::uint64_t>(node.scalar);
        if (value) reflection.SetUInt64(&message, &field, *value);
        return value.has_value();
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        const auto value = ParseNumber(node.scalar);
        if (value) reflection.SetDouble(&message, &field, *value);
        return value.has_value();
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection.SetBool(&message, &field, node.scalar == "true");
        return node.scalar == "true" || node.scalar == "false";
      case FieldDescriptor::CPPTYPE_ENUM: {
        for (int i = 1; i < field.enum_type()->value_count(); ++i) {
          if (Lower(ShortName(*field.enum_type()->value(i))) == node.scalar) {
            reflection.SetEnum(&message, &field, field.enum_type()->value(i));
            return true;
          }
        }
        return false;
      }
      default:
        return false;
    }
  }

  Parsed& out_;
};

// The item that `key` ("per_view[1]") names beneath the map `node`; nullptr: it is not of that form, or there is no
// such item.
TreeNode* Item(TreeNode& node, const std::string& key) {
  const std::size_t open = key.find('[');
  if (open == std::string::npos || key.back() != ']') return nullptr;
  const auto index = ParseInteger<std::size_t>(std::string_view(key).substr(open + 1, key.size() - open - 2));
  const auto list = std::find_if(node.entries.begin(), node.entries.end(),
                                 [&](const auto& e) { return e.key.scalar == key.substr(0, open); });
  const bool there = index && list != node.entries.end() && *index < list->value.items.size();
  return there ? &list->value.items[*index] : nullptr;
}

// Puts `value` at `path` of the tree, making maps on the way; a map made from a shorthand scalar is replaced. Items of
// a list that the file has are "list[0]".
void Override(TreeNode& root, std::string_view path, TreeNode value) {
  TreeNode* node = &root;
  while (true) {
    if (node->kind != TreeNode::Kind::kMap) {
      *node = TreeNode{};
      node->kind = TreeNode::Kind::kMap;
    }
    const std::size_t dot = path.find('.');
    const std::string key(path.substr(0, dot));
    if (TreeNode* item = Item(*node, key); item != nullptr) {
      if (dot == std::string_view::npos) {
        *item = std::move(value);
        return;
      }
      node = item;
      path.remove_prefix(dot + 1);
      continue;
    }
    auto found =
        std::find_if(node->entries.begin(), node->entries.end(), [&](const auto& e) { return e.key.scalar == key; });
    if (found == node->entries.end()) {
      TreeNode key_node;
      key_node.kind = TreeNode::Kind::kScalar;
      key_node.scalar = key;
      node->entries.push_back({std::move(key_node), TreeNode{}});
      found = node->entries.end() - 1;
    }
    if (dot == std::string_view::npos) {
      found->key.mark = {};  // what the file says there does not count
      found->value = std::move(value);
      return;
    }
    node = &found->value;
    path.remove_prefix(dot + 1);
  }
}

void ClearMarks(TreeNode& node) {
  node.mark = {};
  for (TreeNode& item : node.items) ClearMarks(item);
  for (auto& [key, value] : node.entries) {
    ClearMarks(key);
    ClearMarks(value);
  }
}

nlohmann::ordered_json FieldToJson(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool many = index >= 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return many ? r.GetRepeatedString(message, &field, index) : r.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_INT32:
      return many ? r.GetRepeatedInt32(message, &field, index) : r.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return many ? r.GetRepeatedInt64(message, &field, index) : r.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return many ? r.GetRepeatedUInt64(message, &field, index) : r.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return many ? r.GetRepeatedDouble(message, &field, index) : r.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return many ? r.GetRepeatedBool(message, &field, index) : r.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return Lower(ShortName(*(many ? r.GetRepeatedEnum(message, &field, index) : r.GetEnum(message, &field))));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(many ? r.GetRepeatedMessage(message, &field, index) : r.GetMessage(message, &field));
    default:
      return nullptr;
  }
}

}  // namespace

Parsed ParseJobWithMarks(std::string_view text, const std::vector<std::string>& sets) {
  Parsed parsed;
  TreeNode root = ReadTree(text, parsed.problems);
  // A document that is not YAML at all is one problem, not one per missing key.
  if (root.kind == TreeNode::Kind::kNull && !parsed.problems.empty()) return parsed;
  for (const std::string& set : sets) {
    const std::size_t equals = set.find('=');
    if (equals == std::string::npos || equals == 0) {
      parsed.problems.push_back({{}, "", "--set " + set + ": expected field.path=value"});
      continue;
    }
    const std::string field = set.substr(0, equals);
    std::vector<Problem> problems;
    TreeNode value = equals + 1 == set.size() ? TreeNode{} : ReadTree(set.substr(equals + 1), problems);
    for (const Problem& p : problems) parsed.problems.push_back({{}, field, p.text});
    if (!problems.empty()) continue;
    ClearMarks(value);
    Override(root, field, std::move(value));
  }
  Walker(parsed).Read(root, parsed.spec, "");
  std::stable_sort(parsed.problems.begin(), parsed.problems.end(), [](const Problem& a, const Problem& b) {
    return std::pair(a.mark.line, a.mark.column) < std::pair(b.mark.line, b.mark.column);
  });
  return parsed;
}

std::string Format(const std::vector<Problem>& problems, const std::string& filename) {
  std::string text;
  for (const Problem& p : problems) {
    if (!text.empty()) text += '\n';
    const std::size_t start = text.size();
    text += p.mark.line > 0 ? filename + ":" + std::to_string(p.mark.line) + ":" + std::to_string(p.mark.column) + ": "
                            : filename + ": ";
    if (!p.field.empty()) text += p.field + ": ";
    text += p.text;
    // Whatever the file held, a problem is one line and moves no cursor.
    std::replace_if(
        text.begin() + static_cast<std::ptrdiff_t>(start), text.end(),
        [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  }
  return text;
}

std::optional<std::chrono::seconds> ParseTime(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const auto number = ParseInteger(text.substr(0, text.size() - 1));
  // More than any limit, and what no product below can pass.
  if (!number || *number < 0 || *number > 1'000'000'000) return std::nullopt;
  switch (text.back()) {
    case 's':
      return std::chrono::seconds(*number);
    case 'm':
      return std::chrono::minutes(*number);
    case 'h':
      return std::chrono::hours(*number);
    case 'd':
      return std::chrono::hours(24 * *number);
    default:
      return std::nullopt;
  }
}

absl::StatusOr<v1::JobSpec> ParseJob(std::string_view text, const std::string& filename,
                                     const std::vector<std::string>& sets) {
  Parsed parsed = ParseJobWithMarks(text, sets);
  if (!parsed.problems.empty()) return absl::InvalidArgumentError(Format(parsed.problems, filename));
  return std::move(parsed.spec);
}

nlohmann::ordered_json ToJson(const Message& message) {
  if (const auto* world = google::protobuf::DynamicCastToGenerated<v1::WorldSize>(&message);
      world && world->min() == world->max()) {
    return world->min();
  }
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const FieldDescriptor* field : fields) {
    if (!field->is_repeated()) {
      json[field->name()] = FieldToJson(message, *field, -1);
      continue;
    }
    auto& list = json[field->name()] = nlohmann::ordered_json::array();
    for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i)
      list.push_back(FieldToJson(message, *field, i));
  }
  return json;
}

}  // namespace vicreg::spec
