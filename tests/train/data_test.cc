// Goal: batches are a function of (seed, step) alone and files that lie are refused by name.
// Method: the committed fixture read whole and damaged; batches of several thread counts and world sizes compared bit
// by bit; draw frequencies over 10,000 samples against their expectation within five standard errors.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "worker/train/data/loader.h"
#include "worker/train/error.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const std::string kFixture = std::string(VICREG_SOURCE_DIR) + "/tests/fixtures/fashion-mnist";

class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "vicreg-data-XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path + "/" + name, std::ios::binary) << bytes;
  }
};

std::string Big(std::uint32_t n) {
  return {static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
}
std::string Images(std::uint32_t magic, std::uint32_t n, std::uint32_t h, std::uint32_t w, std::size_t bytes) {
  return Big(magic) + Big(n) + Big(h) + Big(w) + std::string(bytes, 'x');
}

struct BadCase {
  std::string what, images, labels, expected;
};

TEST(Idx, RefusesWhatDoesNotFitAndNamesIt) {
  const std::vector<BadCase> cases = {
      {"empty", "", "", "header of 16"},
      {"magic", Images(2049, 2, 2, 2, 8), "", "magic number 2049; expected 2051"},
      {"short", Images(2051, 2, 2, 2, 7), "", "2 images of 2x2"},
      {"long", Images(2051, 2, 2, 2, 9), "", "holds 9 bytes"},
      {"overflow", Images(2051, 0xffffffffu, 20000, 20000, 8), "", "4294967295 images"},
      {"side 0", Images(2051, 2, 0, 2, 0), "", "0x2 pixels"},
      {"no image", Images(2051, 0, 2, 2, 0), "", "holds no image"},
      {"label magic", Images(2051, 2, 2, 2, 8), Big(2051) + Big(2) + "ab", "expected 2049"},
      {"label count", Images(2051, 2, 2, 2, 8), Big(2049) + Big(3) + "abc", "expected 2, one per image"},
      {"labels cut", Images(2051, 2, 2, 2, 8), Big(2049) + Big(2) + "a", "holds 1"},
  };
  for (const BadCase& c : cases) {
    const Folder folder;
    folder.Write("train-images-idx3-ubyte", c.images);
    if (!c.labels.empty()) folder.Write("train-labels-idx1-ubyte", c.labels);
    try {
      ReadIdx(folder.path, "", "train", 0);
      ADD_FAILURE() << c.what << " was accepted";
    } catch (const RankError& error) {
      EXPECT_EQ(error.reason, ExitReason::kData) << c.what;
      EXPECT_THAT(error.what(), HasSubstr(c.expected));
      EXPECT_THAT(error.what(), HasSubstr("-ubyte"));
    }
  }
}

TEST(Idx, RefusesCutGzipLinksAndPathsOutside) {
  const Folder folder;
  fs::copy_file(kFixture + "/t10k-images-idx3-ubyte.gz", folder.path + "/train-images-idx3-ubyte.gz");
  fs::resize_file(folder.path + "/train-images-idx3-ubyte.gz", 100000);
  EXPECT_THROW(ReadIdx(folder.path, "", "train", 0), RankError);
  fs::remove(folder.path + "/train-images-idx3-ubyte.gz");
  fs::create_symlink(kFixture + "/train-images-idx3-ubyte.gz", folder.path + "/train-images-idx3-ubyte.gz");
  EXPECT_THROW(ReadIdx(folder.path, "", "train", 0), RankError);
  fs::create_directory(folder.path + "/inner");
  folder.Write("t10k-images-idx3-ubyte", Images(2051, 2, 2, 2, 8));
  EXPECT_EQ(ReadIdx(folder.path, "", "test", 0).count, 2u);
  EXPECT_THROW(ReadIdx(folder.path + "/inner", "..", "test", 0), RankError);
}

TEST(Idx, ReadsTheFixture) {
  const ImageSet set = ReadIdx(kFixture, "", "train", 1500);
  EXPECT_EQ(set.count, 1500u);
  EXPECT_EQ(set.height, 28);
  EXPECT_EQ(set.pixels.size(), 1500u * 784);
  EXPECT_EQ(set.labels.size(), 1500u);
  EXPECT_EQ(set.labels[0], 9);  // an ankle boot, as every reader of this set reports
}

TEST(Order, IsAPermutationThatDependsOnSeedAndEpoch) {
  auto order = EpochOrder(1, 0, 1000);
  EXPECT_EQ(order, EpochOrder(1, 0, 1000));
  EXPECT_NE(order, EpochOrder(1, 1, 1000));
  EXPECT_NE(order, EpochOrder(2, 0, 1000));
  std::sort(order.begin(), order.end());
  std::vector<std::uint32_t> all(1000);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(order, all);
}

TEST(Order, RanksShareTheRowsWithoutGap) {
  for (const int w : {1, 2, 3, 7, 300}) {
    std::int64_t next = 0;
    for (int r = 0; r < w; ++r) {
      const RowRange range = RowsOfRank(256, r, w);
      EXPECT_EQ(range.begin, next);
      next = range.end;
    }
    EXPECT_EQ(next, 256);
  }
}

// Two views (or more) of the fixture's first `count` images.
SampleSet Samples(std::int64_t count, int views = 2) {
  return ImageSamples(ReadIdx(kFixture, "", "train", count), ViewOptions{}, views);
}

// Rows of one global batch, put together from all ranks: [view][row].
std::vector<std::vector<float>> Global(const SampleSet& images, int world, int threads, std::int64_t first, int steps,
                                       std::int64_t substituted = -1) {
  const auto views = static_cast<int>(images.views.size());
  std::vector<std::vector<float>> out;
  for (int s = 0; s < steps; ++s) out.emplace_back(views * 300 * 784);
  for (int rank = 0; rank < world; ++rank) {
    LoaderOptions options;
    options.seed = 7;
    options.batch_size = 300;
    options.rank = rank;
    options.world_size = world;
    options.threads = threads;
    options.first_step = first;
    options.substituted_step = substituted;
    Loader loader(images, options);
    const std::int64_t begin = RowsOfRank(300, rank, world).begin;
    for (int s = 0; s < steps; ++s) {
      const Batch batch = loader.Next();
      EXPECT_EQ(batch.step, first + s);
      for (int v = 0; v < views; ++v) {
        std::copy_n(batch.views.data() + v * batch.rows * 784, batch.rows * 784,
                    out[static_cast<std::size_t>(s)].data() + (v * 300 + begin) * 784);
      }
    }
  }
  return out;
}

TEST(Loader, SameBytesForAnyThreadsRanksAndStart) {
  const SampleSet images = Samples(1000);  // 3 steps an epoch: 5 steps cross its end
  const auto reference = Global(images, 1, 1, 0, 5);
  EXPECT_NE(reference[0], reference[1]);
  for (const int threads : {2, 7}) EXPECT_EQ(Global(images, 1, threads, 0, 5), reference) << threads << " threads";
  for (const int world : {2, 4}) EXPECT_EQ(Global(images, world, 2, 0, 5), reference) << world << " ranks";
  const auto late = Global(images, 2, 2, 3, 2);
  EXPECT_EQ(late[0], reference[3]);
  EXPECT_EQ(late[1], reference[4]);
}

TEST(Loader, MoreViewsAreDrawnBesideTheFirstTwoAndLeaveThemAsTheyAre) {
  const std::vector<float> two = Global(Samples(300), 1, 1, 0, 1)[0], four = Global(Samples(300, 4), 2, 2, 0, 1)[0];
  const std::ptrdiff_t view = 300 * 784;
  EXPECT_TRUE(std::equal(two.begin(), two.end(), four.begin()));
  for (int a = 0; a < 4; ++a) {
    for (int b = a + 1; b < 4; ++b)
      EXPECT_FALSE(std::equal(four.begin() + a * view, four.begin() + (a + 1) * view, four.begin() + b * view))
          << a << b;
  }
}

TEST(Loader, SubstitutedStepHasOtherSamplesTheSameOnAnyRanksAndNoOtherStepChanges) {
  const SampleSet images = Samples(1000);
  const auto plain = Global(images, 1, 1, 0, 5), other = Global(images, 1, 2, 0, 5, 4);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(plain[i] == other[i], i != 4) << i;
  EXPECT_EQ(Global(images, 4, 2, 4, 1, 4)[0], other[4]);
}

TEST(Loader, RefusesLessThanOneBatch) {
  const SampleSet images = Samples(10);
  EXPECT_THROW(Loader(images, {}), RankError);
}

TEST(View, FlipsHalfAndJittersAsOftenAsAsked) {
  // A gradient from left to right, no crop: a flip turns it, brightness moves the mean.
  std::vector<std::uint8_t> pixels(784);
  for (std::size_t i = 0; i < 784; ++i) pixels[i] = static_cast<std::uint8_t>(40 + i % 28);
  ViewOptions options;
  options.least_area = 0.9999;
  options.contrast = 0;
  const int n = 10000;
  int flipped = 0, brighter = 0, touched = 0;
  double plain = 0;
  std::vector<float> out(784);
  ViewOptions none = options;
  none.random = false;
  MakeView(pixels.data(), 28, 28, none, {}, out.data());
  for (const float x : out) plain += x / 784;
  for (int i = 0; i < n; ++i) {
    MakeView(pixels.data(), 28, 28, options, {3, 0, static_cast<std::uint64_t>(i), 0}, out.data());
    double mean = 0;
    for (const float x : out) mean += x / 784;
    flipped += out[0] > out[27];
    touched += std::abs(mean - plain) > 1e-4;
    brighter += mean > plain + 1e-4;
  }
  EXPECT_NEAR(flipped, 0.5 * n, 5 * std::sqrt(0.25 * n));
  EXPECT_NEAR(touched, 0.8 * n, 5 * std::sqrt(0.16 * n) + 0.002 * n);
  EXPECT_NEAR(brighter, 0.4 * n, 5 * std::sqrt(0.24 * n) + 0.002 * n);
}

TEST(View, WholeImageIsOnlyNormalised) {
  std::vector<std::uint8_t> pixels(784);
  for (std::size_t i = 0; i < 784; ++i) pixels[i] = static_cast<std::uint8_t>(i % 251);
  std::vector<float> out(784);
  MakeView(pixels.data(), 28, 28, OptionsFor("none", 28), {}, out.data());
  for (std::size_t i = 0; i < 784; ++i) ASSERT_NEAR(out[i], (pixels[i] / 255.0 - 0.2860) / 0.3530, 1e-5);
}

}  // namespace
}  // namespace vicreg::train
