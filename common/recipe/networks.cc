#include "common/recipe/networks.h"

#include <algorithm>

namespace vicreg::recipe {
namespace {

constexpr Architecture kArchitectures[] = {
    {"tiny", Family::kTiny, Input::kImages, 64, {}, false, 0},
    {"resnet18", Family::kResNet, Input::kImages, 64, {2, 2, 2, 2}, false, 0},
    {"resnet34", Family::kResNet, Input::kImages, 64, {3, 4, 6, 3}, false, 0},
    {"resnet50", Family::kResNet, Input::kImages, 64, {3, 4, 6, 3}, true, 0},
    {"resnet101", Family::kResNet, Input::kImages, 64, {3, 4, 23, 3}, true, 0},
    // Every layer twice as wide, the stem too. Not torchvision's wide_resnet50_2, which widens the 3x3 convolutions
    // alone.
    {"resnet50x2", Family::kResNet, Input::kImages, 128, {3, 4, 6, 3}, true, 0},
    {"vit_ti16", Family::kVit, Input::kImages, 192, {}, false, 3},
    {"vit_s16", Family::kVit, Input::kImages, 384, {}, false, 6},
    {"resnet1d18", Family::kResNet, Input::kWaveforms, 48, {2, 2, 2, 2}, false, 0},
    {"mlp", Family::kMlp, Input::kVectors, 512, {}, false, 0},
};

std::int64_t Norm(std::int64_t channels) { return 2 * channels; }
std::int64_t Linear(std::int64_t in, std::int64_t out) { return in * out + out; }

std::int64_t Tiny(int channels) {
  std::int64_t count = 0, in = channels;
  for (const std::int64_t out : {24, 48, 96, 192}) {
    count += 9 * in * out + Norm(out);
    in = out;
  }
  return count;
}

std::int64_t ResNet(const Architecture& a, const Encoder& e, int channels) {
  // Taps of a kernel: 3x3 and 7x7, or 3 and 7 of a waveform's.
  const bool flat = a.input == Input::kWaveforms;
  const std::int64_t three = flat ? 3 : 9, seven = flat ? 7 : 49, width = e.width;
  std::int64_t count = channels * width * (e.stem == Stem::kStandard ? seven : three) + Norm(width), in = width;
  for (int stage = 0; stage < 4; ++stage) {
    const std::int64_t inner = width << stage, out = a.bottleneck ? 4 * inner : inner;
    for (int block = 0; block < a.blocks[stage]; ++block) {
      if (a.bottleneck) {
        count += in * inner + three * inner * inner + inner * out + 2 * Norm(inner) + Norm(out);
      } else {
        count += three * in * inner + three * inner * out + Norm(inner) + Norm(out);
      }
      if (block == 0 && (stage > 0 || in != out)) count += in * out + Norm(out);
      in = out;
    }
  }
  return count;
}

std::int64_t Vit(const Architecture& a, std::int64_t channels, int size) {
  const std::int64_t d = a.width, side = size / kVitPatch, patches = side * side;
  const std::int64_t block = 2 * Norm(d) + Linear(d, 3 * d) + Linear(d, d) + Linear(d, 4 * d) + Linear(4 * d, d);
  return d + Linear(channels * kVitPatch * kVitPatch, d) + (patches + 1) * d + kVitBlocks * block + Norm(d);
}

std::int64_t Mlp(const Encoder& e, int features) {
  std::int64_t count = 0, in = features;
  for (int i = 0; i < kMlpLayers; ++i) {
    count += Linear(in, e.width) + Norm(e.width);
    in = e.width;
  }
  return count;
}

}  // namespace

std::span<const Architecture> Architectures() { return kArchitectures; }

const Architecture* FindArchitecture(std::string_view name) {
  const auto* found = std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                                   [&](const Architecture& a) { return a.name == name; });
  return found == std::end(kArchitectures) ? nullptr : found;
}

Input InputOf(const Branch& view) { return FindArchitecture(view.encoder.name)->input; }

std::vector<std::int64_t> SampleShape(const Branch& view) {
  const std::int64_t size = view.augmentation.size;
  switch (InputOf(view)) {
    case Input::kImages:
      return {view.channels, size, size};
    case Input::kWaveforms:
      return {view.channels, size};
    case Input::kVectors:
      break;
  }
  return {view.channels};
}

std::int64_t EncoderParameters(const Encoder& encoder, int channels, int size) {
  const Architecture& a = *FindArchitecture(encoder.name);
  switch (a.family) {
    case Family::kTiny:
      return Tiny(channels);
    case Family::kResNet:
      return ResNet(a, encoder, channels);
    case Family::kVit:
      return Vit(a, channels, size);
    case Family::kMlp:
      return Mlp(encoder, channels);
  }
  return 0;
}

std::int64_t RepresentationWidth(const Encoder& encoder) {
  const Architecture& a = *FindArchitecture(encoder.name);
  switch (a.family) {
    case Family::kTiny:
      return 192;
    case Family::kResNet:
      return std::int64_t{8} * encoder.width * (a.bottleneck ? 4 : 1);
    case Family::kVit:
      return a.width;
    case Family::kMlp:
      return encoder.width;
  }
  return 0;
}

std::int64_t ExpanderParameters(const Branch& branch, ExpanderNorm norm) {
  std::int64_t count = 0, in = RepresentationWidth(branch.encoder);
  for (std::size_t i = 0; i < branch.expander.size(); ++i) {
    const std::int64_t out = branch.expander[i];
    const bool last = i + 1 == branch.expander.size();
    count += in * out;  // the last layer has neither bias nor norm
    if (!last) count += out + (norm == ExpanderNorm::kBatchNorm ? Norm(out) : 0);
    in = out;
  }
  return count;
}

std::int64_t PredictorParameters(std::int64_t hidden, std::int64_t width, ExpanderNorm norm) {
  if (hidden == 0) return 0;
  return Linear(width, hidden) + (norm == ExpanderNorm::kBatchNorm ? Norm(hidden) : 0) + Linear(hidden, width);
}

}  // namespace vicreg::recipe
