// Goal: a child gets what it was given and nothing of ours, and it can always be ended with all it started.
// Method: real /bin/sh children that stop themselves, so that they can be looked at in /proc without a race.

#include "common/process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "common/files.h"
#include "common/ids.h"

namespace vicreg {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr char kStop[] = "kill -STOP $$";

class ChildProcess : public testing::Test {
 protected:
  ChildProcess() {
    std::string name = testing::TempDir() + "vicreg-process-XXXXXX";
    folder_ = mkdtemp(name.data());
    log_ = folder_ + "/log";
  }
  ~ChildProcess() override {
    for (const Process& child : children_) {
      if (child.pid > 1 && kill(child.pid, 0) == 0) {
        kill(-child.pid, SIGKILL);
        kill(child.pid, SIGKILL);
        waitpid(child.pid, nullptr, 0);
      }
      close(child.pidfd);
    }
    std::filesystem::remove_all(folder_);
  }

  ProcessSpec Shell(const std::string& script) const {
    return {.program = "/bin/sh", .arguments = {"-c", script}, .log_path = log_};
  }

  int Start(const ProcessSpec& spec) {
    const auto child = Spawn(spec);
    EXPECT_TRUE(child.ok()) << child.status();
    if (!child.ok()) return 0;
    children_.push_back(*child);
    return child->pid;
  }

  // Of a child that stops itself: when it has.
  int StartAndStop(const ProcessSpec& spec) {
    const int pid = Start(spec);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, WUNTRACED), pid);
    EXPECT_TRUE(WIFSTOPPED(status)) << *ReadFile(log_);
    return pid;
  }

  // What it wrote, after its end with code 0.
  std::string OutputOf(const ProcessSpec& spec) {
    const int pid = Start(spec);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    children_.back().pid = 0;
    const std::string output = *ReadFile(log_);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << output;
    return output;
  }

  std::string folder_, log_;
  std::vector<Process> children_;
};

// Number -> what it leads to.
std::map<int, std::string> Descriptors(int pid) {
  std::map<int, std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    found[std::stoi(entry.path().filename())] = std::filesystem::read_symlink(entry.path());
  }
  return found;
}

TEST_F(ChildProcess, HasTheEnvironmentItWasGivenAndNothingOfOurs) {
  setenv("VICREG_TEST_TOKEN", "secret", 1);
  ProcessSpec spec{.program = "/usr/bin/env", .environment = {{"A", "1"}, {"B", "two words=2"}}, .log_path = log_};
  EXPECT_EQ(OutputOf(spec), "A=1\nB=two words=2\n");
  unsetenv("VICREG_TEST_TOKEN");
}

TEST_F(ChildProcess, GetsItsArgumentsAsTheyAreWithoutAShell) {
  ProcessSpec spec{
      .program = "/usr/bin/printf", .arguments = {"[%s]", "a b", "$HOME", "*", "", "';x"}, .log_path = log_};
  EXPECT_EQ(OutputOf(spec), "[a b][$HOME][*][][';x]");
}

TEST_F(ChildProcess, LeadsASessionAndAGroupOfItsOwn) {
  const int pid = StartAndStop(Shell(kStop));
  EXPECT_EQ(getsid(pid), pid);
  EXPECT_EQ(getpgid(pid), pid);
  EXPECT_NE(getsid(0), pid);
}

TEST_F(ChildProcess, InheritsNoDescriptorButTheFirstThree) {
  // Descriptors that somebody forgot to mark, low and high.
  const int low = open("/dev/zero", O_RDONLY), high = dup2(low, 200);
  ASSERT_TRUE(low >= 3 && high == 200);
  const int pid = StartAndStop(Shell(kStop));
  EXPECT_THAT(Descriptors(pid), ElementsAre(Pair(0, "/dev/null"), Pair(1, log_), Pair(2, log_)));
  close(low);
  close(high);
}

TEST_F(ChildProcess, ReadsTheSecretFromDescriptorThreeAndNowhereElse) {
  // With descriptor 3 free in this process, so that the pipe may get that very number, and with it taken.
  for (const bool taken : {false, true}) {
    const int other = taken ? open("/dev/zero", O_RDONLY) : -1;
    ProcessSpec spec = Shell("cat <&3; echo; kill -STOP $$");
    spec.environment = {{"PATH", "/usr/bin:/bin"}};
    spec.secret = "pass phrase";
    const int pid = StartAndStop(spec);
    EXPECT_THAT(Descriptors(pid),
                ElementsAre(Pair(0, "/dev/null"), Pair(1, log_), Pair(2, log_), Pair(3, HasSubstr("pipe:"))));
    EXPECT_EQ(*ReadFile(log_), "pass phrase\n") << "the pipe ends behind the secret";
    for (const char* file : {"cmdline", "environ"}) {
      EXPECT_THAT(*ReadFile("/proc/" + std::to_string(pid) + "/" + file), testing::Not(HasSubstr("pass phrase")));
    }
    std::filesystem::remove(log_);
    if (taken) close(other);
  }
}

TEST_F(ChildProcess, WritesBothStreamsBehindWhatTheLogHolds) {
  ASSERT_TRUE(WriteFileAtomically(log_, "before\n").ok());
  EXPECT_EQ(OutputOf(Shell("echo out; echo err >&2")), "before\nout\nerr\n");
}

TEST_F(ChildProcess, StartsWithNoSignalBlockedOrIgnored) {
  sigset_t term, old;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, &old);
  const auto handler = signal(SIGPIPE, SIG_IGN);
  const int pid = StartAndStop({.program = "/bin/sh", .arguments = {"-c", kStop}, .log_path = log_});
  signal(SIGPIPE, handler);
  sigprocmask(SIG_SETMASK, &old, nullptr);
  const std::string status = *ReadFile("/proc/" + std::to_string(pid) + "/status");
  EXPECT_THAT(status, HasSubstr("SigBlk:\t0000000000000000"));
  // All but 32 and 33, which belong to the C library and stay as they came.
  const std::uint64_t ignored = std::stoull(status.substr(status.find("SigIgn:\t") + 8), nullptr, 16);
  EXPECT_EQ(ignored & ~(std::uint64_t{3} << 31), 0u) << status;
}

TEST_F(ChildProcess, ThatCannotStartIsAnErrorNamingTheProgram) {
  const auto missing = Spawn({.program = folder_ + "/none", .log_path = log_});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.status().message(), "cannot start " + folder_ + "/none: No such file or directory");
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/text", "hello").ok());
  EXPECT_EQ(Spawn({.program = folder_ + "/text", .log_path = log_}).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_FALSE(Spawn({.program = "/bin/true", .log_path = folder_ + "/none/log"}).ok());
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "no half-started child is left";
}

TEST_F(ChildProcess, EndShowsOnItsPidfd) {
  const int pid = StartAndStop(Shell(kStop));
  pollfd watch{children_.back().pidfd, POLLIN, 0};
  EXPECT_EQ(poll(&watch, 1, 0), 0) << "stopped is not ended";
  kill(pid, SIGKILL);
  EXPECT_EQ(poll(&watch, 1, 10000), 1);
}

TEST_F(ChildProcess, IsKilledWithAllItStarted) {
  // The grandchild becomes ours to reap when its parent is gone.
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const int pid = StartAndStop(Shell("trap '' TERM; /bin/sleep 1000 & echo $!; kill -STOP $$"));
  const int grandchild = std::atoi(ReadFile(log_)->c_str());
  ASSERT_GT(grandchild, 1);
  ASSERT_EQ(getpgid(grandchild), pid);
  EXPECT_TRUE(KillGroupAndWait(pid));
  for (const int ended : {pid, grandchild}) {
    int status = 0;
    pollfd watch{PidfdOpen(ended), POLLIN, 0};
    EXPECT_EQ(poll(&watch, 1, 10000), 1) << ended << " lives on";
    close(watch.fd);
    if (HasFailure()) kill(ended, SIGKILL);
    EXPECT_EQ(waitpid(ended, &status, 0), ended);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << ended;
  }
  EXPECT_TRUE(KillGroupAndWait(pid)) << "gone already";
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(KillGroupDeathTest, NumberOfNoProcessKillsNobody) {
  testing::FLAGS_gtest_death_test_style = "fast";
  EXPECT_EXIT(
      {
        setsid();  // a group that may die without us
        KillGroupAndWait(0);
        _exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(ChildProcess, StartTimeTellsApartProcessesOfOneNumber) {
  const std::uint64_t ours = StartTime(getpid());
  EXPECT_GT(ours, 0u);
  char name[16];
  prctl(PR_GET_NAME, name);
  prctl(PR_SET_NAME, "a) R 1 (b 2 3");
  EXPECT_EQ(StartTime(getpid()), ours) << "a name of parentheses and spaces moves no field";
  prctl(PR_SET_NAME, name);
  const int pid = StartAndStop(Shell(kStop));
  const std::uint64_t theirs = StartTime(pid);
  EXPECT_GE(theirs, ours);
  EXPECT_EQ(StartTime(pid), theirs);
  // Ticks of 10 ms since boot, so no later than now.
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  EXPECT_LE(theirs, static_cast<std::uint64_t>(now.tv_sec + 1) * static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK)));
  kill(pid, SIGKILL);
  ASSERT_EQ(waitpid(pid, nullptr, 0), pid);
  EXPECT_EQ(StartTime(pid), 0u);
  EXPECT_EQ(PidfdOpen(pid), -1);
}

TEST(BootId, IsTheSameUntilTheNextBoot) {
  EXPECT_TRUE(IsUuid(BootId()));
  EXPECT_EQ(BootId(), BootId());
}

TEST_F(ChildProcess, DoesNotKeepOurLock) {
  auto lock = LockFile(folder_ + "/lock");
  ASSERT_TRUE(lock.ok());
  StartAndStop(Shell(kStop));
  { const FileLock dropped = *std::move(lock); }
  EXPECT_TRUE(LockFile(folder_ + "/lock").ok());
}

}  // namespace
}  // namespace vicreg
