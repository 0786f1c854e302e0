// The networks of a job.

#include "common/recipe/resolver.h"

namespace vicreg::recipe {

bool HasWidth(const Architecture& a) { return a.family == Family::kResNet && std::string_view(a.name) != "resnet50x2"; }

void Resolver::Encoder() {
  const v1::EncoderSpec& encoder = s().encoder();
  const Architecture* found = FindArchitecture(encoder.name());
  if (found == nullptr) {
    std::vector<std::string> usable;
    for (const Architecture& a : Architectures()) {
      if (a.input == Input::kImages) usable.emplace_back(a.name);
    }
    Bad("encoder.name", Suggest(encoder.name(), usable));
    return;
  }
  const std::string name = found->name;
  if (found->input != Input::kImages) {
    Bad("encoder.name", name + " reads " + (found->input == Input::kWaveforms ? "waveforms" : "vectors") +
                            ", and no data format offers them yet (idx holds images); expected an encoder of images, "
                            "such as resnet18");
    return;
  }
  const int size = s().augmentation().size();
  if (found->family == Family::kResNet) {
    if (encoder.stem() == v1::STEM_STANDARD && size < kStandardStemPixels) {
      Bad("encoder.stem",
          "the standard stem shrinks " + std::to_string(size) +
              "-pixel views to less than one position; expected views of 32 pixels or more: use stem: small");
    } else if (encoder.stem() != v1::STEM_STANDARD && size > kSmallStemPixels && size <= 512) {
      Bad("encoder.stem", "a small stem keeps " + std::to_string(size) +
                              "-pixel views at full size; expected views of at most 64 pixels: use stem: standard");
    }
  } else {
    if (encoder.stem() != v1::STEM_UNSPECIFIED)
      Bad("encoder.stem", name + " has no stem to choose: remove the key, or use resnet18");
    if (encoder.has_zero_init_residual())
      Bad("encoder.zero_init_residual", name + " has no such blocks: remove the key, or use resnet18");
  }
  if (HasWidth(*found)) {
    Range("encoder.width", encoder.width(), 8, 512);
  } else if (encoder.width() != 0 || Written("encoder.width")) {
    Bad("encoder.width",
        name + " has no width to choose: remove the key, or use " + (name == "resnet50x2" ? "resnet50" : "resnet18"));
  }
  if (found->family == Family::kVit && size % kVitPatch != 0 && size >= 8 && size <= 512) {
    Bad("augmentation.size",
        "found " + std::to_string(size) + " pixels; expected a multiple of 16, the patches of " + name);
  }
  out.recipe.encoder.name = name;
  if (found->family != Family::kResNet) return;
  out.recipe.encoder.stem = encoder.stem() == v1::STEM_STANDARD         ? Stem::kStandard
                            : encoder.stem() == v1::STEM_SMALL_PADDING2 ? Stem::kSmallPadding2
                                                                        : Stem::kSmall;
  out.recipe.encoder.width = HasWidth(*found) ? encoder.width() : found->width;
  out.recipe.encoder.zero_init_residual = encoder.zero_init_residual();
  // One experiment, however it is spelled.
  if (name == "resnet50x2") out.recipe.encoder.name = "resnet50";
}

void Resolver::Network() {
  Encoder();
  if (s().expander_size() == 0) Bad("expander", "missing; expected 1 to 16 layer widths, such as [1024, 1024, 1024]");
  if (s().expander_size() > 16)
    Bad("expander", "found " + std::to_string(s().expander_size()) + " layers; expected at most 16");
  for (int i = 0; i < s().expander_size(); ++i) {
    Range<std::int64_t>("expander[" + std::to_string(i) + "]", s().expander(i), 1, 65536);
    out.recipe.expander.push_back(s().expander(i));
  }
  out.recipe.expander_norm =
      s().expander_norm() == v1::EXPANDER_NORM_NONE ? ExpanderNorm::kNone : ExpanderNorm::kBatchNorm;
  out.recipe.embedding_norm = s().embedding_norm() == v1::EMBEDDING_NORM_L2    ? EmbeddingNorm::kL2
                              : s().embedding_norm() == v1::EMBEDDING_NORM_STD ? EmbeddingNorm::kStd
                                                                               : EmbeddingNorm::kRaw;
}

}  // namespace vicreg::recipe
