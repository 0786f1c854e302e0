// Goal: what a view is made of depends on the sample and its draws alone, whatever the format; parts of a data set that
// do not fit each other or the job are refused by name. Method: small .npy files written here; draws compared bit by
// bit and counted over many samples within five standard errors; files that contradict the job, one at a time.

#include "worker/train/data/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "tests/testing/npy_file.h"
#include "worker/train/data/loader.h"
#include "worker/train/data/signal.h"
#include "worker/train/error.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kCount = 40;

template <typename T>
std::vector<T> Ramp(std::int64_t count, double start, double step) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<T>(start + step * static_cast<double>(i)));
  return values;
}

// An image of three channels, a waveform of two, a vector of four.
class Samples : public ::testing::Test {
 protected:
  Samples() {
    std::string pattern = (fs::temp_directory_path() / "vicreg-samples-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    recipe_.data.format = recipe::DataFormat::kNpy;
    recipe_.batch_size = 8;
    recipe_.branches = {{"photo", "image", false, {"tiny"}, {8}, 3, 1, 1, {"cifar", 6}},
                        {"sound", "wave", false, {"resnet1d18"}, {8}, 2, 1, 1, {"wave", 10}},
                        {"facts", "vector", false, {"mlp"}, {8}, 4, 1, 1, {"vector", 0}}};
    for (const char* split : {"train", "test"}) {
      std::vector<std::uint8_t> pixels;
      for (int i = 0; i < kCount * 3 * 8 * 9; ++i) pixels.push_back(static_cast<std::uint8_t>(i * 7919 >> 4));
      WriteNpy(Path(split, "image"), "|u1", "(40, 3, 8, 9)", pixels);
      WriteNpy(Path(split, "wave"), "<i2", "(40, 2, 16)", Ramp<std::int16_t>(kCount * 32, -600, 1));
      WriteNpy(Path(split, "vector"), "<f8", "(40, 4)", Ramp<double>(kCount * 4, 1e6, 0.5));
      WriteNpy(Path(split, "labels"), "<i8", "(40,)", Ramp<std::int64_t>(kCount, 0, 0.1));
    }
  }
  ~Samples() override { fs::remove_all(root_); }

  std::string Path(const std::string& split, const std::string& part) const {
    return root_ + "/" + split + "-" + part + ".npy";
  }
  SampleSet Open(std::int64_t limit = 0) const { return OpenSamples(root_, recipe_, "train", limit); }
  std::string Refused() const {
    try {
      Open();
    } catch (const RankError& error) {
      EXPECT_EQ(error.reason, ExitReason::kData);
      return error.what();
    }
    return "";
  }

  std::string root_;
  recipe::Recipe recipe_;
};

std::vector<float> Drawn(const View& view, std::uint32_t sample, const DrawKey& key) {
  std::vector<float> out(static_cast<std::size_t>(view.values()));
  view.Draw(sample, key, out.data());
  return out;
}
std::vector<float> Whole(const View& view, std::uint32_t sample, int shift = 0) {
  std::vector<float> out(static_cast<std::size_t>(view.values()));
  view.Whole(sample, shift, out.data());
  return out;
}

TEST_F(Samples, HaveTheShapesOfTheirViewsAndTheirLabels) {
  const SampleSet set = Open();
  EXPECT_EQ(set.count, 40u);
  ASSERT_EQ(set.views.size(), 3u);
  EXPECT_THAT(set.views[0]->shape(), ElementsAre(3, 6, 6));
  EXPECT_THAT(set.views[1]->shape(), ElementsAre(2, 10));
  EXPECT_THAT(set.views[2]->shape(), ElementsAre(4));
  EXPECT_EQ(set.labels.size(), 40u);
  EXPECT_EQ(set.labels[39], 3);
  EXPECT_EQ(Open(17).count, 17u);
  EXPECT_EQ(Open(17).labels.size(), 17u);
}

TEST_F(Samples, AreNormalisedByChannelAndTestSamplesAsTrainingOnes) {
  recipe_.branches[1].augmentation.size = 16;
  const SampleSet set = Open();
  for (const std::size_t v : {1u, 2u}) {
    const std::int64_t channels = set.views[v]->shape()[0], run = set.views[v]->values() / channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum = 0, squares = 0;
      for (std::uint32_t i = 0; i < set.count; ++i) {
        const std::vector<float> x = Whole(*set.views[v], i);
        for (std::int64_t k = c * run; k < (c + 1) * run; ++k) {
          sum += x[static_cast<std::size_t>(k)];
          squares += x[static_cast<std::size_t>(k)] * x[static_cast<std::size_t>(k)];
        }
      }
      EXPECT_NEAR(sum / static_cast<double>(set.count * run), 0, 1e-4) << v << "," << c;
      EXPECT_NEAR(squares / static_cast<double>(set.count * run), 1, 1e-4) << v << "," << c;
    }
  }
  WriteNpy(Path("test", "vector"), "<f8", "(40, 4)", Ramp<double>(kCount * 4, 2e6, 0.5));
  const SampleSet test = OpenSamples(root_, recipe_, "test", 0, &set);
  EXPECT_GT(Whole(*test.views[2], 0)[0], 1e4) << "in deviations of the training samples";
  EXPECT_EQ(Whole(*test.views[1], 0), Whole(*set.views[1], 0));
}

TEST_F(Samples, AColumnThatNeverChangesIsCentred) {
  WriteNpy(Path("train", "vector"), "<f8", "(40, 4)", Ramp<double>(kCount * 4, 3, 0));
  EXPECT_THAT(Whole(*Open().views[2], 5), ElementsAre(0, 0, 0, 0));
}

TEST_F(Samples, LoaderPutsEachViewWhereTheLearnerLooks) {
  const SampleSet set = Open();
  LoaderOptions options;
  options.batch_size = 8;
  options.rank = 1;
  options.world_size = 3;
  options.threads = 3;
  Loader loader(set, options);
  const Batch batch = loader.Next();
  const RowRange own = RowsOfRank(8, 1, 3);
  ASSERT_EQ(batch.rows, own.end - own.begin);
  ASSERT_EQ(batch.views.size(), static_cast<std::size_t>(batch.rows * (3 * 36 + 20 + 4)));
  const std::vector<std::uint32_t> order = EpochOrder(options.seed, 0, set.count);
  const float* at = batch.views.data();
  for (std::uint8_t v = 0; v < 3; ++v) {
    for (std::int64_t row = 0; row < batch.rows; ++row) {
      const std::uint32_t sample = order[static_cast<std::size_t>(own.begin + row)];
      const std::vector<float> want = Drawn(*set.views[v], sample, {options.seed, 0, sample, v});
      EXPECT_TRUE(std::equal(want.begin(), want.end(), at)) << int{v} << ", row " << row;
      at += want.size();
    }
  }
}

TEST_F(Samples, AreDrawnAnewForEverySampleEpochAndViewAndNotAtAllWithoutAugmentation) {
  const SampleSet set = Open();
  for (const auto& view : set.views) {
    const std::vector<float> first = Drawn(*view, 3, {1, 0, 3, 0});
    EXPECT_EQ(Drawn(*view, 3, {1, 0, 3, 0}), first);
    EXPECT_NE(Drawn(*view, 3, {1, 1, 3, 0}), first);
    EXPECT_NE(Drawn(*view, 3, {1, 0, 3, 1}), first);
    EXPECT_NE(Drawn(*view, 3, {2, 0, 3, 0}), first);
  }
  for (recipe::Branch& branch : recipe_.branches) branch.augmentation.preset = "none";
  for (const auto& view : Open().views) EXPECT_EQ(Drawn(*view, 3, {1, 1, 3, 0}), Whole(*view, 3));
}

TEST_F(Samples, ChannelsOfAnImageHaveOneGeometry) {
  std::vector<std::uint8_t> pixels;  // three planes of one picture
  for (int i = 0; i < kCount * 3 * 72; ++i) pixels.push_back(static_cast<std::uint8_t>(i % 72 * 3));
  WriteNpy(Path("train", "image"), "|u1", "(40, 3, 8, 9)", pixels);
  const SampleSet set = Open();
  for (std::uint32_t i = 0; i < 20; ++i) {
    const std::vector<float> x = Drawn(*set.views[0], i, {1, 0, i, 0});
    for (std::size_t k = 0; k < 36; ++k) {
      ASSERT_EQ(x[k], x[36 + k]);
      ASSERT_EQ(x[k], x[72 + k]);
    }
  }
}

TEST_F(Samples, WavesAreCutAtAUniformPlaceAndEvaluatedInTheMiddle) {
  std::vector<int> starts(7);
  for (std::uint64_t i = 0; i < 7000; ++i) ++starts[static_cast<std::size_t>(DrawStart(16, 10, {5, 0, i, 0}))];
  for (const int count : starts) EXPECT_NEAR(count, 1000, 5 * std::sqrt(7000 * (1.0 / 7) * (6.0 / 7)));
  const SampleSet set = Open();
  const View& wave = *set.views[1];
  const std::vector<float> middle = Whole(wave, 2);
  recipe_.branches[1].augmentation.size = 16;
  const SampleSet longer = Open();
  const std::vector<float> all = Whole(*longer.views[1], 2);
  for (std::size_t k = 0; k < 10; ++k) {
    EXPECT_EQ(middle[k], all[k + 3]);
    EXPECT_EQ(middle[10 + k], all[16 + k + 3]);
  }
  // Moved by up to 16 each way it is filled with zeros, and by 0 it is what it was.
  bool moved = false;
  for (std::uint32_t i = 0; i < 20; ++i) {
    const std::vector<float> there = Whole(wave, i, 16);
    moved |= there.front() == 0 && there.back() != 0;
  }
  EXPECT_TRUE(moved);
  EXPECT_EQ(Whole(*set.views[2], 2, 16), Whole(*set.views[2], 2)) << "a vector has no place to move to";
}

TEST(Signal, WavesGetLouderAndNoisyAsOftenAsAsked) {
  const int n = 10000;
  int scaled = 0, noisy = 0;
  double noise = 0;
  for (int i = 0; i < n; ++i) {
    std::vector<float> wave(8, 0.0f);
    const DrawKey key{3, 0, static_cast<std::uint64_t>(i), 0};
    AugmentWave(wave.data(), 8, {}, key);
    noisy += wave[0] != 0;
    for (const float x : wave) noise += x * x / 8;
    std::fill(wave.begin(), wave.end(), 1.0f);
    AugmentWave(wave.data(), 8, {.noise_probability = 0}, key);
    scaled += wave[0] != 1;
    ASSERT_TRUE(wave[0] >= 0.8f && wave[0] <= 1.2f);
  }
  EXPECT_NEAR(scaled, 0.8 * n, 5 * std::sqrt(0.16 * n));
  EXPECT_NEAR(noisy, 0.5 * n, 5 * std::sqrt(0.25 * n) + 0.005 * n);  // a word may be 0
  // Half of the waves, a deviation uniform in 0..0.1: the mean square is 0.5 * 0.1^2 / 3.
  EXPECT_NEAR(noise / n, 0.5 * 0.01 / 3, 0.05 * 0.5 * 0.01 / 3);
}

TEST(Signal, VectorsAreMaskedAsOftenAsAskedEachValueOnItsOwn) {
  const int n = 10000;
  int masked = 0, both = 0;
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    std::vector<float> vector(6, 9.0f);
    AugmentVector(vector.data(), 6, {}, {3, 0, static_cast<std::uint64_t>(i), 0});
    const auto hit = [&](std::size_t k) { return vector[k] < 4.5f; };
    masked += hit(5);
    both += hit(4) && hit(5);
    const double noise = vector[5] - (hit(5) ? 0 : 9);
    sum += noise;
    squares += noise * noise;
  }
  EXPECT_NEAR(masked, 0.2 * n, 5 * std::sqrt(0.16 * n));
  EXPECT_NEAR(both, 0.04 * n, 5 * std::sqrt(0.04 * n));
  EXPECT_NEAR(sum / n, 0, 5 * 0.1 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 0.01, 5 * 0.01 * std::sqrt(2.0 / n));
}

TEST_F(Samples, FilesThatDoNotFitTheJobOrEachOtherAreRefusedByName) {
  const auto refuse = [&](const std::string& part, const std::string& descr, const std::string& shape,
                          std::int64_t bytes, const std::string& expected) {
    SCOPED_TRACE(expected);
    const std::string path = Path("train", part), before = root_ + "/before";
    fs::rename(path, before);
    WriteNpy(path, descr, shape, std::vector<std::uint8_t>(static_cast<std::size_t>(bytes), 0));
    const std::string text = Refused();
    EXPECT_THAT(text, HasSubstr("data file train-" + part + ".npy: "));
    EXPECT_THAT(text, HasSubstr(expected));
    fs::rename(before, path);
  };
  refuse("image", "<f4", "(40, 3, 8, 9)", 40 * 216 * 4,
         "found (40, 3, 8, 9) of float32; expected images of uint8, 0 to 255: (N, 3, H, W)");
  refuse("image", "|u1", "(40, 8, 9, 3)", 40 * 216, "found (40, 8, 9, 3) of uint8; expected images of uint8");
  refuse("image", "|u1", "(40, 3, 216)", 40 * 648, "channels first");
  refuse("wave", "<i2", "(40, 16)", 40 * 32, "found (40, 16) of int16; expected waveforms: (N, 2, L)");
  refuse("wave", "<i2", "(40, 2, 9)", 40 * 36, "expected waveforms of at least 10 values, the size of a view");
  refuse("vector", "<f8", "(40, 5)", 40 * 40, "found (40, 5) of float64; expected vectors: (N, 4)");
  refuse("vector", "<f8", "(40, 2, 2)", 40 * 32, "expected vectors");
  refuse("vector", "<f8", "(39, 4)", 39 * 32, "found 39 rows; expected 40, as many as train-image.npy");
  refuse("labels", "<i8", "(41,)", 41 * 8, "found 41 rows; expected 40, as many as train-image.npy");
  refuse("labels", "<f4", "(40,)", 40 * 4, "found (40,) of float32; expected one whole number for each sample");
  refuse("labels", "<i8", "(40, 1)", 40 * 8, "found (40, 1) of int64");
  WriteNpy<std::int64_t>(Path("train", "labels"), "<i8", "(40,)", std::vector<std::int64_t>(40, 256));
  EXPECT_THAT(Refused(), HasSubstr("row 0 holds label 256; expected 0 to 255"));
  fs::remove(Path("train", "labels"));
  EXPECT_EQ(Refused(), "");
  EXPECT_TRUE(Open().labels.empty());
  fs::remove(Path("train", "wave"));
  EXPECT_THAT(Refused(),
              HasSubstr("data file train-wave.npy: not found in the data root; expected part wave of split train"));
}

// Found late, where nobody looked at the whole file before.
TEST_F(Samples, AValueThatIsNoNumberEndsTheLoader) {
  std::vector<double> values = Ramp<double>(2000 * 4, 0, 1);
  values[1999 * 4] = std::nan("");
  recipe_.branches = {recipe_.branches[2], recipe_.branches[2]};
  WriteNpy(Path("train", "vector"), "<f8", "(2000, 4)", values);
  fs::remove(Path("train", "labels"));
  const SampleSet set = Open();
  LoaderOptions options;
  options.batch_size = 2000;
  Loader loader(set, options);
  EXPECT_THAT([&] { loader.Next(); },
              testing::ThrowsMessage<RankError>(HasSubstr("data file train-vector.npy: row 1999 holds nan")));
}

}  // namespace
}  // namespace vicreg::train
