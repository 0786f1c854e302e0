#include "worker/rank/leave.h"

#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <iostream>
#include <thread>

#include "common/process.h"

namespace vicreg::rank {
namespace {

std::atomic<void (*)(const std::string&)> on_lost_thread{nullptr};

void Terminate() {
  std::string what = "a thread ended without saying why";
  try {
    if (const auto thrown = std::current_exception()) std::rethrow_exception(thrown);
  } catch (const std::exception& error) {
    what = error.what();
  } catch (...) {
    what = "a thread threw something unknown";
  }
  on_lost_thread.load()(what.substr(0, what.find('\n')));  // torch appends a stack trace
  _exit(70);
}

void ShowStack(int) {
  void* frames[64];
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
}

}  // namespace

void ShowStackWhenAsked() {
  void* frame = nullptr;
  backtrace(&frame, 1);  // loads what it needs: a handler may not
  struct sigaction action {};
  action.sa_handler = ShowStack;
  action.sa_flags = SA_RESTART;
  sigaction(kStackSignal, &action, nullptr);
}

void AbortAndExit(int code, const std::function<void()>& abort, std::chrono::milliseconds limit) {
  std::thread([=] {
    std::this_thread::sleep_for(limit);
    _exit(code);
  }).detach();
  try {
    abort();
  } catch (const std::exception& error) {
    std::cerr << "leaving without an orderly abort: " << error.what() << std::endl;
  }
  _exit(code);
}

void OnLostThread(void (*leave)(const std::string& what)) {
  on_lost_thread = leave;
  std::set_terminate(Terminate);
}

}  // namespace vicreg::rank
