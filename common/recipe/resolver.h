#pragma once

// Inside common/recipe: how a JobSpec becomes a Recipe. One class, its methods in one file per idea: resolve.cc (order,
// names, scheduling), resolve_defaults.cc, resolve_data.cc, resolve_network.cc, resolve_branches.cc,
// resolve_objective.cc, resolve_training.cc (lengths, optimizer, evaluation, warnings). Users include resolve.h.

#include <google/protobuf/message.h>
#include <google/protobuf/repeated_field.h>

#include <map>
#include <string>
#include <vector>

#include "common/recipe/networks.h"
#include "common/recipe/resolve.h"

namespace vicreg::recipe {

// Keeps infinity out, and products of two such numbers finite.
inline constexpr double kMost = 1e12;

std::string Number(double value);
// "unknown name ...; expected one of ...; did you mean ...?"
std::string Suggest(const std::string& found, const std::vector<std::string>& known);
// Whether `width` can be chosen.
bool HasWidth(const Architecture& architecture);

// Of a sample. The loss compares every pair of them.
inline constexpr int kMostViews = 16;

// The small stem keeps a view at its full size through a whole stage. Waveforms of more values get the standard one by
// default, and may have either.
inline constexpr int kSmallStemPixels = 64, kStandardStemPixels = 32, kSmallStemValues = 256;

// Values of a vector, or of all channels of a waveform's view: each has a random word of its own.
inline constexpr int kMostValues = 262144;
inline constexpr int kMostChannels = 1024;

// Where the keys of one view's network, and of what it reads, stand in the job file: the job's own, or a branch's.
struct ViewKeys {
  std::string encoder, expander, augmentation, channels, part;
};
// Of a job with one network, and of branch `i`.
inline const ViewKeys kOwnKeys{"encoder", "expander", "augmentation", "data.channels", "data.part"};
ViewKeys KeysOfBranch(int i);

// Collects problems while it resolves; every check names the field, the limit, what was found and what to do.
class Resolver {
 public:
  // `keys`: what the job file holds, by path. A message cannot tell `keep: 0` from no `keep`, the file can.
  Resolver(const v1::JobSpec& given, const Offered& offered, const std::map<std::string, spec::Mark>& keys = {})
      : given_(given), offered_(offered), keys_(keys) {}

  std::vector<spec::Problem> problems;
  Resolved out;

  void Run();

 private:
  v1::JobSpec& s() { return out.spec; }
  bool Written(const std::string& key) const { return keys_.count(key) != 0; }

  void Bad(const std::string& field, const std::string& text) { problems.push_back({{}, field, text}); }
  template <typename T>
  bool Range(const std::string& field, T value, T low, T high, const std::string& why = "") {
    if (value >= low && value <= high) return true;
    std::string number = std::to_string(value), least = std::to_string(low), most = std::to_string(high);
    Bad(field, "found " + number + "; expected " + least + " to " + most + (why.empty() ? "" : ": " + why));
    return false;
  }
  void CheckName(const std::string& field, const std::string& name);
  void RefuseUnknown(const google::protobuf::Message& message, const std::string& path);

  void ApplyPreset();
  void FillDefaults();
  void FillView(const ViewKeys& keys, v1::EncoderSpec& encoder, v1::AugmentationSpec& views);
  void FillBranches();
  void FillObjective();
  void FillOptimizer();

  void Scheduling();
  void Placement();
  void CheckPath(const std::string& path);
  void CheckOffered(const std::string& root);
  void Data();
  // What a view reads. `out` has its encoder; then its channels, too.
  void Channels(const ViewKeys& keys, std::int32_t channels, recipe::Branch& out);
  void Part(const ViewKeys& keys, const std::string& part, recipe::Branch& out);
  void Augmentation(const ViewKeys& keys, const v1::AugmentationSpec& augmentation, recipe::Branch& out);
  void Encoder(const ViewKeys& keys, const v1::EncoderSpec& encoder, int size, recipe::Encoder& out);
  void Stem(const ViewKeys& keys, const v1::EncoderSpec& encoder, const Architecture& found, int size);
  std::vector<std::int64_t> Expander(const ViewKeys& keys, const google::protobuf::RepeatedField<std::int64_t>& widths);
  void Network();
  void TheOneNetwork();
  void Branches();
  void BranchOfItsOwn(int i, recipe::Branch& out);
  void SharedBranch(int i, recipe::Branch& out);
  // Of the embedding; 0 where the job does not say.
  std::int64_t EmbeddingWidth();
  bool BranchesHaveWeights() const;
  void Objective();
  void CheckWeight(const std::string& field, double value);
  bool PerView() const;
  void RefuseOthersKeys(recipe::Objective objective);
  void CheckViews();
  void VicregCoefficients();
  void WeightsOfEachView();
  void WeightsOfEachBranch();
  void Regularisation();
  void Accumulation();
  Length CheckLength(const std::string& field, const v1::Length& length, std::int64_t least);
  void Lengths();
  void Optimizer();
  void Evaluation();
  void Precision();
  void Warn();
  void WarnOfObjective();

  const v1::JobSpec& given_;
  const Offered& offered_;
  const std::map<std::string, spec::Mark> keys_;
};

}  // namespace vicreg::recipe
