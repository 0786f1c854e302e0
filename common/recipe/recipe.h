#pragma once

// What remains of a job spec when everything is resolved: plain numbers, no protobuf, no torch. The trainer reads
// nothing else. Two jobs with the same Recipe are the same experiment, whatever their world size or queue.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vicreg::recipe {

enum class Objective { kVicreg, kBarlowTwins, kSimSiam, kByol };
enum class Convention { kAuthors, kPaper, kVicregl, kPerView };
enum class DataFormat { kIdx, kNpy };
enum class LossForm { kAuto, kGram, kCovariance };
enum class RegularizeOn { kRaw, kL2 };
enum class Stem { kSmall, kStandard, kSmallPadding2 };
enum class ExpanderNorm { kBatchNorm, kNone };
enum class EmbeddingNorm { kRaw, kL2, kStd };
enum class Precision { kFp32, kBf16, kFp16 };
enum class OptimizerKind { kAdamW, kLars, kLarc, kSgd };

struct Data {
  std::string root;             // name, resolved to a folder by the worker
  std::string path;             // subfolder, "" for the root itself
  std::string split = "train";  // "train" or "test"
  std::int64_t limit = 0;       // 0: all
  int channels = 1;             // of one value: see Branch::channels
  DataFormat format = DataFormat::kIdx;
  std::string part = "image";  // which part of a sample is read, where there are no branches
};

struct Encoder {
  std::string name = "tiny";  // one of Encoders() (networks.h)
  Stem stem = Stem::kSmall;   // ResNets
  int width = 64;             // ResNets: channels of the first stage; mlp: of every layer
  bool zero_init_residual = true;
};

// VICReg's variance and covariance terms beside another objective, as weights of each view.
struct Regularize {
  double variance = 0, covariance = 0;
  RegularizeOn on = RegularizeOn::kRaw;
};

// Of the variance and the covariance term of one view, as they are applied.
struct ViewWeights {
  double mu = 12.5, nu = 1;
};

// Only for kVicreg: convention, and lambda, mu and nu: `mu` and `nu` are per view, after the convention was applied
// (branches have their own); lambda multiplies the mean squared difference. Only for others: what follows `form`.
struct Loss {
  Objective objective = Objective::kVicreg;
  Convention convention = Convention::kAuthors;
  double lambda_ = 25, mu_per_view = 12.5, nu_per_view = 1;
  std::vector<ViewWeights> per_view;  // one for each view; not empty: then mu_per_view and nu_per_view say nothing
  LossForm form = LossForm::kAuto;
  double redundancy = 0;           // kBarlowTwins
  std::int64_t predictor = 0;      // kSimSiam, kByol: hidden width; 0: no predictor
  std::optional<double> momentum;  // kByol: of the target, at the first step; absent: there is no target
  Regularize regularize;
};

struct Optimizer {
  OptimizerKind kind = OptimizerKind::kAdamW;
  double peak_lr = 1e-3;  // all but adamw: base_lr * batch_size / 256
  double weight_decay = 1e-4;
  double eta = 0.02;  // larc
  bool clip = true;   // larc
};

// Lengths that were given in epochs need the sample count, which only the rank knows: then `epochs` > 0 and `steps` is
// 0.
struct Length {
  std::int64_t steps = 0;
  double epochs = 0;
};

// Whole steps; an epoch is `samples / batch_size` steps (the last, short batch is dropped). At least `least`.
std::int64_t InSteps(const Length& length, std::int64_t samples, std::int64_t batch_size, std::int64_t least);

struct Schedule {
  Length warmup;
  double final_fraction = 0;
};

struct Augmentation {
  std::string preset = "cifar";  // images: "cifar", waveforms: "wave", vectors: "vector"; all: "none"
  int size = 28;  // images: pixels, side of a view; waveforms: values of a view; vectors: 0, a view has all of them
};

// One view of a sample, where views differ in more than their random draws: what it is made of and which network it
// passes through.
struct Branch {
  std::string name;            // [a-z0-9-]; names its tensors and its encoder's file. "": the only network of its job
  std::string part = "image";  // of the sample
  bool shared = false;         // passes the first branch's network; encoder, expander and channels are the first's
  Encoder encoder;
  std::vector<std::int64_t> expander;
  int channels = 1;          // of an image or waveform; of a vector the number of its values
  double mu = 12.5, nu = 1;  // after the convention was applied
  Augmentation augmentation;
};

struct Knn {
  bool enabled = false;
  Length every{0, 1};
  int k = 20;
  double temperature = 0.07;
};

struct Recipe {
  std::uint64_t seed = 1;
  Data data;
  Encoder encoder;
  std::vector<std::int64_t> expander;
  int views = 2;
  // One view each, in view order. Not empty: then `encoder`, `expander`, `views`, `augmentation`, data.channels,
  // data.part and the loss's weights per view say nothing.
  std::vector<Branch> branches;
  ExpanderNorm expander_norm = ExpanderNorm::kBatchNorm;
  EmbeddingNorm embedding_norm = EmbeddingNorm::kRaw;
  Loss loss;
  std::int64_t batch_size = 256;  // global rows N
  Length length{300, 0};
  Optimizer optimizer;
  Schedule schedule;
  Augmentation augmentation;
  std::int64_t accumulate = 1;             // parts that a rank's rows pass the network in; not part of the experiment
  Precision precision = Precision::kFp32;  // of encoder and expander; statistics, loss and parameters stay fp32
  Length checkpoint_every{100, 0};
  int checkpoint_keep = 3;
  Knn knn;
};

// Every view of a sample, in view order, however the job lists them: its branches, or `views` times one network. The
// first is never shared.
std::vector<Branch> Views(const Recipe& recipe);

// The views whose network is not another's: one for each encoder of the job. Their places among Views are in order.
std::vector<Branch> Networks(const Recipe& recipe);

// mu and nu of each of `views` views. Two views: kAuthors mu/2 and nu, kPaper mu and nu, kVicregl mu/2 and nu/2 each;
// with more, the sum of their weights stays what it is with two. kPerView: as they are.
ViewWeights WeightsPerView(Convention convention, double mu, double nu, int views);

// Where an export keeps the encoder of a branch: "encoder.safetensors", "encoder-<branch>.safetensors".
std::string EncoderFile(const std::string& branch);

}  // namespace vicreg::recipe
