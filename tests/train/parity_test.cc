// Goal: how many processes train a job changes nothing but the rounding: gradients, parameters and running statistics
// are those of one process with the whole batch, through SyncBN, the sharded loss and c10d's Reducer. Method: real
// processes over Gloo. This program starts itself as the ranks of a small double-precision job, where rounding cannot
// hide a fault; and `vicreg-train run` is run as a user would, in its single precision. Known faults must fail the
// comparison.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/files.h"
#include "common/recipe/networks.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/data/order.h"
#include "worker/train/distributed/gradient_reducer.h"
#include "worker/train/model/model.h"
#include "worker/train/optim/optimizer.h"
#include "worker/train_cli/file_store.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, at::Tensor>;

constexpr int kRows = 10, kSide = 12, kSteps = 3;  // over three ranks: 3, 3 and 4 rows

at::Tensor Images(int step, int view) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(10 * step + 1));
  const at::Tensor sample = at::empty({kRows, 1, kSide, kSide}, at::kDouble).normal_(0.2, 1, generator);
  at::Tensor noise = at::zeros_like(sample);
  for (int v = 0; v < view; ++v) noise = 0.5 * at::empty_like(sample).normal_(0, 1, generator);
  return sample + noise;
}

// The parts beside the network too: a predictor, a target, terms of regularisation; "three_views": vicreg of three,
// each with weights of its own.
recipe::Loss LossOf(const std::string& objective) {
  recipe::Loss loss;
  if (objective == "three_views") {
    loss.convention = recipe::Convention::kPerView;
    loss.per_view = {{12.5, 1}, {25, 0.5}, {3, 2}};
  } else if (objective == "barlow_twins") {
    loss.objective = recipe::Objective::kBarlowTwins;
    loss.redundancy = 0.0051;
    loss.regularize = {1, 0.01, recipe::RegularizeOn::kRaw};
  } else if (objective == "simsiam") {
    loss.objective = recipe::Objective::kSimSiam;
    loss.predictor = 12;
    loss.regularize = {1, 0.01, recipe::RegularizeOn::kL2};
  } else if (objective == "byol") {
    loss.objective = recipe::Objective::kByol;
    loss.predictor = 12;
    loss.momentum = 0.9;
  }
  return loss;
}

// Three modalities of a sample, each with a network and weights of its own.
std::vector<recipe::Branch> ThreeModalities() {
  return {{"photo", "image", false, {"tiny"}, {48, 40}, 1, 10, 2, {"none", kSide}},
          {"sound", "wave", false, {"resnet1d18", recipe::Stem::kSmall, 8}, {40}, 1, 20, 1, {"none", kSide}},
          {"facts", "vector", false, {"mlp", recipe::Stem::kSmall, 24}, {48, 40}, kSide * kSide, 5, 0.5, {"none", 0}}};
}

// What of `image` a view is of: all of it, its columns' sums, its pixels in a row.
at::Tensor Modality(const recipe::Branch& view, const at::Tensor& image) {
  switch (recipe::InputOf(view)) {
    case recipe::Input::kImages:
      return image;
    case recipe::Input::kWaveforms:
      return image.sum(2);
    case recipe::Input::kVectors:
      return image.flatten(1);
  }
  return image;
}

// One rank's whole life in its own process: kSteps of the trainer's step, in double precision. Writes
// rank-<r>.safetensors. `mode`: "double", "float", or a fault: "factor" (grad_scale 1), "norm" (batch norm over own
// rows).
void RunRank(const std::string& folder, int rank, int world_size, const std::string& objective_name,
             const std::string& mode) {
  at::set_num_threads(1);
  Group group;
  if (world_size > 1) {
    ProcessGroupOptions options;
    options.rank = rank;
    options.world_size = world_size;
    options.timeout = std::chrono::seconds(30);
    group = Group(MakeProcessGroup(std::make_shared<FileStore>(folder), options), rank, world_size);
  }
  recipe::Recipe recipe;
  recipe.encoder.name = "tiny";
  recipe.expander = {48, 48, 40};
  recipe.loss = LossOf(objective_name);
  if (objective_name == "three_views") recipe.views = 3;
  if (objective_name == "branches") recipe.branches = ThreeModalities();
  const std::vector<recipe::Branch> views = recipe::Views(recipe);
  const at::ScalarType dtype = mode == "float" ? at::kFloat : at::kDouble;
  Model model(recipe, dtype);
  const auto objective = MakeObjective(recipe);
  const std::vector<NamedTensor>& trained = model.parameters().trained();
  std::vector<at::Tensor> parameters;
  for (const NamedTensor& p : trained) parameters.push_back(p.value);
  const auto optimizer = MakeOptimizer(recipe.optimizer, trained);
  GradientReducer reducer(parameters, group);
  Group alone;
  const RowRange own = RowsOfRank(kRows, rank, world_size);
  std::vector<NamedTensor> results;
  at::Tensor losses = at::zeros({kSteps}, at::kDouble);
  for (int step = 0; step < kSteps; ++step) {
    std::vector<at::Tensor> images;
    for (std::size_t v = 0; v < views.size(); ++v) {
      const at::Tensor image = Images(step, static_cast<int>(v)).slice(0, own.begin, own.end);
      images.push_back(Modality(views[v], image).to(dtype));
    }
    Group& of_norm = mode == "norm" ? alone : group;
    Embedded batch = model.Forward(images, of_norm);
    batch.targets = model.Targets(images, of_norm);
    const double scale = mode == "factor" ? 1 : group.size();
    const LossResult result = objective->Loss(batch, group, scale);
    losses[step] = result.terms.loss;
    optimizer->ZeroGrad();
    reducer.Prepare(result.loss);
    result.loss.backward();
    if (step == 0) {
      for (const NamedTensor& p : trained) results.push_back({"gradient." + p.name, p.value.grad().clone()});
    }
    optimizer->Step(1e-3, step + 1);
    model.Updated(step + 1, kSteps);
  }
  for (const NamedTensor& p : model.parameters().all()) results.push_back({"after." + p.name, p.value.detach()});
  for (const NamedTensor& t : model.TargetState()) results.push_back({"after." + t.name, t.value.detach()});
  results.push_back({"losses", losses});
  const auto written =
      WriteFileAtomically(folder + "/rank-" + std::to_string(rank) + ".safetensors", SafetensorsBytes(results));
  if (!written.ok()) throw std::runtime_error(std::string(written.message()));
}

struct Process {
  pid_t pid = -1;
  std::string log;
};

// Standard output goes to the file `output`, standard error to `output`.log.
Process Start(const std::string& program, const std::vector<std::string>& words, const std::string& output) {
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  Process process{-1, output + ".log"};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const auto& [number, path] : {std::pair{STDOUT_FILENO, output}, {STDERR_FILENO, process.log}}) {
    posix_spawn_file_actions_addopen(&actions, number, path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  }
  EXPECT_EQ(posix_spawn(&process.pid, program.c_str(), &actions, nullptr, argv.data(), environ), 0) << program;
  posix_spawn_file_actions_destroy(&actions);
  return process;
}

void ExpectSuccess(const Process& process) {
  int status = -1;
  EXPECT_EQ(waitpid(process.pid, &status, 0), process.pid);
  EXPECT_EQ(status, 0) << ReadFile(process.log).value_or("no log");
}

Tensors Read(const std::string& path) {
  const auto bytes = ReadFile(path);
  if (!bytes.ok()) throw std::runtime_error(std::string(bytes.status().message()));
  Tensors tensors;
  for (const NamedTensor& t : ParseSafetensors(*bytes)) tensors[t.name] = t.value;
  return tensors;
}

class ParityTest : public ::testing::Test {
 protected:
  ParityTest() {
    std::string pattern = (fs::temp_directory_path() / "vicreg-parity-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~ParityTest() override { fs::remove_all(root_); }

  // What rank 0 wrote; the others must have written the same bits, but for the running statistics of a faulty norm.
  Tensors RunRanks(int world_size, const std::string& mode = "double", const std::string& objective = "vicreg") {
    const std::string folder = root_ + "/" + objective + "-" + mode + "-" + std::to_string(world_size);
    fs::create_directory(folder);
    std::vector<Process> ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      const std::string number = std::to_string(rank);
      ranks.push_back(Start("/proc/self/exe", {"rank", folder, number, std::to_string(world_size), objective, mode},
                            folder + "/" + number));
    }
    for (const Process& rank : ranks) ExpectSuccess(rank);
    const Tensors first = Read(folder + "/rank-0.safetensors");
    for (int rank = 1; rank < world_size && (mode == "double" || mode == "float"); ++rank) {
      for (const auto& [name, value] : Read(folder + "/rank-" + std::to_string(rank) + ".safetensors")) {
        EXPECT_TRUE(at::equal(value, first.at(name))) << name << " of rank " << rank << " is not rank 0's";
      }
    }
    return first;
  }

  std::string root_;
};

// Of all tensors whose name starts so, taken as one long vector: a bias before a batch norm, whose gradient is 0,
// weighs nothing.
double RelativeError(const Tensors& got, const Tensors& want, const std::string& prefix) {
  double difference = 0, size = 0;
  for (const auto& [name, value] : want) {
    if (!name.starts_with(prefix) || !value.is_floating_point()) continue;
    difference += (got.at(name) - value).to(at::kDouble).square().sum().item<double>();
    size += value.to(at::kDouble).square().sum().item<double>();
  }
  EXPECT_GT(size, 0) << prefix;
  return std::sqrt(difference / size);
}

TEST_F(ParityTest, RanksInDoublePrecisionEqualOneProcess) {
  for (const std::string objective : {"vicreg", "three_views", "branches", "barlow_twins", "simsiam", "byol"}) {
    const Tensors one = RunRanks(1, "double", objective);
    for (const int world_size : {2, 3, 4}) {
      SCOPED_TRACE(objective + ", " + std::to_string(world_size) + " ranks");
      const Tensors many = RunRanks(world_size, "double", objective);
      EXPECT_EQ(many.size(), one.size());
      EXPECT_LE(RelativeError(many, one, "gradient."), 1e-10);
      // The first layer is below every batch norm, and small in the whole.
      if (objective == "branches") {
        for (const char* first : {"photo.encoder.conv1", "sound.encoder.conv1", "facts.encoder.0"})
          EXPECT_LE(RelativeError(many, one, std::string("gradient.") + first), 1e-10) << first;
      } else {
        EXPECT_LE(RelativeError(many, one, "gradient.encoder.conv1"), 1e-10);
      }
      // AdamW divides by the size of a gradient, also where it is all rounding.
      EXPECT_LE(RelativeError(many, one, "after."), 1e-10);
      EXPECT_LE(RelativeError(many, one, "losses"), 1e-12);
      if (objective == "byol") {
        EXPECT_LE(RelativeError(many, one, "after.target."), 1e-10);
      }
    }
  }
}

TEST_F(ParityTest, RanksInSinglePrecisionStayWithinItsRounding) {
  const Tensors one = RunRanks(1);
  for (const int world_size : {1, 2, 3}) {
    SCOPED_TRACE(std::to_string(world_size) + " ranks");
    const Tensors rounded = RunRanks(world_size, "float");
    EXPECT_LE(RelativeError(rounded, one, "gradient."), 1e-5);
    EXPECT_GT(RelativeError(rounded, one, "gradient."), 1e-8);  // single precision indeed
  }
}

// Negative controls, by the same comparison.
TEST_F(ParityTest, ForgottenFactorAndUnsynchronisedNormAreFound) {
  const Tensors one = RunRanks(1);
  EXPECT_NEAR(RelativeError(RunRanks(2, "factor"), one, "gradient."), 0.5, 1e-9);
  EXPECT_NEAR(RelativeError(RunRanks(3, "factor"), one, "gradient."), 2.0 / 3, 1e-9);
  const Tensors own_norm = RunRanks(2, "norm");
  EXPECT_GT(RelativeError(own_norm, one, "gradient."), 1e-2);
  EXPECT_GT(RelativeError(own_norm, one, "after."), 1e-5);
}

// `vicreg-train run` on the committed images.
class TrainProgram : public ParityTest {
 protected:
  struct Run {
    std::vector<nlohmann::json> rows;
    std::string checkpoints;
  };

  Run Train(const std::string& name, int ranks, std::vector<std::string> sets) {
    const std::string folder = root_ + "/" + name, source = VICREG_SOURCE_DIR,
                      program = std::string(VICREG_BINARY_DIR) + "/vicreg-train";
    fs::create_directory(folder);
    std::vector<std::string> words = {"run",         source + "/examples/fashion-mnist.yaml",
                                      "--ranks",     std::to_string(ranks),
                                      "--output",    folder,
                                      "--data-root", "fashion-mnist=" + source + "/tests/fixtures/fashion-mnist"};
    sets.insert(sets.end(), {"data.limit=256", "expander=[64,64,64]", "batch_size=50", "schedule.warmup=0 steps",
                             "evaluation.knn.every=100 steps"});
    for (const std::string& set : sets) words.insert(words.end(), {"--set", set});
    ExpectSuccess(Start(program, words, folder + "/rows"));
    Run run{{}, folder + "/default/fashion-mnist/a1/step-"};
    std::istringstream lines(*ReadFile(folder + "/rows"));
    for (std::string line; std::getline(lines, line);) run.rows.push_back(nlohmann::json::parse(line));
    return run;
  }
};

double Relative(const nlohmann::json& got, const nlohmann::json& want, const char* key) {
  return std::abs(got.at(key).get<double>() / want.at(key).get<double>() - 1);
}

TEST_F(TrainProgram, TwoAndThreeRanksTrainWhatOneTrains) {
  const std::vector<std::string> sets = {"length.steps=3", "checkpoint.every=1 steps"};
  const Run one = Train("one", 1, sets);
  ASSERT_EQ(one.rows.size(), 3u);
  for (const int ranks : {2, 3}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    const Run many = Train(std::to_string(ranks), ranks, sets);
    ASSERT_EQ(many.rows.size(), 3u);
    for (const char* key : {"loss", "invariance", "variance", "covariance", "z_std_mean"}) {
      EXPECT_LE(Relative(many.rows[0], one.rows[0], key), 1e-5) << key;
    }
    EXPECT_LE(Relative(many.rows[0], one.rows[0], "grad_norm"), 1e-5);
    // After one step AdamW's first moment is a tenth of the gradient.
    const Tensors want = Read(one.checkpoints + "1/optimizer.safetensors"),
                  got = Read(many.checkpoints + "1/optimizer.safetensors");
    for (const char* layer : {"conv2", "conv3", "conv4"}) {
      EXPECT_LE(RelativeError(got, want, std::string("encoder.") + layer + ".weight.exp_avg"), 1e-5) << layer;
    }
    for (const char* layer : {"0", "1", "2"}) {
      EXPECT_LE(RelativeError(got, want, std::string("expander.") + layer + ".linear.weight.exp_avg"), 1e-5) << layer;
    }
    // Most pixels are background, one constant, and the gradient below a batch norm sums to 0: what is left of their
    // products is rounding. LibTorch's own batch norm in one process is 9e-5 away from double precision here.
    EXPECT_LE(RelativeError(got, want, "encoder.conv1.weight.exp_avg"), 1e-3);
    // AdamW turns the sign of a rounding error into a step; what the network computes stays.
    EXPECT_LE(Relative(many.rows[2], one.rows[2], "loss"), 1e-3);
  }
}

TEST_F(TrainProgram, ThreeViewsOverTwoRanksAreThoseOfOne) {
  const std::vector<std::string> sets = {"views=3", "length.steps=2", "checkpoint.every=1 steps"};
  const Run one = Train("one", 1, sets), two = Train("two", 2, sets), pair = Train("pair", 1, {"length.steps=1"});
  ASSERT_EQ(one.rows.size(), 2u);
  ASSERT_EQ(two.rows.size(), 2u);
  for (const char* key : {"loss", "invariance", "variance", "covariance", "z_std_mean", "grad_norm"})
    EXPECT_LE(Relative(two.rows[0], one.rows[0], key), 1e-5) << key;
  const Tensors want = Read(one.checkpoints + "1/optimizer.safetensors"),
                got = Read(two.checkpoints + "1/optimizer.safetensors");
  EXPECT_LE(RelativeError(got, want, "encoder.conv4.weight.exp_avg"), 1e-5);
  EXPECT_LE(RelativeError(got, want, "expander.2.linear.weight.exp_avg"), 1e-5);
  // One more hinge in the sum, of a network that has not learned yet, and another pair in the mean.
  EXPECT_NEAR(one.rows[0].at("variance").get<double>() / pair.rows[0].at("variance").get<double>(), 1.5, 0.05);
  EXPECT_NE(one.rows[0].at("invariance"), pair.rows[0].at("invariance"));
}

// A step in parts is the step, whoever takes it: over two ranks of 25 rows, in parts of 8 and 9, and over three with
// more parts than rows; the last part alone meets the reducer. The network has no batch norm.
TEST_F(TrainProgram, PartsOfAStepAddUpToTheStep) {
  for (const char* objective : {"vicreg", "byol"}) {
    SCOPED_TRACE(objective);
    const auto train = [&](const std::string& name, int ranks, const char* parts) {
      return Train(std::string(objective) + "-" + name, ranks,
                   {"loss={objective: " + std::string(objective) + "}", "encoder={name: vit_ti16}",
                    "augmentation.size=16", "expander_norm=none", "optimizer={name: sgd, base_lr: 0.1}",
                    "length.steps=2", "checkpoint.every=1 steps", std::string("accumulate=") + parts});
    };
    const Run whole = train("whole", 1, "1"), parts = train("parts", 2, "3"), rows = train("rows", 3, "50");
    ASSERT_EQ(whole.rows.size(), 2u);
    const Tensors want = Read(whole.checkpoints + "2/model.safetensors");
    for (const Run* run : {&parts, &rows}) {
      ASSERT_EQ(run->rows.size(), 2u);
      for (const char* key : {"loss", "invariance", "z_std_mean", "grad_norm"}) {
        EXPECT_LE(Relative(run->rows[0], whole.rows[0], key), 1e-5) << key;
        EXPECT_LE(Relative(run->rows[1], whole.rows[1], key), 1e-4) << key;
      }
      EXPECT_LE(RelativeError(Read(run->checkpoints + "2/model.safetensors"), want, ""), 1e-5);
    }
  }
}

TEST_F(TrainProgram, ConventionsWeighTheTermsAsStated) {
  const struct {
    const char* convention;
    double variance, covariance;  // per view, of mu = 25 and nu = 1
  } rows[] = {{"authors", 12.5, 1}, {"paper", 25, 1}, {"vicregl", 12.5, 0.5}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.convention);
    const Run run = Train(row.convention, 1, {"length.steps=1", std::string("loss.convention=") + row.convention});
    ASSERT_EQ(run.rows.size(), 1u);
    const auto value = [&](const char* key) { return run.rows[0].at(key).get<double>(); };
    EXPECT_NEAR(value("invariance_weighted"), 25 * value("invariance"), 1e-9);
    EXPECT_NEAR(value("variance_weighted"), row.variance * value("variance"), 1e-9);
    EXPECT_NEAR(value("covariance_weighted"), row.covariance * value("covariance"), 1e-9);
    EXPECT_NEAR(value("loss"), value("invariance_weighted") + value("variance_weighted") + value("covariance_weighted"),
                1e-9);
  }
}

}  // namespace
}  // namespace vicreg::train

// With `rank FOLDER RANK WORLD_SIZE OBJECTIVE MODE` this program is one rank.
int main(int argc, char** argv) {
  if (argc == 7 && std::string(argv[1]) == "rank") {
    try {
      vicreg::train::RunRank(argv[2], std::stoi(argv[3]), std::stoi(argv[4]), argv[5], argv[6]);
      return 0;
    } catch (const std::exception& error) {
      std::cerr << "rank " << argv[3] << ": " << error.what() << "\n";
      return 1;
    }
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
