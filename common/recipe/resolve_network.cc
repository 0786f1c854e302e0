// The networks of a job.

#include "common/recipe/resolver.h"

namespace vicreg::recipe {

bool HasWidth(const Architecture& a) {
  return a.family == Family::kMlp || (a.family == Family::kResNet && std::string_view(a.name) != "resnet50x2");
}

void Resolver::Stem(const ViewKeys& keys, const v1::EncoderSpec& encoder, const Architecture& found, int size) {
  const bool images = found.input == Input::kImages;
  const std::string field = keys.encoder + ".stem", what = images ? "-pixel views" : "-value views";
  if (found.family != Family::kResNet) {
    if (encoder.stem() != v1::STEM_UNSPECIFIED)
      Bad(field, std::string(found.name) + " has no stem to choose: remove the key, or use resnet18");
    return;
  }
  if (encoder.stem() == v1::STEM_STANDARD && size < kStandardStemPixels) {
    Bad(field, "the standard stem shrinks " + std::to_string(size) + what +
                   " to less than one position; expected views of 32 " + (images ? "pixels" : "values") +
                   " or more: use stem: small");
  } else if (images && encoder.stem() != v1::STEM_STANDARD && size > kSmallStemPixels && size <= 512) {
    Bad(field, "a small stem keeps " + std::to_string(size) +
                   "-pixel views at full size; expected views of at most 64 pixels: use stem: standard");
  }
}

void Resolver::Encoder(const ViewKeys& keys, const v1::EncoderSpec& encoder, int size, recipe::Encoder& network) {
  const Architecture* found = FindArchitecture(encoder.name());
  if (found == nullptr) {
    std::vector<std::string> names;
    for (const Architecture& a : Architectures()) {
      if (a.input == Input::kImages || out.recipe.data.format != DataFormat::kIdx) names.emplace_back(a.name);
    }
    Bad(keys.encoder + ".name", Suggest(encoder.name(), names));
    return;
  }
  const std::string name = found->name;
  Stem(keys, encoder, *found, size);
  if (found->family != Family::kResNet && encoder.has_zero_init_residual())
    Bad(keys.encoder + ".zero_init_residual", name + " has no such blocks: remove the key, or use resnet18");
  if (HasWidth(*found)) {
    Range(keys.encoder + ".width", encoder.width(), 8, found->family == Family::kMlp ? 8192 : 512);
  } else if (encoder.width() != 0 || Written(keys.encoder + ".width")) {
    Bad(keys.encoder + ".width",
        name + " has no width to choose: remove the key, or use " + (name == "resnet50x2" ? "resnet50" : "resnet18"));
  }
  if (found->family == Family::kVit && size % kVitPatch != 0 && size >= 8 && size <= 512) {
    Bad(keys.augmentation + ".size",
        "found " + std::to_string(size) + " pixels; expected a multiple of 16, the patches of " + name);
  }
  network.name = name;
  if (found->family == Family::kMlp) network.width = encoder.width();
  if (found->family != Family::kResNet) return;
  network.stem = encoder.stem() == v1::STEM_STANDARD         ? recipe::Stem::kStandard
                 : encoder.stem() == v1::STEM_SMALL_PADDING2 ? recipe::Stem::kSmallPadding2
                                                             : recipe::Stem::kSmall;
  network.width = HasWidth(*found) ? encoder.width() : found->width;
  network.zero_init_residual = encoder.zero_init_residual();
  // One experiment, however it is spelled.
  if (name == "resnet50x2") network.name = "resnet50";
}

std::vector<std::int64_t> Resolver::Expander(const ViewKeys& keys,
                                             const google::protobuf::RepeatedField<std::int64_t>& widths) {
  if (widths.empty()) Bad(keys.expander, "missing; expected 1 to 16 layer widths, such as [1024, 1024, 1024]");
  if (widths.size() > 16) Bad(keys.expander, "found " + std::to_string(widths.size()) + " layers; expected at most 16");
  for (int i = 0; i < widths.size(); ++i)
    Range<std::int64_t>(keys.expander + "[" + std::to_string(i) + "]", widths.Get(i), 1, 65536);
  return {widths.begin(), widths.end()};
}

void Resolver::TheOneNetwork() {
  const ViewKeys& keys = kOwnKeys;
  recipe::Branch view;
  Encoder(keys, s().encoder(), s().augmentation().size(), view.encoder);
  Channels(keys, s().data().channels(), view);
  Part(keys, s().data().part(), view);
  Augmentation(keys, s().augmentation(), view);
  out.recipe.encoder = view.encoder;
  out.recipe.expander = Expander(keys, s().expander());
  out.recipe.augmentation = view.augmentation;
  out.recipe.data.channels = view.channels;
  out.recipe.data.part = view.part;
}

void Resolver::Network() {
  if (s().branches_size() > 0) {
    Branches();
  } else {
    TheOneNetwork();
  }
  out.recipe.expander_norm =
      s().expander_norm() == v1::EXPANDER_NORM_NONE ? ExpanderNorm::kNone : ExpanderNorm::kBatchNorm;
  out.recipe.embedding_norm = s().embedding_norm() == v1::EMBEDDING_NORM_L2    ? EmbeddingNorm::kL2
                              : s().embedding_norm() == v1::EMBEDDING_NORM_STD ? EmbeddingNorm::kStd
                                                                               : EmbeddingNorm::kRaw;
}

std::int64_t Resolver::EmbeddingWidth() {
  const auto& widths = s().branches_size() > 0 ? s().branches(0).expander() : s().expander();
  return widths.empty() ? 0 : widths.Get(widths.size() - 1);
}

}  // namespace vicreg::recipe
