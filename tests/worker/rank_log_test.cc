// Goal: a rank that writes without end fills no disk, loses no line of its own, and its log can be read by offset as if
// nothing were cut. Method: a writer with its own appending descriptor, as a rank has; every line names its own offset,
// so a wrong byte shows.

#include "worker/agent/rank_log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "common/files.h"

namespace vicreg::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::int64_t kLine = 64;

std::string LineAt(std::int64_t offset) {
  char text[kLine + 1];
  std::snprintf(text, sizeof text, "%062lld|\n", static_cast<long long>(offset));
  return text;
}

class RankLog : public testing::Test {
 protected:
  RankLog() {
    std::string name = testing::TempDir() + "vicreg-log-XXXXXX";
    folder_ = mkdtemp(name.data());
    path_ = folder_ + "/rank-0.log";
    fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  }
  ~RankLog() override {
    close(fd_);
    std::filesystem::remove_all(folder_);
  }

  void Write(std::int64_t bytes) {
    std::string text;
    for (const std::int64_t end = written_ + bytes; written_ < end; written_ += kLine) text += LineAt(written_);
    ASSERT_EQ(write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  struct stat Stat() const {
    struct stat found {};
    EXPECT_EQ(stat(path_.c_str(), &found), 0);
    return found;
  }
  LogPart Read(std::int64_t offset, int most = 1 << 16) const {
    const auto part = ReadRankLog(path_, offset, most);
    EXPECT_TRUE(part.ok()) << part.status();
    return part.value_or(LogPart{});
  }

  std::string folder_, path_;
  int fd_ = -1;
  std::int64_t written_ = 0;
};

TEST_F(RankLog, LiesUnderJobAttemptAndRank) {
  EXPECT_EQ(RankLogPath("/state", "job", 3, 1), "/state/logs/job/a3/rank-1.log");
}

TEST_F(RankLog, WithinTheBoundIsNotTouched) {
  Write(kMostLogBytes - (1 << 20));
  const auto cut = CapRankLog(path_);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_FALSE(*cut);
  EXPECT_EQ(Read(kMostLogBytes / 2).data.substr(0, kLine), LineAt(kMostLogBytes / 2));
}

TEST_F(RankLog, ThatOutgrowsTheBoundKeepsBeginningAndEndAndTheWriterGoesOn) {
  for (int i = 0; i < 40; ++i) {
    Write(2 << 20);
    ASSERT_TRUE(CapRankLog(path_).ok());
    ASSERT_LE(Stat().st_blocks * 512, kMostLogBytes + (1 << 20)) << "after " << written_ << " bytes";
  }
  EXPECT_EQ(Stat().st_size, written_) << "offsets are for ever";
  for (const std::int64_t offset : {std::int64_t{0}, kLogHead - kLine, written_ - kLogTail, written_ - kLine}) {
    EXPECT_EQ(Read(offset, kLine).data, LineAt(offset));
  }
}

TEST_F(RankLog, IsReadOnBehindACutAfterOneLineThatSaysHowMuchIsGone) {
  Write(kMostLogBytes * 2);
  ASSERT_TRUE(*CapRankLog(path_));
  std::int64_t offset = 0, gone = 0;
  int notices = 0;
  while (true) {
    const LogPart part = Read(offset);
    ASSERT_LE(part.data.size(), 1u << 16);
    if (part.data.empty()) break;
    ASSERT_THAT(part.data, Not(HasSubstr(std::string(1, '\0')))) << "at " << offset;
    if (part.offset == offset) {
      for (std::int64_t at = 0; at < static_cast<std::int64_t>(part.data.size()); at += kLine) {
        ASSERT_EQ(part.data.substr(static_cast<std::size_t>(at), kLine), LineAt(offset + at));
      }
    } else {
      ++notices;
      gone = part.offset + static_cast<std::int64_t>(part.data.size()) - offset;
      EXPECT_EQ(offset, kLogHead);
      EXPECT_THAT(part.data, HasSubstr("[... " + std::to_string(gone) + " bytes of this log were cut"));
    }
    ASSERT_GT(part.offset + static_cast<std::int64_t>(part.data.size()), offset);
    offset = part.offset + static_cast<std::int64_t>(part.data.size());
  }
  EXPECT_EQ(notices, 1);
  EXPECT_EQ(offset, written_);
  EXPECT_GE(written_ - gone - kLogHead, kLogTail);
  // A reader that stood in the middle when it was cut is led to the same place.
  const LogPart part = Read(kLogHead + gone / 2);
  EXPECT_EQ(part.offset + static_cast<std::int64_t>(part.data.size()), kLogHead + gone);
}

TEST_F(RankLog, AtOrBehindItsEndHasNothingYet) {
  Write(kLine);
  for (const std::int64_t offset : {kLine, kLine + 1, std::int64_t{1} << 40}) {
    EXPECT_EQ(Read(offset).offset, offset);
    EXPECT_EQ(Read(offset).data, "");
  }
  Write(kLine);
  EXPECT_EQ(Read(kLine).data, LineAt(kLine));
}

TEST_F(RankLog, SizesAndOffsetsOfNoSenseAreClamped) {
  Write(1 << 20);
  EXPECT_EQ(Read(0, -5).data.size(), 1u);
  EXPECT_EQ(Read(0, 1 << 30).data.size(), 1u << 16);
  EXPECT_EQ(Read(-7, kLine).data, LineAt(0));
}

TEST_F(RankLog, ThatIsNotThereOrIsALinkIsAnError) {
  EXPECT_EQ(ReadRankLog(folder_ + "/none", 0, 10).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(CapRankLog(folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/other", "not a log").ok());
  ASSERT_EQ(symlink((folder_ + "/other").c_str(), (folder_ + "/rank-1.log").c_str()), 0);
  EXPECT_FALSE(ReadRankLog(folder_ + "/rank-1.log", 0, 10).ok());
}

}  // namespace
}  // namespace vicreg::agent
