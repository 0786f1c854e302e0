#pragma once

#include <functional>
#include <mutex>
#include <thread>

namespace vicreg::cli {

// Ctrl-C (or SIGTERM) while a command waits: the first one calls what was last set, on a thread of its own; the second
// ends the process. One per process, made before the wait begins.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();

  // `stop` must not block and may be called once at any time, at once if the signal has already come. Empty: nothing to
  // stop.
  void Set(std::function<void()> stop);
  bool seen();

 private:
  void Run();

  std::mutex mutex_;
  std::function<void()> stop_;
  bool seen_ = false;
  int pipe_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace vicreg::cli
