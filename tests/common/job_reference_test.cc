// Goal: docs/reference/job-file.md says what the job file is, and cannot say anything else.
// Method: the page is written anew from job.proto with its comments; what a key accepts and its default are not copied
// from prose but asked of the resolver. scripts/reference writes the page; without that, a page that differs is a
// failure.

#include <gmock/gmock.h>
#include <google/protobuf/compiler/importer.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <span>
#include <sstream>

#include "common/enum_names.h"
#include "common/files.h"
#include "common/recipe/resolve.h"

namespace vicreg {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using Json = nlohmann::ordered_json;

constexpr char kPage[] = VICREG_SOURCE_DIR "/docs/reference/job-file.md";
constexpr char kExample[] = VICREG_SOURCE_DIR "/examples/fashion-mnist.yaml";

// Every key without a default, and kNN so that its keys have one. Nothing else.
constexpr char kAdamW[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: adamw, lr: 1}}";
constexpr char kLars[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: lars}}";
constexpr char kLarc[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: larc, base_lr: 1}}";
constexpr char kSgd[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: sgd, base_lr: 1}}";
constexpr const char* kOptimizers[][2] = {{"adamw", kAdamW}, {"lars", kLars}, {"larc", kLarc}, {"sgd", kSgd}};
// Each objective with keys that it alone reads.
constexpr char kBarlow[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: adamw, lr: 1}, loss: {objective: barlow_twins, regularize: {variance: 1}}}";
constexpr char kSimSiam[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: adamw, lr: 1}, loss: {objective: simsiam, regularize: {variance: 1}}}";
constexpr char kByol[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: adamw, lr: 1}, loss: {objective: byol, regularize: {covariance: 1}}}";
constexpr const char* kObjectives[][2] = {
    {"vicreg", kAdamW}, {"barlow_twins", kBarlow}, {"simsiam", kSimSiam}, {"byol", kByol}};
// Where the keys of lists of maps are read.
constexpr char kPerView[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 100 steps, evaluation: {knn: {}},"
    " optimizer: {name: adamw, lr: 1}, loss: {per_view: [{variance: 1, covariance: 1}, {variance: 1, covariance: 1}]}}";
constexpr char kBranches[] =
    "{name: a, data: {root: a, format: npy}, branches: [{name: a, encoder: {name: resnet18}, expander: [8]}, {name: b,"
    " encoder: {name: mlp}, channels: 2, expander: [8]}], batch_size: 256, length: 100 steps, optimizer: {name: adamw, "
    "lr: 1}}";
// Of its first branch a key is wrong that only this kind has.
constexpr char kWaves[] =
    "{name: a, data: {root: a, format: npy}, branches: [{name: a, encoder: {name: resnet1d18}, expander: [8],"
    " augmentation: {size: 8}}, {name: b, encoder: {name: mlp}, channels: 2, expander: [8]}], batch_size: 256,"
    " length: 100 steps, optimizer: {name: adamw, lr: 1}}";
constexpr char kLonger[] =
    "{name: a, data: {root: a}, expander: [8], batch_size: 256, length: 200 steps, evaluation: {knn: {}},"
    " optimizer: {name: adamw, lr: 1}}";
constexpr char kDemo[] = "{name: a, data: {root: a}, preset: demo-cpu}";

class ErrorsAsFailures : public google::protobuf::compiler::MultiFileErrorCollector {
 public:
  void AddError(const std::string& file, int line, int, const std::string& text) override {
    ADD_FAILURE() << file << ":" << line << ": " << text;
  }
};

// job.proto as it was written: the descriptors inside the program have lost their comments.
const Descriptor& JobSpecWithComments() {
  static ErrorsAsFailures errors;
  static google::protobuf::compiler::DiskSourceTree tree;
  static google::protobuf::compiler::Importer importer(&tree, &errors);
  tree.MapPath("", VICREG_SOURCE_DIR "/proto");
  return *importer.Import("vicreg/v1/job.proto")->FindMessageTypeByName("JobSpec");
}

// In one line, for Markdown; "" when there is none.
template <typename D>
std::string CommentOf(const D& descriptor) {
  google::protobuf::SourceLocation location;
  if (!descriptor.GetSourceLocation(&location)) return "";
  std::istringstream words(location.leading_comments + " " + location.trailing_comments);
  std::string text;
  for (std::string word; words >> word;) text += (text.empty() ? "" : " ") + word;
  for (std::size_t at = 0; (at = text.find_first_of("<|", at)) != std::string::npos; at += 2) text.insert(at, 1, '\\');
  return text;
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool IsMap(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && field.message_type()->name() != "Length";
}

struct Key {
  std::string path;
  const FieldDescriptor* field;
};

// Depth first, in the order of job.proto. Keys of a list's maps are "list[].key".
void Collect(const Descriptor& type, const std::string& prefix, std::vector<Key>& out) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    out.push_back({prefix + field.name(), &field});
    if (IsMap(field)) Collect(*field.message_type(), out.back().path + (field.is_repeated() ? "[]." : "."), out);
  }
}

bool OfAList(const Key& key) { return key.path.find("[]") != std::string::npos; }

// "list[0].key".
std::string OfTheFirst(std::string path) {
  if (const std::size_t at = path.find("[]"); at != std::string::npos) path.insert(at + 1, "0");
  return path;
}

std::vector<Key> Keys() {
  std::vector<Key> keys;
  Collect(JobSpecWithComments(), "", keys);
  return keys;
}

std::string TypeOf(const FieldDescriptor& field) {
  if (field.is_repeated()) return IsMap(field) ? "list of maps" : "list of whole numbers";
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return "string";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "number";
    case FieldDescriptor::CPPTYPE_ENUM:
      return "name";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return field.message_type()->name() == "Length" ? "length" : "map";
    default:
      return "whole number";
  }
}

std::string Show(const Json& value) {
  if (value.is_number_float()) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value.get<double>());
    return text;
  }
  if (value.is_object() && value.contains("steps")) return value["steps"].dump() + " steps";
  if (value.is_object() && value.contains("epochs"))
    return Show(value["epochs"]) + (value["epochs"] == 1 ? " epoch" : " epochs");
  if (value.is_string() && value != "") return value;
  std::string text = value.dump();
  for (std::size_t at = 0; (at = text.find(',', at)) != std::string::npos; at += 2) text.replace(at, 1, ", ");
  return text;
}

// Value of `key` in the resolved `job`; "required" when the job had to give it, "" when there is none.
std::string ValueIn(const char* job, const Key& key) {
  const auto resolved = recipe::ResolveText(job, "job");
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  if (spec::ParseJobWithMarks(job).marks.count(OfTheFirst(key.path)) != 0) return "required";
  Json json = spec::ToJson(resolved->spec);
  std::istringstream parts(key.path);
  for (std::string part; std::getline(parts, part, '.');) {
    if (!json.is_object()) break;  // world_size: 1
    const bool list = part.ends_with("[]");
    if (list) part.resize(part.size() - 2);
    if (!json.contains(part)) return "";
    json = list ? Json(json[part][0]) : Json(json[part]);
  }
  return Show(json);
}

// "VALUE with NAME, NAME; VALUE with NAME", or "" where all of these jobs agree.
std::string Differing(const Key& key, std::span<const char* const[2]> jobs) {
  std::vector<std::pair<std::string, std::string>> groups;  // value, the names that have it
  for (const auto& [name, job] : jobs) {
    const std::string found = ValueIn(job, key), value = found.empty() ? "none" : found;
    const auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == value; });
    if (group == groups.end()) {
      groups.emplace_back(value, name);
    } else {
      group->second += std::string(", ") + name;
    }
  }
  if (groups.size() == 1) return "";
  std::string text;
  for (const auto& [value, names] : groups) text += (text.empty() ? "" : "; ") + value + " with " + names;
  return text;
}

std::string DefaultOf(const Key& key) {
  if (IsMap(*key.field)) return "";
  if (key.path.starts_with("branches[]")) return ValueIn(kBranches, key);
  if (OfAList(key)) return ValueIn(kPerView, key);
  const std::string adamw = ValueIn(kAdamW, key);
  const bool chooses = key.path == "loss.objective" || key.path.rfind("loss.regularize.", 0) == 0;  // written above
  for (const auto& text : {Differing(key, kOptimizers), chooses ? "" : Differing(key, kObjectives)}) {
    if (!text.empty()) return text;
  }
  if (ValueIn(kLonger, key) != adamw) return "";  // it follows the length, as the comment says
  if (!adamw.empty() || key.field->is_repeated() || key.field->has_presence()) return adamw;
  return key.field->cpp_type() == FieldDescriptor::CPPTYPE_STRING ? "\"\"" : "0";
}

// What the resolver says it expects in place of the value `wrong`.
std::string Expected(const std::string& key, const std::string& wrong) {
  const std::string path = OfTheFirst(key);
  for (const char* job : {kAdamW, kLars, kLarc, kBarlow, kByol, kPerView, kBranches, kWaves}) {
    std::istringstream lines{std::string(recipe::ResolveText(job, "job", {path + "=" + wrong}).status().message())};
    for (std::string line; std::getline(lines, line);) {
      // "job: FIELD: found ...; expected ...", where FIELD may be an item of the key or the map that it belongs to.
      const std::string field = line.substr(5, line.find(": ", 5) - 5);
      const bool about = field.rfind(path, 0) == 0 || path.rfind(field + ".", 0) == 0;
      const std::size_t expected = line.find("expected ");
      if (!about || expected == std::string::npos) continue;
      const std::string text = line.substr(expected + 9);
      return text.substr(0, text.find_first_of(":;"));
    }
  }
  return "";
}

std::string AcceptedBy(const Key& key) {
  const FieldDescriptor& field = *key.field;
  if (IsMap(field)) return "";
  if (field.is_repeated()) return Expected(key.path, "[-1]") + " each";
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return Expected(key.path, "'?'");
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return Expected(key.path, "-1 steps") + " steps, or epochs " + Expected(key.path, "-1 epochs");
    case FieldDescriptor::CPPTYPE_UINT64:
      return "0 to 18446744073709551615";
    case FieldDescriptor::CPPTYPE_ENUM: {
      std::string all;
      for (int i = 1; i < field.enum_type()->value_count(); ++i)
        all += (i > 1 ? ", " : "") + Lower(ShortName(*field.enum_type()->value(i)));
      return all;
    }
    default:
      return Expected(key.path, "-2000000000");
  }
}

std::string Cell(const std::string& text) { return " " + text + (text.empty() ? "|" : " |"); }

std::string Page() {
  std::string page = R"(# Job file

One training job in YAML or JSON, at most 256 KiB of UTF-8. `scripts/reference` writes this page from
[`job.proto`](../../proto/vicreg/v1/job.proto) and from what the resolver answers; a test fails when it is out of date.

```yaml
)" + *ReadFile(kExample) +
                     R"(```

- Keys are checked strictly: unknown and repeated keys, quoted numbers, NaN, infinity, anchors, aliases, tags and a second
  document are errors. All errors are shown at once, each as `file:line:column: key: found ...; expected ...`.
- `--set key=value` overrides one key, named as below; the value is YAML: `--set optimizer.lr=2e-3`, `--set 'expander=[512, 512]'`.
  Of a list that the file holds it overrides one item: `--set 'loss.per_view[0].variance=3'`; below, `[]` stands for any of them.
- A **length** is `30 steps`, `10 epochs`, `{steps: 30}` or `{epochs: 10}`. `world_size: 2` is short for `{min: 2, max: 2}`.
- `preset` fills the keys that the file leaves out. A list replaces the preset's list; naming an `optimizer.name` drops the
  preset's rate with its optimizer, naming another `loss.objective` the preset's coefficients, `branches` its network and
  augmentation, an encoder of waveforms or vectors its augmentation.

## Keys

The column demo-cpu holds the value under `preset: demo-cpu` where it differs from the default.

| key | type | accepts | default | demo-cpu | meaning |
|---|---|---|---|---|---|
)";
  for (const Key& key : Keys()) {
    const std::string usual = DefaultOf(key),
                      demo = IsMap(*key.field) || key.path == "preset" ? "" : ValueIn(kDemo, key);
    const bool differs = demo != "required" && demo != usual && !demo.empty();
    page += "|" + Cell("`" + key.path + "`") + Cell(TypeOf(*key.field)) + Cell(AcceptedBy(key)) + Cell(usual) +
            Cell(differs ? demo : "") + Cell(CommentOf(*key.field)) + "\n";
  }
  page += "\n## Names\n";
  for (const Key& key : Keys()) {
    if (key.field->cpp_type() != FieldDescriptor::CPPTYPE_ENUM) continue;
    const EnumDescriptor& type = *key.field->enum_type();
    const std::string about = CommentOf(type);
    page += "\n`" + key.path + "`" + (about.empty() ? "" : ": " + about) + "\n\n";
    for (int i = 1; i < type.value_count(); ++i) {
      const std::string comment = CommentOf(*type.value(i));
      page += "- `" + Lower(ShortName(*type.value(i))) + "`" + (comment.empty() ? "" : ": " + comment) + "\n";
    }
  }
  return page;
}

TEST(JobReference, IsUpToDate) {
  const std::string page = Page();
  if (std::getenv("VICREG_WRITE_REFERENCE") != nullptr) {
    std::ofstream(kPage) << page;
    return;
  }
  const auto found = ReadFile(kPage);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, page) << "run scripts/reference";
}

TEST(JobReference, EveryKeyHasACommentAndSaysWhatItAccepts) {
  for (const Key& key : Keys()) {
    EXPECT_NE(CommentOf(*key.field), "") << key.path << " needs a comment in job.proto";
    EXPECT_EQ(AcceptedBy(key).empty(), IsMap(*key.field)) << key.path;
  }
}

// Comments may repeat a default ("Default 0.07."), for those who read job.proto; then it is the true one.
TEST(JobReference, DefaultsInCommentsAreTheResolvers) {
  int checked = 0;
  for (const Key& key : Keys()) {
    const std::string comment = CommentOf(*key.field), usual = DefaultOf(key);
    std::size_t at = comment.find("efault ");
    if (at == std::string::npos || usual.empty()) continue;
    std::string said = comment.substr(at + 7);
    if (said.rfind("from the preset", 0) == 0) continue;
    said.erase(std::remove(said.begin(), said.end(), '"'), said.end());
    const std::string want = usual == "\"\"" ? "." : usual;
    EXPECT_EQ(said.substr(0, want.size()), want) << key.path << ": " << comment;
    ++checked;
  }
  EXPECT_GT(checked, 20);
}

}  // namespace
}  // namespace vicreg
