#pragma once

// What the threads of a hanging rank are doing, for whoever reads its log.

#include <string>

namespace vicreg::agent {

// Appends a line for each thread of `pid` (name, state, where in the kernel it waits) to the log, then asks the process
// for its own stack (kStackSignal), which it writes to the same log if it still runs. What cannot be read is left out:
// the process may end meanwhile.
void DumpThreads(int pid, const std::string& log_path);

}  // namespace vicreg::agent
