// Goal: a job file means exactly what it says, or every mistake in it is named with the place where it stands.
// Method: tables of one mistake each; a job with every key set goes through JSON and comes back equal; some thousand
// examples, damaged from a fixed seed, either parse or name a problem inside the file.

#include "common/spec/spec.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "common/files.h"
#include "common/recipe/resolve.h"

namespace vicreg::spec {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::util::MessageDifferencer;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// One line per problem: "line:column field: text".
std::vector<std::string> Lines(const std::vector<Problem>& problems) {
  std::vector<std::string> lines;
  for (const Problem& p : problems) {
    lines.push_back(std::to_string(p.mark.line) + ":" + std::to_string(p.mark.column) + " " + p.field + ": " + p.text);
  }
  return lines;
}

std::vector<std::string> ProblemsOf(const std::string& text, const std::vector<std::string>& sets = {}) {
  return Lines(ParseJobWithMarks(text, sets).problems);
}

v1::JobSpec Parse(const std::string& text, const std::vector<std::string>& sets = {}) {
  Parsed parsed = ParseJobWithMarks(text, sets);
  EXPECT_THAT(Lines(parsed.problems), IsEmpty()) << text;
  return parsed.spec;
}

std::vector<std::filesystem::path> Examples() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(VICREG_SOURCE_DIR "/examples")) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Every key there is; the lengths in all their forms.
constexpr char kEveryKey[] = R"(
name: every-key
project: vision
queue: night
priority: -7
preset: demo-cpu
seed: 18446744073709551615
world_size: {min: 2, max: 4}
placement: {labels: [rack=r1, cpu=zen4], topology: rack, required: true}
device: gpu
data: {root: fashion-mnist, path: a/b, format: idx, split: test, limit: 1099511627776, channels: 3, part: image}
encoder: {name: resnet18, stem: standard, width: 32, zero_init_residual: false}
expander: [1, 2048, 65536]
expander_norm: none
embedding_norm: l2
loss: {objective: vicreg, convention: vicregl, lambda: 0.1, mu: 2.5e-7, nu: 0, form: covariance, redundancy: 0.0051, predictor: 512,
  momentum: 0.996, regularize: {variance: 1, covariance: 0.01}, regularize_on: l2,
  per_view: [{variance: 12.5, covariance: 1}, {variance: 0, covariance: 2.5e-7}]}
views: 16
branches:
  - {name: a, part: b, weights: own, encoder: {name: resnet1d18, stem: small, width: 8, zero_init_residual: true}, expander: [8],
     channels: 2, mu: 0, nu: 2.5e-7, augmentation: {preset: wave, size: 16}}
batch_size: 1048576
accumulate: 4
length: 1.5 epochs
optimizer: {name: lars, lr: 1.0e-3, base_lr: .2, weight_decay: 0, eta: 0.02, clip: true}
schedule: {warmup: {epochs: 0.1}, final: 0.001}
augmentation: {preset: none, size: 512}
precision: fp32
checkpoint: {every: 1 step, keep: 1000}
evaluation: {knn: {every: {steps: 100}, k: 1, temperature: 0.07}}
restart: {charges: 0, never: true}
deadline: 12h
)";

// Paths of the fields that `message` leaves unset; of a oneof, one member is enough.
void Unset(const Message& message, const std::string& path, std::vector<std::string>& out) {
  const auto& type = *message.GetDescriptor();
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string name = path + field.name();
    const auto* oneof = field.real_containing_oneof();
    const bool set = field.is_repeated()    ? reflection.FieldSize(message, &field) > 0
                     : oneof != nullptr     ? reflection.HasOneof(message, oneof)
                     : field.has_presence() ? reflection.HasField(message, &field)
                                            : true;
    if (!set) out.push_back(name);
    if (set && !field.is_repeated() && field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Unset(reflection.GetMessage(message, &field), name + ".", out);
    }
  }
}

TEST(JobFile, BooleansAreTrueAndFalseAlone) {
  EXPECT_TRUE(Parse("optimizer: {clip: true}").optimizer().clip());
  const v1::JobSpec off = Parse("optimizer: {clip: false}");
  EXPECT_TRUE(off.optimizer().has_clip());
  EXPECT_FALSE(off.optimizer().clip());
  for (const std::string bad : {"yes", "1", "True", "\"true\"", "[true]", "{}"}) {
    EXPECT_THAT(ProblemsOf("optimizer: {clip: " + bad + "}"),
                ElementsAre(AllOf(StartsWith("1:19 optimizer.clip: found"), HasSubstr("expected true or false"))))
        << bad;
  }
}

TEST(JobFile, OneMistakeIsNamedWithLineColumnAndField) {
  const struct {
    const char* rule;
    std::string text;
    const char* where;  // "line:column field: "
    const char* part;
  } rows[] = {
      {"unknown key, near a known one", "name: x\nbatch_sise: 4\n", "2:1 batch_sise: ", "did you mean \"batch_size\"?"},
      {"unknown key inside a map", "name: x\nloss: {mu: 1, lamda: 1}\n",
       "2:15 loss.lamda: ", "did you mean \"lambda\"?"},
      {"unknown key, near nothing", "optimizer: {momentum: 0.9}\n",
       "1:13 optimizer.momentum: ", "known here: name, lr, base_lr, weight_decay"},
      {"keys are case-sensitive", "Name: x\n", "1:1 Name: ", "did you mean \"name\"?"},
      {"key twice", "seed: 1\nname: x\nseed: 2\n", "3:1 seed: ", "the first is on line 1"},
      {"key twice inside a map", "data: {root: a,\n  root: b}\n", "2:3 data.root: ", "the first is on line 1"},
      {"key that is a list", "[a, b]: 1\n", "1:1 : ", "unknown key"},
      {"anchor", "name: &a x\n", "1:7 : ", "anchor"},
      {"tag", "seed: !!int 1\n", "1:7 : ", "tag"},
      {"tag of a program's own", "name: !exec x\n", "1:7 : ", "tag"},
      {"several documents", "name: x\n---\nname: y\n", "3:1 : ", "second YAML document"},
      {"key without a value", "name: x\nproject:\nqueue: q\n", "2:1 project: ", "found no value; expected a string"},
      {"key with null", "project: null\n", "1:1 project: ", "found no value; expected a string"},
      {"a list as a file", "- name\n", "1:1 : ", "found a list; expected a map of keys"},
      {"a value as a file", "hello\n", "1:1 : ", "found \"hello\"; expected a map of keys"},
      {"word for a whole number", "batch_size: many\n", "1:13 batch_size: ", "found \"many\"; expected a whole number"},
      {"fraction for a whole number", "batch_size: 2.5\n", "1:13 batch_size: ", "expected a whole number"},
      {"exponent for a whole number", "batch_size: 1e3\n", "1:13 batch_size: ", "expected a whole number"},
      {"hexadecimal", "batch_size: 0x10\n", "1:13 batch_size: ", "expected a whole number"},
      {"underscores", "batch_size: 1_000\n", "1:13 batch_size: ", "expected a whole number"},
      {"more than 64 bits", "batch_size: 9223372036854775808\n", "1:13 batch_size: ", "expected a whole number"},
      {"more than 32 bits", "priority: 2147483648\n", "1:11 priority: ", "expected a whole number"},
      {"negative seed", "seed: -1\n", "1:7 seed: ", "expected a whole number"},
      {"seed of more than 64 bits", "seed: 18446744073709551616\n", "1:7 seed: ", "expected a whole number"},
      {"quoted whole number", "seed: \"1\"\n", "1:7 seed: ", "remove the quotes"},
      {"quoted number", "loss: {nu: '1.5'}\n", "1:12 loss.nu: ", "remove the quotes"},
      {"quoted number of ranks", "world_size: \"2\"\n", "1:13 world_size: ", "remove the quotes"},
      {"quoted item", "expander: [8, \"16\"]\n", "1:15 expander[1]: ", "remove the quotes"},
      {"not a number", "loss: {mu: .nan}\n", "1:12 loss.mu: ", "expected a number"},
      {"not a number, spelt as C does", "loss: {mu: nan}\n", "1:12 loss.mu: ", "expected a number"},
      {"infinity", "loss: {mu: .inf}\n", "1:12 loss.mu: ", "expected a number"},
      {"minus infinity", "loss: {mu: -inf}\n", "1:12 loss.mu: ", "expected a number"},
      {"number beyond all doubles", "loss: {mu: 1e999}\n", "1:12 loss.mu: ", "expected a number"},
      {"hexadecimal number", "loss: {mu: 0x1p3}\n", "1:12 loss.mu: ", "expected a number"},
      {"lone sign", "loss: {mu: -}\n", "1:12 loss.mu: ", "expected a number"},
      {"map for a number", "loss: {mu: {a: 1}}\n", "1:12 loss.mu: ", "found a map; expected a number"},
      {"list for a string", "name: [a]\n", "1:7 name: ", "found a list; expected a string"},
      {"value for a list", "expander: 1024\n", "1:11 expander: ", "expected a list, such as"},
      {"word in a list", "expander: [8, big, 8]\n", "1:15 expander[1]: ", "found \"big\"; expected a whole number"},
      {"list in a list", "expander: [8, [8]]\n", "1:15 expander[1]: ", "found a list; expected a whole number"},
      {"value for a map", "data: fashion-mnist\n", "1:7 data: ", "expected a map of keys"},
      {"unknown name", "loss: {convention: author}\n",
       "1:20 loss.convention: ", "expected one of authors, paper, vicregl, per_view; did you mean \"authors\"?"},
      {"the enum's own name", "device: DEVICE_CPU\n", "1:9 device: ", "expected one of cpu, gpu"},
      {"no name at all", "device: unspecified\n", "1:9 device: ", "expected one of cpu, gpu"},
      {"number for a name", "device: 1\n", "1:9 device: ", "expected one of cpu, gpu"},
      {"word for ranks", "world_size: all\n", "1:13 world_size: ", "expected a whole number of ranks"},
      {"ranks beyond 32 bits", "world_size: 4294967297\n", "1:13 world_size: ", "expected a whole number of ranks"},
      {"unknown unit", "length: 30 minutes\n", "1:9 length: ", "expected a length such as \"30 steps\""},
      {"fraction of a step", "length: 1.5 steps\n", "1:9 length: ", "expected a length"},
      {"two spaces", "length: 30  steps\n", "1:9 length: ", "expected a length"},
      {"length without a number", "length: steps\n", "1:9 length: ", "expected a length"},
      {"infinite length", "length: inf epochs\n", "1:9 length: ", "expected a length"},
      {"both units", "length: {steps: 30, epochs: 2}\n", "1:29 length.epochs: ", "given beside steps"},
      {"control character by escape", "name: \"a\\x07b\"\n", "1:7 : ", "control character"},
      {"control character as it is", "name: a\x07z\n", "1:8 : ", "control character"},
      {"end-of-transmission does not end the file", "name: a\n# \x04\nbatch_sise: 1\n", "2:3 : ", "control character"},
      {"zero byte", std::string("name: a\n") + '\0' + "seed: 2\n", "2:1 : ", "control character"},
      {"delete", "name: a\n#\x7f\n", "2:2 : ", "control character"},
      {"bytes that are not UTF-8", "name: a\nproject: b\xff\n", "2:11 : ", "not UTF-8"},
      {"half a character", "name: a\xc3\n", "1:8 : ", "not UTF-8"},
      {"overlong character", "name: a\xc0\xaf\n", "1:8 : ", "not UTF-8"},
      {"long string", "name: " + std::string(4097, 'a') + "\n", "1:7 : ", "string of 4097 bytes; the limit is 4096"},
      {"long file", std::string(256 * 1024 + 1, '#'), "1:1 : ", "the limit is 256 KiB"},
      {"empty file", "", "1:1 : ", "the file is empty"},
      {"only a comment", "# nothing\n", "1:1 : ", "the file is empty"},
      {"not YAML", "name: x\nloss: {mu: 1\n", "3:1 : ", "not YAML"},
      {"tab as indentation", "data:\n\troot: x\n", "2:6 : ", "not YAML"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.rule);
    EXPECT_THAT(ProblemsOf(r.text), ElementsAre(AllOf(StartsWith(r.where), HasSubstr(r.part))));
  }
}

TEST(JobFile, AliasIsRefusedWhereItStands) {
  EXPECT_THAT(ProblemsOf("name: &a x\nproject: *a\n"),
              testing::IsSupersetOf({HasSubstr("1:7 : found a YAML anchor"), HasSubstr("2:10 : found a YAML alias")}));
}

TEST(JobFile, LimitsAreReachedButNotPassed) {
  EXPECT_THAT(ProblemsOf("name: " + std::string(4096, 'a')), IsEmpty());
  const std::string body = "name: x\n#";
  EXPECT_THAT(ProblemsOf(body + std::string(256 * 1024 - body.size(), '#')), IsEmpty());
  // 16 levels: the file's map and 15 lists.
  const std::string deep = std::string(15, '[') + std::string(15, ']');
  EXPECT_THAT(ProblemsOf("expander: " + deep), ElementsAre(HasSubstr("found a list; expected a whole number")));
  EXPECT_THAT(ProblemsOf("expander: [" + deep + "]"),
              testing::Contains(HasSubstr("1:26 : nested deeper than 16 levels")));
  std::string items = "1";
  for (int i = 1; i < 10000; ++i) items += ",1";
  EXPECT_EQ(Parse("expander: [" + items + "]").expander_size(), 10000);
  EXPECT_THAT(ProblemsOf("expander: [" + items + ",1]"), ElementsAre(HasSubstr("more than 10000 items")));
}

TEST(JobFile, NestingWithoutEndIsAnErrorAndNotAStackOverflow) {
  for (const std::string unit : {"[", "{a: ", "- ", "? ", "a: [", "[{"}) {
    std::string text;
    while (text.size() + unit.size() < 200 * 1024) text += unit;
    EXPECT_THAT(ProblemsOf(text), Not(IsEmpty())) << unit;
  }
}

TEST(JobFile, AllMistakesAreNamedAtOnceInFileOrder) {
  const std::string text =
      "nmae: x\n"
      "seed: one\n"
      "data:\n"
      "  root: [r]\n"
      "  limt: 3\n"
      "loss: {mu: nan, form: grm}\n"
      "seed: 2\n";
  EXPECT_THAT(ProblemsOf(text),
              ElementsAre(HasSubstr("1:1 nmae: unknown key"), HasSubstr("2:7 seed: found \"one\""),
                          HasSubstr("4:9 data.root: found a list"), HasSubstr("5:3 data.limt: unknown key"),
                          HasSubstr("6:12 loss.mu: found \"nan\""), HasSubstr("6:23 loss.form: found \"grm\""),
                          HasSubstr("7:1 seed: key appears twice")));
  const auto status = ParseJob(text, "job.yaml").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::count(status.message().begin(), status.message().end(), '\n'), 6);
  EXPECT_EQ(status.message().find("job.yaml:1:1: nmae: unknown key"), 0u);
}

TEST(JobFile, MessageIsOneLinePerProblemWhateverTheKeyHolds) {
  const auto status = ParseJob("\"a\\nb\\e[2J\": 1\n", "job.yaml").status();
  EXPECT_FALSE(status.ok());
  for (const char c : std::string(status.message())) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20);
  EXPECT_EQ(std::count(status.message().begin(), status.message().end(), '\n'), 1) << status.message();
}

TEST(JobFile, ShorthandsMeanTheirLongForms) {
  const struct {
    const char *brief, *full;
  } rows[] = {
      {"world_size: 2", "world_size: {min: 2, max: 2}"},
      {"length: 30 steps", "length: {steps: 30}"},
      {"length: 1 step", "length: {steps: 1}"},
      {"length: 30", "length: {steps: 30}"},
      {"length: 10 epochs", "length: {epochs: 10}"},
      {"length: 0.5 epoch", "length: {epochs: 0.5}"},
      {"length: \"10 epochs\"", "length: {epochs: 10}"},
      {"schedule: {warmup: 3 steps}", "schedule: {warmup: {steps: 3}}"},
      {"evaluation: {knn: {every: 2 epochs}}", "evaluation:\n  knn:\n    every:\n      epochs: 2.0"},
  };
  for (const auto& r : rows) {
    EXPECT_TRUE(MessageDifferencer::Equals(Parse(r.brief), Parse(r.full))) << r.brief;
  }
}

TEST(JobFile, ZeroAndAbsentDifferWhereZeroIsAValue) {
  EXPECT_TRUE(Parse("loss: {nu: 0}").loss().has_nu());
  EXPECT_FALSE(Parse("loss: {mu: 0}").loss().has_nu());
  EXPECT_TRUE(Parse("seed: 0").has_seed());
  EXPECT_TRUE(Parse("restart: {charges: 0}").restart().has_charges());
}

TEST(JobFile, RestartNeverIsShortForItsMap) {
  EXPECT_TRUE(Parse("restart: never").restart().never());
  EXPECT_FALSE(Parse("restart: {charges: 3}").restart().never());
  EXPECT_THAT(Format(ParseJobWithMarks("restart: always").problems, "f"), HasSubstr("expected never, or a map"));
}

TEST(ParseTime, IsAWholeNumberAndItsUnit) {
  using std::chrono::seconds;
  EXPECT_EQ(ParseTime("90s"), seconds(90));
  EXPECT_EQ(ParseTime("30m"), seconds(1800));
  EXPECT_EQ(ParseTime("12h"), seconds(43200));
  EXPECT_EQ(ParseTime("7d"), seconds(604800));
  for (const char* bad : {"", "h", "12", "1.5h", "-1h", " 1h", "1 h", "1w", "9999999999d", "99999999999999999999s"})
    EXPECT_EQ(ParseTime(bad), std::nullopt) << bad;
}

TEST(JobFile, JsonIsReadToo) {
  const v1::JobSpec want =
      Parse("name: x\ndata: {root: r, limit: 8}\nexpander: [4, 8]\nlength: 3 epochs\ndevice: cpu\nloss: {mu: 1.0e-3}");
  const char* json =
      "{\"name\": \"x\",\n\t\"data\": {\"root\": \"r\", \"limit\": 8}, \"expander\": [4, 8],\r\n"
      " \"length\": {\"epochs\": 3}, \"device\": \"cpu\", \"loss\": {\"mu\": 1E-3}}\n";
  EXPECT_TRUE(MessageDifferencer::Equals(Parse(json), want));
  EXPECT_THAT(ProblemsOf("{\"name\": \"x\",\n  \"batch_size\": \"256\"}"),
              ElementsAre(HasSubstr("2:17 batch_size: found the string \"256\"")));
}

TEST(Overrides, ReplaceAndAddValuesInOrder) {
  const v1::JobSpec spec = Parse("name: a\nworld_size: 2\nlength: 30 steps\nexpander: [1, 2]",
                                 {"name=b", "loss.mu=3", "loss.nu=0.5", "expander=[7]", "length=2 epochs", "seed=5",
                                  "seed=6", "data={root: r}", "data.path=p"});
  EXPECT_TRUE(MessageDifferencer::Equals(spec, Parse("name: b\nworld_size: 2\nlength: 2 epochs\nexpander: [7]\nloss: "
                                                     "{mu: 3, nu: 0.5}\nseed: 6\ndata: {root: r, path: p}")));
  EXPECT_EQ(Parse("world_size: 2", {"world_size.min=3", "world_size.max=3"}).world_size().max(), 3);
  EXPECT_EQ(Parse("name: a", {"data.path=a=b"}).data().path(), "a=b");
}

TEST(Overrides, MistakesNameTheOverrideAndNoLineOfTheFile) {
  const struct {
    const char *set, *part;
  } rows[] = {
      {"batch_sise=4", "0:0 batch_sise: unknown key; did you mean \"batch_size\"?"},
      {"seed=many", "0:0 seed: found \"many\"; expected a whole number"},
      {"batch_size=many", "0:0 batch_size: found \"many\"; expected a whole number"},
      {"batch_size=\"4\"", "remove the quotes"},
      {"batch_size", "0:0 : --set batch_size: expected field.path=value"},
      {"=4", "0:0 : --set =4: expected field.path=value"},
      {"project=", "0:0 project: "},
      {"name=[a", "0:0 name: not YAML"},
      {"name=&a x", "0:0 name: found a YAML anchor"},
      {"name.first=x", "0:0 name: found a map; expected a string"},
      {"loss..mu=1", "0:0 loss.: "},
  };
  for (const auto& r : rows) EXPECT_THAT(ProblemsOf("seed: 1\n", {r.set}), ElementsAre(HasSubstr(r.part))) << r.set;
  // Names the command line, not a place in the file.
  EXPECT_THAT(std::string(ParseJob("seed: 1", "job.yaml", {"seed=x"}).status().message()),
              HasSubstr("job.yaml: seed: found"));
}

TEST(Overrides, FileThatCannotBeReadIsStillOneProblem) {
  EXPECT_THAT(ProblemsOf("loss: {mu: 1\n", {"name=x"}), ElementsAre(HasSubstr("not YAML")));
  const auto status = recipe::ResolveText("loss: {mu: 1\n", "job.yaml", {"name=x"}).status();
  EXPECT_THAT(std::string(status.message()), AllOf(StartsWith("job.yaml:2:1: not YAML"), Not(HasSubstr("\n"))));
}

TEST(ToJson, JobWithEveryKeyComesBackEqual) {
  const v1::JobSpec spec = Parse(kEveryKey);
  std::vector<std::string> unset;
  Unset(spec, "", unset);
  EXPECT_THAT(unset, IsEmpty()) << "add the keys to kEveryKey";
  const nlohmann::ordered_json json = ToJson(spec);
  EXPECT_EQ(json["seed"], 18446744073709551615u);
  EXPECT_EQ(json["loss"]["convention"], "vicregl");
  EXPECT_EQ(json["world_size"]["max"], 4);
  for (const int indent : {-1, 2}) {
    EXPECT_TRUE(MessageDifferencer::Equals(Parse(json.dump(indent)), spec)) << json.dump(indent);
  }
}

TEST(ToJson, ExamplesComeBackEqualAsWrittenAndAsResolved) {
  ASSERT_THAT(Examples(), Not(IsEmpty()));
  for (const auto& file : Examples()) {
    SCOPED_TRACE(file);
    const std::string text = *ReadFile(file);
    const v1::JobSpec spec = Parse(text);
    EXPECT_TRUE(MessageDifferencer::Equals(Parse(ToJson(spec).dump()), spec));
    const auto resolved = recipe::ResolveText(text, file.filename());
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_TRUE(MessageDifferencer::Equals(Parse(ToJson(resolved->spec).dump()), resolved->spec));
    EXPECT_THAT(resolved->warnings, IsEmpty()) << "an example should be a good example";
  }
}

TEST(ToJson, EqualRanksAreOneNumber) {
  EXPECT_EQ(ToJson(Parse("world_size: 3")).dump(), R"({"world_size":3})");
  EXPECT_EQ(ToJson(Parse("world_size: {min: 1, max: 3}")).dump(), R"({"world_size":{"min":1,"max":3}})");
}

TEST(DamagedJobFile, ParsesOrNamesAProblemInsideTheFile) {
  constexpr unsigned kSeed = 20260701;
  constexpr int kRounds = 4000;
  const std::string kSpice =
      "{}[]:,-?&*!|>'\"%@`#~\\ \n\t\r\x04\x7f\xff\xc3\0"
      "0159.eE+_";
  std::mt19937_64 random(kSeed);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  std::vector<std::string> seeds = {kEveryKey, ToJson(Parse(kEveryKey)).dump()};
  for (const auto& file : Examples()) seeds.push_back(*ReadFile(file));
  int good = 0, bad = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::string text = seeds[below(seeds.size())];
    for (std::size_t edits = below(2) == 0 ? 1 : 1 + below(4); edits > 0 && !text.empty(); --edits) {
      const std::size_t at = below(text.size());
      const std::size_t digit = text.find_first_of("0123456789", at);
      switch (below(6)) {
        case 0:
          text[at] = static_cast<char>(below(256));
          break;
        case 1:
          text[at] = kSpice[below(kSpice.size())];
          break;
        case 2:
          text.insert(at, 1, kSpice[below(kSpice.size())]);
          break;
        case 3:
          text.erase(at, 1 + below(8));
          break;
        case 4:
          text.insert(at, text.substr(below(text.size()), below(40)));
          break;
        case 5:
          if (digit != std::string::npos) text[digit] = static_cast<char>('0' + below(10));
          break;
      }
    }
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round) + ":\n" + text);
    const Parsed parsed = ParseJobWithMarks(text);
    const auto resolved = recipe::ResolveText(text, "job.yaml");
    if (parsed.problems.empty()) {
      ++good;
      EXPECT_TRUE(MessageDifferencer::Equals(Parse(ToJson(parsed.spec).dump()), parsed.spec));
    } else {
      ++bad;
      EXPECT_FALSE(resolved.ok());
    }
    const int lines =
        1 + static_cast<int>(std::count(text.begin(), text.end(), '\n') + std::count(text.begin(), text.end(), '\r'));
    for (const Problem& p : parsed.problems) {
      EXPECT_FALSE(p.text.empty());
      EXPECT_TRUE(p.mark.line >= 1 && p.mark.line <= lines && p.mark.column >= 1) << Format({p}, "job.yaml");
    }
    if (HasFailure()) break;
  }
  // Damage that never matters, or always does, would test nothing.
  EXPECT_GT(good, kRounds / 20);
  EXPECT_GT(bad, kRounds / 4);
}

TEST(Nearest, IsAtMostTwoSlipsAway) {
  EXPECT_EQ(Nearest("lamda", {"mu", "lambda", "nu"}), "lambda");
  EXPECT_EQ(Nearest("lamdba", {"lambda"}), "lambda");
  EXPECT_EQ(Nearest("ambd", {"lambda"}), "lambda");
  EXPECT_EQ(Nearest("amb", {"lambda"}), "");
  EXPECT_EQ(Nearest("xy", {"mu"}), "") << "nothing of the word is left";
  EXPECT_EQ(Nearest("", {"mu"}), "");
}

}  // namespace
}  // namespace vicreg::spec
