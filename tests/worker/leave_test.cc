// Goal: a rank that may not wait for its peers is gone in time, whatever its collective library does, and says why.
// Method: child processes that leave: with an abort that works, hangs, throws, and with a thread that throws.

#include "worker/rank/leave.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <iostream>
#include <stdexcept>
#include <thread>

#include "worker/train/error.h"

namespace vicreg::rank {
namespace {

using std::chrono::milliseconds;

TEST(AbortAndExit, RunsTheAbortAndEndsWithTheCode) {
  EXPECT_EXIT(AbortAndExit(12, [] { std::cerr << "aborted" << std::endl; }), testing::ExitedWithCode(12), "aborted");
}

TEST(AbortAndExit, EndsInTimeWhenTheAbortHangs) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EXIT(AbortAndExit(
                  13,
                  [] {
                    while (true) pause();
                  },
                  milliseconds(20)),
              testing::ExitedWithCode(13), "");
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(20));
}

TEST(AbortAndExit, EndsWithTheCodeWhenTheAbortThrows) {
  EXPECT_EXIT(AbortAndExit(31, [] { throw std::runtime_error("ncclUnhandledCudaError"); }), testing::ExitedWithCode(31),
              "without an orderly abort: ncclUnhandledCudaError");
}

TEST(OnLostThread, ExceptionThatLeavesAThreadIsToldByItsFirstLine) {
  EXPECT_EXIT(
      {
        OnLostThread([](const std::string& what) {
          std::cerr << "[" << what << "]" << std::endl;
          _exit(31);
        });
        std::thread([] { throw std::runtime_error("Watchdog caught collective operation timeout\nframe #0"); }).join();
      },
      testing::ExitedWithCode(31), "\\[Watchdog caught collective operation timeout\\]");
}

TEST(ReasonOf, TextOfAnErrorTellsWhoIsToBlame) {
  using train::ExitReason;
  using train::ReasonOf;
  const struct {
    const char* text;
    ExitReason reason;
  } rows[] = {
      {"[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer", ExitReason::kCollective},
      {"[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)", ExitReason::kCollective},
      {"NCCL communicator was aborted on rank 0.", ExitReason::kCollective},
      {"CUDA out of memory. Tried to allocate 2.00 GiB", ExitReason::kDeviceOom},
      {"CUDA error: an illegal memory access was encountered", ExitReason::kDevice},
      {"CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm", ExitReason::kDevice},
      {"vector::_M_range_check", ExitReason::kInternal},
  };
  for (const auto& row : rows) EXPECT_EQ(ReasonOf(row.text), row.reason) << row.text;
}

}  // namespace
}  // namespace vicreg::rank
