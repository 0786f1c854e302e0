#include "worker/core/exit.h"

#include <sys/wait.h>

#include <cstring>

namespace vicreg::worker {

v1::ExitReason ReasonOfCode(int code) {
  switch (code) {
    case 0:
      return v1::EXIT_REASON_COMPLETED;
    case 10:
      return v1::EXIT_REASON_STOPPED;
    case 11:
      return v1::EXIT_REASON_CANCELLED;
    case 12:
      return v1::EXIT_REASON_ABORTED;
    case 13:
      return v1::EXIT_REASON_FENCED;
    case 20:
      return v1::EXIT_REASON_CONFIG;
    case 21:
      return v1::EXIT_REASON_DATA;
    case 22:
      return v1::EXIT_REASON_FINGERPRINT;
    case 23:
      return v1::EXIT_REASON_NO_VALID_CHECKPOINT;
    case 24:
      return v1::EXIT_REASON_NUMERIC;
    case 25:
      return v1::EXIT_REASON_MISMATCH;
    case 27:
      return v1::EXIT_REASON_DEVICE_OOM;
    case 30:
      return v1::EXIT_REASON_RENDEZVOUS;
    case 31:
      return v1::EXIT_REASON_COLLECTIVE;
    case 32:
      return v1::EXIT_REASON_STORAGE;
    case 33:
      return v1::EXIT_REASON_DEVICE;
    default:
      return v1::EXIT_REASON_INTERNAL;
  }
}

v1::ExitReason ReasonOfStatus(int status, std::string& message, int& code) {
  if (WIFSIGNALED(status)) {
    code = 128 + WTERMSIG(status);
    message =
        std::string("killed by signal ") + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) + ")";
    return v1::EXIT_REASON_SIGNALLED;
  }
  code = WEXITSTATUS(status);
  message = "exit code " + std::to_string(code);
  return ReasonOfCode(code);
}

bool EndsWell(v1::ExitReason reason) {
  return reason == v1::EXIT_REASON_COMPLETED || reason == v1::EXIT_REASON_STOPPED ||
         reason == v1::EXIT_REASON_CANCELLED;
}

}  // namespace vicreg::worker
