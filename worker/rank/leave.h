#pragma once

// How a rank leaves when it may not wait for its peers. No torch here.

#include <chrono>
#include <functional>
#include <string>

namespace vicreg::rank {

// Runs `abort` and ends the process with `code`; after `limit` at the latest, also if `abort` hangs or throws. No
// destructor runs.
[[noreturn]] void AbortAndExit(int code, const std::function<void()>& abort,
                               std::chrono::milliseconds limit = std::chrono::seconds(5));

// From now on, an exception that leaves a thread is told to `leave`, which must end the process. NCCL's watchdog throws
// so when a collective takes too long or a peer is lost, while the thread that waits for the GPU never comes back.
void OnLostThread(void (*leave)(const std::string& what));

// From now on kStackSignal (common/process.h) writes the stack of the thread that takes it, the main one, to stderr.
void ShowStackWhenAsked();

}  // namespace vicreg::rank
