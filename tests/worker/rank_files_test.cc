// Goal: a restarted worker finds, or ends, the ranks of the one before it and never a stranger, whatever its files
// hold. Method: real children; a file that differs from the process in one fact must spare it.

#include "worker/agent/rank_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "common/exit_record.h"
#include "common/files.h"
#include "common/process.h"

namespace vicreg::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Leftovers : public testing::Test {
 protected:
  Leftovers() {
    std::string name = testing::TempDir() + "vicreg-leftovers-XXXXXX";
    folder_ = mkdtemp(name.data());
    EXPECT_TRUE(MakeFolders(Files()).ok());
    const auto child = Spawn({.program = "/bin/sleep", .arguments = {"1000"}, .log_path = folder_ + "/log"});
    EXPECT_TRUE(child.ok()) << child.status();
    child_ = *child;
  }
  ~Leftovers() override {
    kill(child_.pid, SIGKILL);
    waitpid(child_.pid, nullptr, 0);
    close(child_.pidfd);
    std::filesystem::remove_all(folder_);
  }

  std::string Files() const { return folder_ + "/ranks"; }
  RankFile OfChild() const { return {"job", 2, 1, child_.pid, StartTime(child_.pid), BootId()}; }
  bool Ended() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(child_.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == child_.pid;
  }
  bool NoFiles() const { return std::filesystem::is_empty(Files()); }

  std::string folder_;
  Process child_;
};

TEST_F(Leftovers, ProcessThatIsStillTheSameIsEndedAndItsFileRemoved) {
  ASSERT_TRUE(SaveRankFile(Files(), OfChild()).ok());
  EXPECT_EQ(std::filesystem::directory_iterator(Files())->path().filename(), "job-a2-r1.json");
  const auto done = EndLeftovers(Files());
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_THAT(*done, ElementsAre("ended rank process " + std::to_string(child_.pid) +
                                 " of an earlier worker (job-a2-r1.json)"));
  EXPECT_TRUE(Ended());
  EXPECT_TRUE(NoFiles());
}

TEST_F(Leftovers, ProcessThatDiffersInOneFactIsSpared) {
  RankFile other_start = OfChild(), other_boot = OfChild(), no_start = OfChild();
  other_start.start_time += 1;
  other_boot.boot_id = "00000000-0000-4000-8000-000000000000";
  no_start.start_time = 0;
  for (const RankFile& file : {other_start, other_boot, no_start}) {
    ASSERT_TRUE(SaveRankFile(Files(), file).ok());
    ASSERT_TRUE(EndLeftovers(Files()).ok());
    EXPECT_FALSE(Ended());
    EXPECT_TRUE(NoFiles()) << "a stale file is removed";
  }
}

TEST_F(Leftovers, FilesOfProcessesThatAreGoneAreRemovedInSilence) {
  RankFile gone = OfChild();
  kill(child_.pid, SIGKILL);
  ASSERT_EQ(waitpid(child_.pid, nullptr, 0), child_.pid);
  ASSERT_TRUE(SaveRankFile(Files(), gone).ok());
  const auto done = EndLeftovers(Files());
  ASSERT_TRUE(done.ok());
  EXPECT_THAT(*done, IsEmpty());
  EXPECT_TRUE(NoFiles());
}

TEST_F(Leftovers, DamagedFileIsRemovedAndKillsNobody) {
  const std::string pid = std::to_string(child_.pid), start = std::to_string(StartTime(child_.pid)),
                    boot = "\"" + BootId() + "\"";
  for (const std::string& text : {
           std::string(),
           std::string("{"),
           std::string("null"),
           std::string("[1]"),
           std::string("{}"),
           "{\"pid\": " + pid + ", \"boot_id\": " + boot + "}",
           "{\"pid\": \"" + pid + "\", \"start_time\": " + start + ", \"boot_id\": " + boot + "}",
           "{\"pid\": " + pid + ", \"start_time\": \"" + start + "\", \"boot_id\": " + boot + "}",
           "{\"pid\": " + pid + ", \"start_time\": " + start + ", \"boot_id\": 7}",
           "{\"pid\": -" + pid + ", \"start_time\": " + start + ", \"boot_id\": " + boot + "}",
           "{\"pid\": -1, \"start_time\": 0, \"boot_id\": " + boot + "}",
           "{\"pid\": 0, \"start_time\": 0, \"boot_id\": " + boot + "}",
           "{\"pid\": 4294967295, \"start_time\": 0, \"boot_id\": " + boot + "}",
           // 2^32 + pid: the same number once it is cut to 32 bits.
           "{\"pid\": " + std::to_string((std::int64_t{1} << 32) + child_.pid) + ", \"start_time\": " + start +
               ", \"boot_id\": " + boot + "}",
           std::string("\xff\xfe\x00", 3),
       }) {
    SCOPED_TRACE(text);
    ASSERT_TRUE(WriteFileAtomically(Files() + "/job-a1-r0.json", text).ok());
    const auto done = EndLeftovers(Files());
    ASSERT_TRUE(done.ok()) << done.status();
    EXPECT_THAT(*done, ElementsAre(HasSubstr("job-a1-r0.json")));
    EXPECT_FALSE(Ended());
    EXPECT_TRUE(NoFiles());
  }
}

TEST_F(Leftovers, DamagedFileDoesNotHideTheOthers) {
  ASSERT_TRUE(WriteFileAtomically(Files() + "/a-a1-r0.json", "{").ok());
  ASSERT_TRUE(WriteFileAtomically(Files() + "/z-a1-r0.json", "{").ok());
  ASSERT_TRUE(SaveRankFile(Files(), OfChild()).ok());
  ASSERT_TRUE(EndLeftovers(Files()).ok());
  EXPECT_TRUE(Ended());
  EXPECT_TRUE(NoFiles());
}

TEST_F(Leftovers, RemovedFileIsNotFoundAgainAndRemovingTwiceIsFine) {
  ASSERT_TRUE(SaveRankFile(Files(), OfChild()).ok());
  RemoveRankFile(Files(), "job", 2, 1);
  RemoveRankFile(Files(), "job", 2, 1);
  ASSERT_TRUE(EndLeftovers(Files()).ok());
  EXPECT_FALSE(Ended());
}

TEST_F(Leftovers, LivingRankIsFoundWithAllThatAdoptingItTakes) {
  RankFile file = OfChild();
  file.slot = 3;
  file.secret = std::string("\x00\xff\x7fsecret", 9);
  file.launch = std::string("\x0a\x00\xfe", 3);
  ASSERT_TRUE(SaveRankFile(Files(), file).ok());
  EXPECT_EQ(std::filesystem::status(Files() + "/job-a2-r1.json").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)
      << "it holds a secret";
  const auto found = FindRanks(Files());
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ(found->size(), 1u);
  const RankFile& same = found->front().file;
  EXPECT_TRUE(found->front().lives);
  EXPECT_EQ(std::tie(same.job_id, same.attempt, same.rank, same.pid, same.slot, same.secret, same.launch),
            std::tie(file.job_id, file.attempt, file.rank, file.pid, file.slot, file.secret, file.launch));
  EXPECT_FALSE(Ended());
}

TEST_F(Leftovers, EndedRankIsFoundOnlyByTheRecordItLeft) {
  const RankFile file = OfChild();
  kill(child_.pid, SIGKILL);
  ASSERT_EQ(waitpid(child_.pid, nullptr, 0), child_.pid);
  ASSERT_TRUE(SaveRankFile(Files(), file).ok());
  const std::string record = ExitRecordPath(Files(), "job", 2, 1);
  ASSERT_TRUE(SaveExitRecord(record, {24, 7, "loss is \xff"}));
  const auto found = FindRanks(Files());
  ASSERT_TRUE(found.ok() && found->size() == 1);
  EXPECT_FALSE(found->front().lives);
  EXPECT_EQ(LoadExitRecord(record)->code, 24);
  EXPECT_EQ(LoadExitRecord(record)->nonfinite_step, 7);
  EXPECT_THAT(LoadExitRecord(record)->message, HasSubstr("loss is"));
  for (const std::string damaged : {"", "{", "{\"code\": 300, \"nonfinite_step\": 0, \"message\": \"\"}", "[]"}) {
    ASSERT_TRUE(WriteFileAtomically(record, damaged).ok());
    EXPECT_FALSE(LoadExitRecord(record)) << damaged;
  }
  EXPECT_TRUE(FindRanks(Files())->empty());
  EXPECT_FALSE(std::filesystem::exists(Files() + "/job-a2-r1.json")) << "it names no process any more";
  ASSERT_TRUE(EndLeftovers(Files()).ok());
  EXPECT_TRUE(NoFiles()) << "records too";
}

TEST_F(Leftovers, RankOfAnotherBootIsNotFoundWhateverItsNumberIsNow) {
  RankFile file = OfChild();
  file.boot_id = "00000000-0000-4000-8000-000000000000";
  ASSERT_TRUE(SaveRankFile(Files(), file).ok());
  ASSERT_TRUE(SaveExitRecord(ExitRecordPath(Files(), "job", 2, 1), {0, 0, ""}));
  EXPECT_TRUE(FindRanks(Files())->empty());
  EXPECT_FALSE(Ended());
}

TEST_F(Leftovers, FolderThatCannotBeReadIsAnErrorNamingIt) {
  const auto done = EndLeftovers(folder_ + "/none");
  EXPECT_THAT(done.status().message(), HasSubstr(folder_ + "/none"));
}

}  // namespace
}  // namespace vicreg::agent
