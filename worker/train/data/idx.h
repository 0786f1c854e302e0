#pragma once

// IDX files (the format of MNIST and Fashion-MNIST), plain or gzipped; recognised by content, not by name.

#include <cstdint>
#include <string>
#include <vector>

namespace vicreg::train {

struct ImageSet {
  int height = 0, width = 0;
  std::uint32_t count = 0;
  std::vector<std::uint8_t> pixels;  // count x height x width
  std::vector<std::uint8_t> labels;  // count, or empty where the set has none
  const std::uint8_t* image(std::uint32_t i) const {
    return pixels.data() + static_cast<std::size_t>(i) * height * width;
  }
};

// Reads <train|t10k>-images-idx3-ubyte[.gz] and, if there, its labels from `root`/`path`; keeps the first `limit` (0:
// all). Throws RankError(kData) naming file, expected and found: missing, not a regular file beneath the root,
// truncated, wrong magic, dimensions that do not fit the bytes, label count that is not the image count, more than 2
// GiB.
ImageSet ReadIdx(const std::string& root, const std::string& path, const std::string& split, std::int64_t limit);

}  // namespace vicreg::train
