#include "cli/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "cli/exit_code.h"

namespace vicreg::cli {
namespace {

int signal_pipe = -1;
volatile std::sig_atomic_t signals = 0;

void OnSignal(int) {
  const int saved = errno;
  if (signals != 0) _exit(kDetached);
  signals = 1;
  const char byte = 1;
  if (write(signal_pipe, &byte, 1) != 1) _exit(kDetached);
  errno = saved;
}

}  // namespace

Interrupts::Interrupts() {
  if (pipe2(pipe_, O_CLOEXEC) != 0)
    std::abort();  // no descriptor left for a single pipe: nothing else would work either
  signal_pipe = pipe_[1];
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  thread_ = std::thread([this] { Run(); });
}

Interrupts::~Interrupts() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  close(pipe_[1]);
  thread_.join();
  close(pipe_[0]);
}

void Interrupts::Run() {
  char byte = 0;
  ssize_t got = 0;
  while ((got = read(pipe_[0], &byte, 1)) < 0 && errno == EINTR) {
  }
  if (got != 1) return;
  const std::lock_guard lock(mutex_);
  seen_ = true;
  if (stop_) stop_();
}

void Interrupts::Set(std::function<void()> stop) {
  const std::lock_guard lock(mutex_);
  stop_ = std::move(stop);
  if (seen_ && stop_) stop_();
}

bool Interrupts::seen() {
  const std::lock_guard lock(mutex_);
  return seen_;
}

}  // namespace vicreg::cli
