#include "worker/train/data/idx.h"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>

#include "worker/train/data/files.h"

namespace vicreg::train {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{2} << 30;
constexpr std::uint32_t kMagicImages = 2051, kMagicLabels = 2049;

// zlib reads plain files as they are. Throws on a damaged or cut gzip stream.
std::vector<std::uint8_t> ReadAll(int fd, const std::string& name) {
  gzFile file = gzdopen(fd, "rb");
  if (file == nullptr) {
    close(fd);
    RefuseFile(name, "out of memory while opening");
  }
  std::vector<std::uint8_t> bytes;
  std::vector<std::uint8_t> block(1 << 20);
  int got;
  while ((got = gzread(file, block.data(), static_cast<unsigned>(block.size()))) > 0) {
    bytes.insert(bytes.end(), block.begin(), block.begin() + got);
    if (bytes.size() > kMaxBytes) break;
  }
  int error = Z_OK;
  const std::string text = gzerror(file, &error);
  gzclose(file);
  if (bytes.size() > kMaxBytes) RefuseFile(name, "larger than 2 GiB unpacked; split it, or use a limit");
  if (got < 0 || error != Z_OK)
    RefuseFile(name, "cut or damaged after " + std::to_string(bytes.size()) + " bytes (" + text + "): fetch it again");
  return bytes;
}

std::uint32_t BigEndian(const std::vector<std::uint8_t>& bytes, std::size_t at) {
  return std::uint32_t{bytes[at]} << 24 | std::uint32_t{bytes[at + 1]} << 16 | std::uint32_t{bytes[at + 2]} << 8 |
         bytes[at + 3];
}

struct File {
  std::string name;
  std::vector<std::uint8_t> bytes;
};

// Tries the name with and without .gz.
std::pair<bool, File> Find(const std::string& root, const std::string& stem) {
  for (const std::string& name : {stem + ".gz", stem}) {
    if (const int fd = OpenBeneath(root, name); fd >= 0) return {true, {name, ReadAll(fd, name)}};
  }
  return {false, {}};
}

void CheckMagic(const File& file, std::uint32_t expected, std::size_t header) {
  if (file.bytes.size() < header)
    RefuseFile(file.name,
               "holds " + std::to_string(file.bytes.size()) + " bytes; expected a header of " + std::to_string(header));
  if (const std::uint32_t magic = BigEndian(file.bytes, 0); magic != expected) {
    RefuseFile(file.name, "magic number " + std::to_string(magic) + "; expected " + std::to_string(expected));
  }
}

}  // namespace

ImageSet ReadIdx(const std::string& root, const std::string& path, const std::string& split, std::int64_t limit) {
  const std::string stem = (path.empty() ? "" : path + "/") + (split == "train" ? "train" : "t10k");
  auto [found, images] = Find(root, stem + "-images-idx3-ubyte");
  if (!found)
    RefuseFile(stem + "-images-idx3-ubyte[.gz]", "not found in the data root; expected IDX images of split " + split);
  CheckMagic(images, kMagicImages, 16);
  ImageSet set;
  const std::uint64_t count = BigEndian(images.bytes, 4), height = BigEndian(images.bytes, 8),
                      width = BigEndian(images.bytes, 12);
  if (height == 0 || width == 0 || height > 20000 || width > 20000) {
    RefuseFile(images.name, "images of " + std::to_string(height) + "x" + std::to_string(width) +
                                " pixels; expected 1 to 20000 a side");
  }
  // 128 bits: a lying header must not overflow.
  const unsigned __int128 wanted = static_cast<unsigned __int128>(count) * height * width;
  if (wanted != images.bytes.size() - 16) {
    RefuseFile(images.name, "header promises " + std::to_string(count) + " images of " + std::to_string(height) + "x" +
                                std::to_string(width) + ", the file holds " + std::to_string(images.bytes.size() - 16) +
                                " bytes of pixels");
  }
  set.height = static_cast<int>(height);
  set.width = static_cast<int>(width);
  set.count =
      static_cast<std::uint32_t>(limit > 0 ? std::min<std::uint64_t>(count, static_cast<std::uint64_t>(limit)) : count);
  if (set.count == 0) RefuseFile(images.name, "holds no image");

  auto [labelled, labels] = Find(root, stem + "-labels-idx1-ubyte");
  if (labelled) {
    CheckMagic(labels, kMagicLabels, 8);
    const std::uint32_t promised = BigEndian(labels.bytes, 4);
    if (promised != count || labels.bytes.size() - 8 != promised) {
      RefuseFile(labels.name, "header promises " + std::to_string(promised) + " labels, the file holds " +
                                  std::to_string(labels.bytes.size() - 8) + "; expected " + std::to_string(count) +
                                  ", one per image");
    }
    set.labels.assign(labels.bytes.begin() + 8, labels.bytes.begin() + 8 + set.count);
  }
  images.bytes.erase(images.bytes.begin(), images.bytes.begin() + 16);
  images.bytes.resize(static_cast<std::size_t>(set.count) * height * width);
  set.pixels = std::move(images.bytes);
  return set;
}

}  // namespace vicreg::train
