// vicreg-bench-step SIDE: one rank of a training run on the trainer's own Learner, from batches in memory. SIDE is the
// JSON object that peer_step.py gets too (compare.py says what is in it). Reads lines: "losses K" takes K steps and
// answers the loss before each; "step K" takes K steps and answers what they cost; "weights PATH" has rank 0 write
// the tensors of the model. Answers one JSON line each. Batch norm is over the rank's own rows, as Python's has to be
// on a CPU.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "bench/measure.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/data/order.h"
#include "worker/train/distributed/process_group.h"
#include "worker/train/host_memory.h"
#include "worker/train/learner.h"
#include "worker/train_cli/file_store.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;

constexpr std::int64_t kBatches = 2;  // that steps take in turn

recipe::Recipe RecipeOf(const json& side) {
  recipe::Recipe r;
  r.encoder.name = "resnet18";
  r.encoder.stem = recipe::Stem::kStandard;
  r.data.channels = side.at("channels");
  r.augmentation.size = side.at("size");
  r.batch_size = side.at("rows");
  r.expander = side.at("expander").get<std::vector<std::int64_t>>();
  r.optimizer = {recipe::OptimizerKind::kAdamW, side.at("learning_rate"), side.at("weight_decay")};
  r.precision = side.at("precision") == "bf16" ? recipe::Precision::kBf16 : recipe::Precision::kFp32;
  return r;
}

// Own rows of batch `index`: two views of correlation 0.8.
train::Batch MakeBatch(const recipe::Recipe& r, const train::RowRange& own, std::int64_t index) {
  const std::int64_t row = std::int64_t{r.data.channels} * r.augmentation.size * r.augmentation.size,
                     all = r.batch_size * row, count = (own.end - own.begin) * row;
  const auto place = [&](std::int64_t view) {
    return static_cast<std::uint64_t>((2 * index + view) * all + own.begin * row);
  };
  const at::Tensor x = Noise(place(0), count), y = 0.8 * x + 0.6 * Noise(place(1), count);
  const at::Tensor views = at::cat({x, y}).to(at::kFloat);
  train::Batch batch;
  batch.rows = own.end - own.begin;
  batch.views.assign(views.const_data_ptr<float>(), views.const_data_ptr<float>() + 2 * count);
  return batch;
}

train::Group Connect(const json& side) {
  train::ProcessGroupOptions options;
  options.rank = side.at("rank");
  options.world_size = side.at("ranks");
  if (options.world_size == 1) return {};
  return train::Group(train::MakeProcessGroup(std::make_shared<train::FileStore>(side.at("folder")), options),
                      options.rank, options.world_size);
}

class Rank {
 public:
  explicit Rank(const json& side)
      : recipe_(RecipeOf(side)),
        rate_(recipe_.optimizer.peak_lr),
        group_(Connect(side)),
        learner_(recipe_, group_, at::kCPU,
                 {.bucket_bytes = side.value("bucket_bytes", train::GradientReducer::kBucketBytes),
                  .own_rows_norms = true}) {
    const train::RowRange own = train::RowsOfRank(recipe_.batch_size, group_.rank(), group_.size());
    for (std::int64_t i = 0; i < kBatches; ++i) batches_.push_back(MakeBatch(recipe_, own, i));
  }

  json Answer(const std::string& command, const std::string& argument) {
    if (command == "losses") return Losses(std::stoi(argument));
    if (command == "step") return Steps(std::stoi(argument));
    if (command == "weights") return Weights(argument);
    throw std::invalid_argument("no command " + command);
  }

 private:
  double Step() {
    train::Batch& batch = batches_[static_cast<std::size_t>(steps_ % kBatches)];
    ++steps_;
    return learner_.Learn(batch, rate_, steps_, std::numeric_limits<std::int64_t>::max()).terms.loss;
  }
  json Losses(int count) {
    std::vector<double> losses;
    for (int i = 0; i < count; ++i) losses.push_back(Step());
    return {{"losses", losses}};
  }
  json Steps(int count) {
    ResetPeak();
    const auto begin = std::chrono::steady_clock::now();
    const double cpu = CpuSeconds();
    double loss = 0;
    for (int i = 0; i < count; ++i) loss = Step();
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return {{"wall", wall / count},
            {"cpu", (CpuSeconds() - cpu) / count},
            {"rss_bytes", Memory("VmRSS:")},
            {"peak_bytes", Memory("VmHWM:")},
            {"loss", loss}};
  }
  json Weights(const std::string& path) {
    if (group_.rank() != 0) return json::object();
    std::ofstream out(path, std::ios::binary);
    out << train::SafetensorsBytes(learner_.model());
    if (!out.flush()) throw std::runtime_error("cannot write " + path);
    return {{"tensors", learner_.model().size()}};
  }

  const recipe::Recipe recipe_;
  const double rate_;
  train::Group group_;
  train::Learner learner_;
  std::vector<train::Batch> batches_;
  std::int64_t steps_ = 0;
};

int Serve(const json& side) {
  at::set_num_threads(side.at("threads"));
  train::KeepFreedMemory();
  train::ConfigureCollectives();
  Rank rank(side);
  std::cout << json{{"capability", at::get_cpu_capability()},
                    {"threads", at::get_num_threads()},
                    {"cpu", CpuSeconds()},
                    {"rss_bytes", Memory("VmRSS:")},
                    {"peak_bytes", Memory("VmHWM:")}}
            << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, argument;
    words >> command >> argument;
    std::cout << rank.Answer(command, argument) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace vicreg::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: vicreg-bench-step SIDE   (see scripts/bench)\n";
    return 2;
  }
  return vicreg::bench::Serve(nlohmann::json::parse(argv[1]));
}
