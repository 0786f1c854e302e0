// Goal: what is saved comes back bit for bit, and nothing damaged is ever used.
// Method: tensors saved and parsed again; every single bit of the header and many cuts changed; checkpoints changed
// file by file.

#include "worker/train/checkpoint/checkpoint.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/files.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/error.h"

namespace vicreg::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::vector<NamedTensor> Tensors(float first) {
  return {{"a.weight", at::arange(12, at::kFloat).reshape({3, 4}) + first},
          {"b", at::full({}, 7, at::kLong)},
          {"c", at::arange(3, at::kDouble)}};
}

std::string File(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  return bytes + header + data;
}

TEST(Safetensors, RoundTrip) {
  const auto tensors = Tensors(0.5);
  const auto back = ParseSafetensors(SafetensorsBytes(tensors, {{"format", "pt"}}));
  ASSERT_EQ(back.size(), tensors.size());
  for (std::size_t i = 0; i < back.size(); ++i) {
    EXPECT_EQ(back[i].name, tensors[i].name);
    EXPECT_TRUE(at::equal(back[i].value, tensors[i].value));
  }
}

TEST(Safetensors, RefusesWhatLies) {
  const std::string eight(8, 'x');
  EXPECT_NO_THROW(ParseSafetensors(File(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", eight)));
  for (
      const std::string header :
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})",
       R"({"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
       R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}})", R"([1])", R"({"a":)", ""}) {
    EXPECT_THROW(ParseSafetensors(File(header, eight)), std::invalid_argument) << header;
  }
}

// A flipped bit may leave a readable file with a renamed tensor; then the recipe's names do not match.
TEST(Safetensors, AnyBitOfTheHeaderAndAnyCut) {
  const std::string good = SafetensorsBytes(Tensors(0));
  std::uint64_t header = 0;
  std::copy_n(good.data(), 8, reinterpret_cast<char*>(&header));
  for (std::size_t i = 0; i < 8 + header; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      auto target = Tensors(100);
      EXPECT_THROW(CopyInto(ParseSafetensors(bad), target), std::invalid_argument) << "byte " << i << " bit " << bit;
    }
  }
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_THROW(ParseSafetensors(good.substr(0, size)), std::invalid_argument) << size;
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    std::string pattern = (fs::temp_directory_path() / "vicreg-ckpt-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    saved_ = SaveCheckpoint(root_, {"default", "job", 1, 40, "recipe"}, Tensors(0), Tensors(50));
  }
  ~CheckpointTest() override { fs::remove_all(root_); }

  void Load(const std::string& hash, std::int64_t step = 40, const std::string& recipe = "recipe") {
    LoadCheckpoint(root_, saved_.path, hash, step, recipe, model_, optimizer_);
  }
  ExitReason Reason(const std::string& hash, std::int64_t step = 40, const std::string& recipe = "recipe") {
    try {
      Load(hash, step, recipe);
    } catch (const RankError& error) {
      return error.reason;
    }
    return ExitReason::kCompleted;
  }

  std::string root_;
  SavedCheckpoint saved_;
  std::vector<NamedTensor> model_ = Tensors(1), optimizer_ = Tensors(2);
};

TEST_F(CheckpointTest, RoundTrip) {
  EXPECT_EQ(saved_.path, "default/job/a1/step-40");
  Load(saved_.hash);
  EXPECT_TRUE(at::equal(model_[0].value, Tensors(0)[0].value));
  EXPECT_TRUE(at::equal(optimizer_[0].value, Tensors(50)[0].value));
  EXPECT_FALSE(fs::exists(root_ + "/" + saved_.path + ".tmp"));
}

TEST_F(CheckpointTest, TellsTheBytesAsTheyAreWritten) {
  Progress progress;
  const SavedCheckpoint saved =
      SaveCheckpoint(root_, {"default", "job", 1, 41, "recipe"}, Tensors(0), Tensors(50), &progress);
  EXPECT_EQ(progress.Look().written_bytes,
            saved.bytes + static_cast<std::int64_t>(fs::file_size(root_ + "/" + saved.path + "/manifest.json")));
}

TEST_F(CheckpointTest, RefusesAnotherHashStepRecipeOrShape) {
  EXPECT_EQ(Reason(std::string(64, '0')), ExitReason::kNoValidCheckpoint);
  EXPECT_EQ(Reason(saved_.hash, 41), ExitReason::kNoValidCheckpoint);
  EXPECT_EQ(Reason(saved_.hash, 40, "other"), ExitReason::kNoValidCheckpoint);
  model_[0].value = at::zeros({4, 3});
  EXPECT_EQ(Reason(saved_.hash), ExitReason::kNoValidCheckpoint);
}

TEST_F(CheckpointTest, RefusesEveryDamagedFile) {
  for (const std::string name : {"manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"}) {
    const std::string path = root_ + "/" + saved_.path + "/" + name, good = *ReadFile(path);
    std::string bad = good;
    bad[bad.size() / 2] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(path, bad).ok());
    EXPECT_EQ(Reason(saved_.hash), ExitReason::kNoValidCheckpoint) << name;
    fs::remove(path);
    EXPECT_EQ(Reason(saved_.hash), ExitReason::kNoValidCheckpoint) << name;
    ASSERT_TRUE(WriteFileAtomically(path, good).ok());
  }
  EXPECT_EQ(Reason(saved_.hash), ExitReason::kCompleted);
}

TEST_F(CheckpointTest, UnwritableRootIsAStorageError) {
  std::ofstream(root_ + "/file") << "x";
  try {
    SaveCheckpoint(root_ + "/file", {"default", "job", 1, 1, "r"}, Tensors(0), Tensors(0));
    FAIL() << "wrote below a file";
  } catch (const RankError& error) {
    EXPECT_EQ(error.reason, ExitReason::kStorage);
    EXPECT_THAT(error.what(), HasSubstr(root_));
  }
}

}  // namespace
}  // namespace vicreg::train
