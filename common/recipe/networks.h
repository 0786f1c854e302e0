#pragma once

// The networks a recipe can name: one table for the resolver, `explain` and the trainer. Pure; no torch.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "common/recipe/recipe.h"

namespace vicreg::recipe {

enum class Family { kTiny, kResNet, kVit, kMlp };

// What a sample is: a picture of channels x size x size, a waveform of channels x any length, a vector of `channels`
// numbers.
enum class Input { kImages, kWaveforms, kVectors };

struct Architecture {
  const char* name;
  Family family;
  Input input;
  int width;        // default of Encoder::width; vit: of a token
  int blocks[4];    // ResNets: residual blocks of each stage
  bool bottleneck;  // ResNets: 1x1, 3x3, 1x1 with four times the width behind it, instead of two 3x3
  int heads;        // vit
};

inline constexpr int kVitPatch = 16, kVitBlocks = 12;  // a token's MLP is 4 times as wide as the token
inline constexpr int kMlpLayers = 3;

std::span<const Architecture> Architectures();
// nullptr: there is none of that name.
const Architecture* FindArchitecture(std::string_view name);

// What the view's encoder reads. It is in the table.
Input InputOf(const Branch& view);
// Of one sample of the view: {C, size, size}, {C, size} or {F}. Its encoder is in the table.
std::vector<std::int64_t> SampleShape(const Branch& view);

// Exact numbers of trained values and of the representation. `name` is in the table; size: pixels of a view's side, for
// vit.
std::int64_t EncoderParameters(const Encoder& encoder, int channels, int size);
std::int64_t RepresentationWidth(const Encoder& encoder);
std::int64_t ExpanderParameters(const Branch& branch, ExpanderNorm norm);
// Of the predictor on embeddings of `width`; 0 where there is none.
std::int64_t PredictorParameters(std::int64_t hidden, std::int64_t width, ExpanderNorm norm);

}  // namespace vicreg::recipe
