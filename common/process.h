#pragma once

// Child processes: started in a session of their own with a constructed environment, watched by pidfd, ended by process
// group.

#include <csignal>
#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"

namespace vicreg {

// Asks a rank to write the stack of the thread that trains to its log. Not SIGUSR1: NCCL uses that one.
inline constexpr int kStackSignal = SIGUSR2;

struct ProcessSpec {
  std::string program;
  std::vector<std::string> arguments;                            // without the program
  std::vector<std::pair<std::string, std::string>> environment;  // all of it
  std::string log_path;                                          // stdout and stderr are appended here
  std::string secret;                                            // readable once on descriptor 3; empty: closed
};

struct Process {
  int pid = 0;
  int pidfd = -1;
};

// execve without a shell; no descriptor of ours but 0 to 3 reaches the child. The caller reaps it and closes `pidfd`.
absl::StatusOr<Process> Spawn(const ProcessSpec& spec);

// A descriptor that becomes readable when the process ends; the caller closes it. -1: no such process.
int PidfdOpen(int pid);

// What identifies a process beyond its number: field 22 of /proc/PID/stat. 0: no such process.
std::uint64_t StartTime(int pid);
std::string BootId();

// SIGKILLs the process group that `pid` leads and waits up to 5 s for the leader's end. False: still there. Numbers
// below 2 lead no group of ours: nothing is killed.
bool KillGroupAndWait(int pid);

}  // namespace vicreg
