// Goal: `vicreg-train objective` answers what the specification's golden values say, for any ranks and split; refuses
// bad input in one line that names the field, and then writes nothing; its reference page holds what --help prints.
// Method: the program, run as a user would.

#include <ATen/ATen.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "common/files.h"
#include "worker/train/checkpoint/safetensors.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct Result {
  int status = -1;
  std::string out, err;
};

class ObjectiveTool : public ::testing::Test {
 protected:
  ObjectiveTool() {
    std::string pattern = (fs::temp_directory_path() / "vicreg-objective-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~ObjectiveTool() override { fs::remove_all(root_); }

  // `files`: how many it may open; 0: as many as this process.
  Result Run(const std::vector<std::string>& words, int files = 0) {
    const std::string program = std::string(VICREG_BINARY_DIR) + "/vicreg-train", out = root_ + "/out",
                      err = root_ + "/err";
    const std::string shell = "/bin/sh", lower = "ulimit -n " + std::to_string(files) + " && exec \"$0\" \"$@\"";
    std::vector<char*> argv;
    if (files > 0) argv = {const_cast<char*>(shell.c_str()), const_cast<char*>("-c"), const_cast<char*>(lower.c_str())};
    argv.push_back(const_cast<char*>(program.c_str()));
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    for (const auto& [number, path] : {std::pair{STDOUT_FILENO, out}, {STDERR_FILENO, err}}) {
      posix_spawn_file_actions_addopen(&actions, number, path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    }
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ), 0) << program;
    posix_spawn_file_actions_destroy(&actions);
    int status = -1;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, *ReadFile(out), *ReadFile(err)};
  }

  Result Objective(const std::vector<std::string>& more, int files = 0) {
    std::vector<std::string> words = {"objective", "--input", Input(), "--output", Output()};
    words.insert(words.end(), more.begin(), more.end());
    return Run(words, files);
  }

  void Write(const std::vector<NamedTensor>& tensors) { WriteBytes(SafetensorsBytes(tensors)); }
  void WriteBytes(const std::string& bytes) { ASSERT_TRUE(WriteFileAtomically(Input(), bytes).ok()); }

  std::map<std::string, at::Tensor> Gradients() {
    std::map<std::string, at::Tensor> tensors;
    for (const NamedTensor& t : ParseSafetensors(*ReadFile(Output()))) tensors[t.name] = t.value;
    return tensors;
  }

  std::string Input() const { return root_ + "/pair.safetensors"; }
  std::string Output() const { return root_ + "/gradient.safetensors"; }

  std::string root_;
};

at::Tensor Matrix(std::initializer_list<double> values, int64_t columns) {
  return at::tensor(std::vector<double>(values), at::kDouble).reshape({-1, columns});
}

// The golden values of the specification; worked out by hand in objective_test.cc.
const at::Tensor& GoldenX() {
  static const at::Tensor x = Matrix({1, 0, 2, 0, 1, 0, -1, 1, -2, 0, -2, 0}, 3) / 2;
  return x;
}
const at::Tensor& GoldenY() {
  static const at::Tensor y = Matrix({1, 1, 1, 0, 0, -1, -1, 0, -1, 0, -1, 1}, 3) / 2;
  return y;
}
constexpr double kVarianceX = 0.355964649736702, kVarianceY = 0.535273880531179, kCovarianceX = 7.0 / 72,
                 kCovarianceY = 5.0 / 216;

TEST_F(ObjectiveTool, GoldenValuesForAnyRanksSplitAndForm) {
  Write({{"x", GoldenX()}, {"y", GoldenY()}});
  const struct {
    std::vector<std::string> words;
    double loss;
    const char* form;
    std::vector<int64_t> rows;
  } rows[] = {
      {{}, 15.4275186653855, "covariance", {4}},
      {{"--convention", "authors", "--ranks", "2"}, 15.4275186653855, "covariance", {2, 2}},
      {{"--convention", "paper", "--ranks", "3", "--form", "gram"}, 26.5680002937340, "gram", {1, 1, 2}},
      {{"--convention", "vicregl", "--ranks", "3", "--split", "1,0,3"}, 15.3673334802004, "covariance", {1, 0, 3}},
      {{"--ranks", "4", "--split", "0,4,0,0", "--form", "gram"}, 15.4275186653855, "gram", {0, 4, 0, 0}},
      {{"--ranks", "6"}, 15.4275186653855, "covariance", {0, 1, 1, 0, 1, 1}},
      {{"--lambda", "1", "--mu", "0", "--nu", "0"}, 1.0 / 6, "covariance", {4}},
      {{"--lambda", "0", "--mu", "2", "--nu", "3"},
       kVarianceX + kVarianceY + 3 * (kCovarianceX + kCovarianceY),
       "covariance",
       {4}},
      {{"--convention", "per_view", "--lambda", "0", "--mu", "2,3", "--nu", "5,7"},
       2 * kVarianceX + 3 * kVarianceY + 5 * kCovarianceX + 7 * kCovarianceY,
       "covariance",
       {4}},
      {{"--convention", "per_view", "--mu", "12.5", "--nu", "1"}, 15.4275186653855, "covariance", {4}},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(::testing::PrintToString(row.words));
    fs::remove(Output());
    const Result result = Objective(row.words);
    ASSERT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1);
    const nlohmann::json json = nlohmann::json::parse(result.out);
    EXPECT_NEAR(json.at("loss").get<double>(), row.loss, 1e-13 * std::max(1.0, row.loss));
    EXPECT_NEAR(json.at("invariance").get<double>(), 1.0 / 6, 1e-13);
    EXPECT_NEAR(json.at("variance").get<double>(), kVarianceX + kVarianceY, 1e-13);
    EXPECT_NEAR(json.at("covariance").get<double>(), kCovarianceX + kCovarianceY, 1e-13);
    EXPECT_EQ(json.at("form"), row.form);
    EXPECT_EQ(json.at("rows"), row.rows);
    const auto gradients = Gradients();
    ASSERT_EQ(gradients.size(), 2u);
    EXPECT_EQ(gradients.at("gx").sizes(), GoldenX().sizes());
    if (row.loss != 15.4275186653855) continue;
    const at::Tensor want_x = at::tensor({-1.55237631461311, -2.17592592592593, 0.456500427048063}, at::kDouble);
    const at::Tensor want_y = at::tensor({-1.64496890720570, 0.401327389090599, -3.24892897573369}, at::kDouble);
    EXPECT_LT((gradients.at("gx")[0] - want_x).abs().max().item<double>(), 1e-13);
    EXPECT_LT((gradients.at("gy")[0] - want_y).abs().max().item<double>(), 1e-13);
  }
}

TEST_F(ObjectiveTool, CountsWhatOneRankSends) {
  Write({{"x", GoldenX()}, {"y", GoldenY()}});
  const struct {
    const char *ranks, *form;
    int collectives, bytes;
  } rows[] = {{"1", "gram", 0, 0},
              {"2", "covariance", 2, 16 + 2 * 3 * (8 + 8) + 2 * 3 * 3 * 8},
              {"2", "gram", 3, 16 + 2 * 3 * (8 + 8) + 2 * 2 * 3 * 8 + 2 * 8}};
  for (const auto& row : rows) {
    const nlohmann::json json = nlohmann::json::parse(Objective({"--ranks", row.ranks, "--form", row.form}).out);
    EXPECT_EQ(json.at("collectives"), row.collectives);
    EXPECT_EQ(json.at("collectives_in_backward"), 0);
    EXPECT_EQ(json.at("bytes"), row.bytes);
  }
}

TEST_F(ObjectiveTool, SinglePrecisionStaysSingleAndWithinItsRounding) {
  Write({{"x", GoldenX().to(at::kFloat)}, {"y", GoldenY().to(at::kFloat)}});
  const Result result = Objective({"--ranks", "16"});
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_NEAR(nlohmann::json::parse(result.out).at("loss").get<double>(), 15.4275186653855, 1e-6 * 15);
  EXPECT_EQ(Gradients().at("gy").scalar_type(), at::kFloat);
}

TEST_F(ObjectiveTool, SixtyFourRanksGiveTheSameNumbers) {
  Write({{"x", GoldenX()}, {"y", GoldenY()}});
  rlimit files{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  const Result result = Objective({"--ranks", "64"});
  if (files.rlim_max < 4608) {
    EXPECT_EQ(result.status, 2) << "64 ranks with " << files.rlim_max << " open files";
    EXPECT_THAT(result.err, HasSubstr("needs about 4608 open files"));
    return;
  }
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_NEAR(nlohmann::json::parse(result.out).at("loss").get<double>(), 15.4275186653855, 1e-12 * 15);
}

TEST_F(ObjectiveTool, MoreRanksThanThereAreOpenFilesForAreRefused) {
  Write({{"x", GoldenX()}, {"y", GoldenY()}});
  const Result most = Objective({"--ranks", "12"}, 300);
  EXPECT_EQ(most.status, 0) << most.err;
  const Result refused = Objective({"--ranks", "64"}, 300);
  EXPECT_EQ(refused.status, 2);
  EXPECT_EQ(
      refused.err,
      "error: --ranks: found 64, which needs about 4608 open files, and this process may have 300; expected at most "
      "12 here, or raise the limit (ulimit -Hn)\n");
}

TEST_F(ObjectiveTool, BadInputIsOneLineThatNamesTheField) {
  const at::Tensor x = GoldenX(), y = GoldenY();
  at::Tensor nan = y.clone(), infinite = x.clone();
  nan[2][1].fill_(std::numeric_limits<double>::quiet_NaN());
  infinite[3][0].fill_(std::numeric_limits<double>::infinity());
  const std::vector<NamedTensor> good = {{"x", x}, {"y", y}};
  const struct {
    std::vector<NamedTensor> tensors;
    std::vector<std::string> words;
    const char* message;
  } rows[] = {
      {{{"x", x.narrow(0, 0, 1)}, {"y", y.narrow(0, 0, 1)}}, {}, "x: shape [1, 3]; expected at least 2 rows"},
      {{{"x", x.narrow(0, 0, 0)}, {"y", y.narrow(0, 0, 0)}}, {}, "x: shape [0, 3]; expected at least 2 rows"},
      {{{"x", x.narrow(1, 0, 0)}, {"y", y.narrow(1, 0, 0)}}, {}, "x: shape [4, 0]; expected D of at least 1"},
      {{{"x", x.flatten()}, {"y", y}}, {}, "x: shape [12]; expected [rows, D]"},
      {{{"x", x}, {"y", y.narrow(1, 0, 2)}}, {}, "y: shape [4, 2]; expected [4, 3], that of x"},
      {{{"x", x}, {"y", y.narrow(0, 0, 3)}}, {}, "y: shape [3, 3]; expected [4, 3], that of x"},
      {{{"x", x}, {"y", y.to(at::kFloat)}}, {}, "y: dtype float32; expected float64, that of x"},
      {{{"x", x.to(at::kLong)}, {"y", y}}, {}, "x: dtype int64; expected float32 or float64"},
      {{{"x", x}, {"y", nan}}, {}, "y: row 2, column 1 (from 0) is nan"},
      {{{"x", infinite}, {"y", y}}, {}, "x: row 3, column 0 (from 0) is inf"},
      {{{"x", x * 1e200}, {"y", y}}, {}, "x, y: the invariance term is too large for float64"},
      {{{"x", x}}, {}, "y: no such tensor"},
      {{{"y", y}}, {}, "x: no such tensor"},
      {good, {"--ranks", "0"}, "--ranks: found 0; expected 1 to 64"},
      {good, {"--ranks", "-2"}, "--ranks: found -2; expected 1 to 64"},
      {good, {"--ranks", "65"}, "--ranks: found 65; expected 1 to 64"},
      {good, {"--ranks", "two"}, "--ranks"},
      {good, {"--ranks", "2", "--split", "3,2"}, "--split: parts add up to 5; expected 4"},
      {good, {"--ranks", "2", "--split", "5,-1"}, "--split: found a part of 5 rows"},
      {good, {"--ranks", "2", "--split", "-1,4"}, "--split: found a part of -1 rows"},
      {good, {"--ranks", "3", "--split", "2,2"}, "--split: found 2 parts; expected 3"},
      {good, {"--ranks", "2", "--split", "2,"}, "--split: found \"\"; expected numbers"},
      {good, {"--ranks", "2", "--split", "2,2x"}, "--split: found \"2x\"; expected numbers"},
      {good, {"--lambda", "-1"}, "--lambda: found -1; expected a number from 0"},
      {good, {"--mu", "-0.5"}, "--mu: found -0.5; expected a number from 0"},
      {good, {"--nu", "nan"}, "--nu: found nan; expected a number from 0"},
      {good, {"--mu", "inf"}, "--mu: found inf; expected a number from 0"},
      {good, {"--mu", "1,2"}, "--mu: found 2 numbers; expected one with convention authors"},
      {good, {"--convention", "per_view", "--nu", "1,2,3"}, "--nu: found 3 numbers; expected one, or two"},
      {good, {"--convention", "per_view", "--nu", "1,-2"}, "--nu: found -2; expected a number from 0"},
      {good, {"--convention", "ours"}, "--convention: found \"ours\"; expected authors, paper, vicregl or per_view"},
      {good, {"--form", "ring"}, "--form: found \"ring\"; expected auto, gram or covariance"},
      {good, {"--bogus"}, "--bogus"},
  };
  ASSERT_TRUE(WriteFileAtomically(Output(), "as it was").ok());
  for (const auto& row : rows) {
    SCOPED_TRACE(row.message);
    Write(row.tensors);
    const Result result = Objective(row.words);
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, ::testing::StartsWith("error: "));
    EXPECT_THAT(result.err, HasSubstr(row.message));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_EQ(*ReadFile(Output()), "as it was");
  }
}

TEST_F(ObjectiveTool, UnusableFilesAreNamed) {
  const auto expect = [&](const Result& result, const std::string& message) {
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, HasSubstr(message));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_FALSE(fs::exists(Output()));
  };
  expect(Objective({}), "--input: ");
  expect(Objective({}), Input());
  WriteBytes("not safetensors");
  expect(Objective({}), "--input: " + Input() + ": header of ");
  std::string half = SafetensorsBytes({{"x", GoldenX()}, {"y", GoldenY()}});
  for (const char* name : {"F16", "F64"}) half.replace(half.find("F64"), 3, name);
  WriteBytes(half);
  expect(Objective({}), "tensor x has dtype F16");
  Write({{"x", GoldenX()}, {"y", GoldenY()}});
  const Result result = Run({"objective", "--input", Input(), "--output", root_ + "/no/such/folder"});
  expect(result, "--output: ");
  EXPECT_THAT(result.err, HasSubstr(root_ + "/no/such/folder"));
  EXPECT_EQ(result.out, "");
  expect(Run({"objective", "--input", Input()}), "--output");
}

// Every fenced block of the page that starts with a command holds what that command prints.
TEST_F(ObjectiveTool, ReferencePageHoldsTheUsageText) {
  const std::string page = *ReadFile(VICREG_SOURCE_DIR "/docs/reference/vicreg-train.md");
  for (const std::string command : {"", "run", "objective", "evaluate"}) {
    SCOPED_TRACE(command);
    const Result help =
        Run(command.empty() ? std::vector<std::string>{"--help"} : std::vector<std::string>{command, "--help"});
    EXPECT_EQ(help.status, 0);
    const std::string block =
        "```text\n$ vicreg-train " + command + (command.empty() ? "" : " ") + "--help\n" + help.out;
    EXPECT_NE(page.find(block.substr(0, block.find_last_not_of('\n') + 1) + "\n```"), std::string::npos)
        << "docs/reference/vicreg-train.md should hold\n"
        << block;
  }
}

}  // namespace
}  // namespace vicreg::train
