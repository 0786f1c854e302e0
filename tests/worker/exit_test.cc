// Goal: every way a rank process can end becomes the reason the coordinator decides on.
// Method: one row per exit code of the closed list; wait statuses are those of real children.

#include "worker/core/exit.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>

namespace vicreg::worker {
namespace {

const std::map<int, v1::ExitReason> kCodes = {
    {0, v1::EXIT_REASON_COMPLETED},   {10, v1::EXIT_REASON_STOPPED},     {11, v1::EXIT_REASON_CANCELLED},
    {12, v1::EXIT_REASON_ABORTED},    {13, v1::EXIT_REASON_FENCED},      {20, v1::EXIT_REASON_CONFIG},
    {21, v1::EXIT_REASON_DATA},       {22, v1::EXIT_REASON_FINGERPRINT}, {23, v1::EXIT_REASON_NO_VALID_CHECKPOINT},
    {24, v1::EXIT_REASON_NUMERIC},    {25, v1::EXIT_REASON_MISMATCH},    {27, v1::EXIT_REASON_DEVICE_OOM},
    {30, v1::EXIT_REASON_RENDEZVOUS}, {31, v1::EXIT_REASON_COLLECTIVE},  {32, v1::EXIT_REASON_STORAGE},
    {33, v1::EXIT_REASON_DEVICE},
};

// Wait status of a child that does this.
template <typename F>
int StatusOf(F what) {
  const pid_t child = fork();
  if (child == 0) {
    what();
    _exit(99);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST(ExitCode, OnTheListHasItsReasonAndAnyOtherIsInternal) {
  for (int code = 0; code < 256; ++code) {
    const auto listed = kCodes.find(code);
    EXPECT_EQ(ReasonOfCode(code), listed == kCodes.end() ? v1::EXIT_REASON_INTERNAL : listed->second) << code;
  }
}

TEST(WaitStatus, OfAnExitedProcessGivesReasonCodeAndSentence) {
  for (const int expected : {0, 10, 24, 70, 255}) {
    std::string message;
    int code = -1;
    EXPECT_EQ(ReasonOfStatus(StatusOf([&] { _exit(expected); }), message, code), ReasonOfCode(expected));
    EXPECT_EQ(code, expected);
    EXPECT_EQ(message, "exit code " + std::to_string(expected));
  }
}

TEST(WaitStatus, OfASignalledProcessNamesTheSignalAndIsNeverAnExitCode) {
  for (const auto& [number, sentence] :
       std::map<int, std::string>{{SIGKILL, "killed by signal 9 (Killed)"},
                                  {SIGTERM, "killed by signal 15 (Terminated)"},
                                  {SIGUSR1, "killed by signal 10 (User defined signal 1)"}}) {
    std::string message;
    int code = -1;
    EXPECT_EQ(ReasonOfStatus(StatusOf([&, signal = number] { kill(getpid(), signal); }), message, code),
              v1::EXIT_REASON_SIGNALLED);
    EXPECT_EQ(code, 128 + number);
    EXPECT_EQ(message, sentence);
  }
}

TEST(EndsWell, OnlyPlannedEndsSparePeers) {
  for (int reason = v1::ExitReason_MIN; reason <= v1::ExitReason_MAX; ++reason) {
    const bool planned =
        reason == v1::EXIT_REASON_COMPLETED || reason == v1::EXIT_REASON_STOPPED || reason == v1::EXIT_REASON_CANCELLED;
    EXPECT_EQ(EndsWell(static_cast<v1::ExitReason>(reason)), planned) << reason;
  }
}

}  // namespace
}  // namespace vicreg::worker
