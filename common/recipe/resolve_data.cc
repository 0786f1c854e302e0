// Which samples are trained on, what a view reads of them and how it is drawn.

#include <algorithm>

#include "common/ids.h"
#include "common/recipe/resolver.h"

namespace vicreg::recipe {

void Resolver::CheckPath(const std::string& path) {
  if (path.empty()) return;
  bool fine = path.size() <= 512 && path.front() != '/' && path.back() != '/';
  std::size_t start = 0;
  while (fine && start <= path.size()) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string part = path.substr(start, end - start);
    fine = !part.empty() && part != "." && part != ".." &&
           part.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
               std::string::npos;
    start = end + 1;
  }
  if (!fine) {
    Bad("data.path",
        "found \"" + path.substr(0, 80) +
            "\"; expected a relative path of at most 512 bytes, its parts of A-Z a-z 0-9 . _ - and never ..");
  }
}

// A root that no worker offers is a slip of the pen.
void Resolver::CheckOffered(const std::string& root) {
  if (!offered_ || offered_->roots.count(root) != 0) return;
  std::string list;
  for (const std::string& name : offered_->roots) list += (list.empty() ? "" : ", ") + name;
  Bad("data.root", "found \"" + root.substr(0, 80) +
                       "\", which no worker offers; expected one of: " + (list.empty() ? "(none is offered)" : list) +
                       "; or start a worker with --data-root " + root.substr(0, 80) + "=PATH");
}

void Resolver::Data() {
  const v1::DataSpec& data = s().data();
  if (data.root().empty()) {
    Bad("data.root", "missing; expected the name of a data root a worker offers (--data-root NAME=PATH)");
  } else {
    CheckName("data.root", data.root());
    CheckOffered(data.root());
  }
  CheckPath(data.path());
  Range<std::int64_t>("data.limit", data.limit(), 0, std::int64_t{1} << 40);
  if (data.limit() > 0 && data.limit() < s().batch_size()) {
    Bad("data.limit", "found " + std::to_string(data.limit()) + " samples for a batch of " +
                          std::to_string(s().batch_size()) +
                          "; expected at least one whole batch: raise it or lower batch_size");
  }
  out.recipe.data.root = data.root();
  out.recipe.data.path = data.path();
  out.recipe.data.split = data.split() == v1::DATA_SPLIT_TRAIN ? "train" : "test";
  out.recipe.data.limit = data.limit();
  out.recipe.data.format = data.format() == v1::DATA_FORMAT_NPY ? DataFormat::kNpy : DataFormat::kIdx;
}

void Resolver::Channels(const ViewKeys& keys, std::int32_t channels, recipe::Branch& view) {
  view.channels = channels;
  const Input input = InputOf(view);
  if (out.recipe.data.format == DataFormat::kIdx && input != Input::kImages) {
    Bad(keys.encoder + ".name", view.encoder.name + " reads " + (input == Input::kWaveforms ? "waveforms" : "vectors") +
                                    ", idx holds images; expected an encoder of images, such as resnet18, or "
                                    "data.format: npy");
  } else if (out.recipe.data.format == DataFormat::kIdx) {
    if (channels != 1)
      Bad(keys.channels, "found " + std::to_string(channels) + "; expected 1: format idx holds grey images");
  } else if (input == Input::kVectors && channels == 0 && !Written(keys.channels)) {
    Bad(keys.channels, "missing; expected the number of values of a vector, 1 to " + std::to_string(kMostValues));
  } else {
    Range(keys.channels, channels, 1, input == Input::kVectors ? kMostValues : kMostChannels);
  }
}

void Resolver::Part(const ViewKeys& keys, const std::string& part, recipe::Branch& view) {
  view.part = part;
  const std::string found = "found \"" + part.substr(0, 80) + "\"; expected ";
  if (out.recipe.data.format == DataFormat::kIdx) {
    if (part != "image") Bad(keys.part, found + "image, the only part of a sample in idx");
  } else if (!IsName(part)) {
    Bad(keys.part, found + kNameRule);
  } else if (part == "labels") {
    Bad(keys.part, found + "another file's name: labels are no part of a sample");
  }
}

void Resolver::Augmentation(const ViewKeys& keys, const v1::AugmentationSpec& augmentation, recipe::Branch& view) {
  const Input input = InputOf(view);
  if (out.recipe.data.format == DataFormat::kIdx && input != Input::kImages) return;  // the encoder is what is wrong
  const std::vector<std::string> presets = {input == Input::kImages      ? "cifar"
                                            : input == Input::kWaveforms ? "wave"
                                                                         : "vector",
                                            "none"};
  if (std::find(presets.begin(), presets.end(), augmentation.preset()) == presets.end())
    Bad(keys.augmentation + ".preset", Suggest(augmentation.preset(), presets));
  const std::string size = keys.augmentation + ".size";
  if (input == Input::kImages) {
    Range(size, augmentation.size(), 8, 512);
  } else if (input == Input::kVectors) {
    if (augmentation.size() != 0 || Written(size))
      Bad(size, "found " + std::to_string(augmentation.size()) +
                    ", and a view of a vector has all of its values: remove the key");
  } else if (augmentation.size() == 0 && !Written(size)) {
    Bad(size, "missing; expected how many values of a waveform a view has, 8 or more");
  } else {
    const bool counted = view.channels >= 1 && view.channels <= kMostChannels;  // else that is what is wrong
    Range(size, augmentation.size(), 8, kMostValues / (counted ? view.channels : 1),
          std::to_string(kMostValues) + " values in all channels together");
  }
  view.augmentation = {augmentation.preset(), augmentation.size()};
}

}  // namespace vicreg::recipe
