#include "common/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "common/files.h"

namespace vicreg {

int PidfdOpen(int pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

absl::StatusOr<Process> Spawn(const ProcessSpec& spec) {
  int secret[2] = {-1, -1};
  if (!spec.secret.empty()) {
    if (pipe2(secret, O_CLOEXEC) != 0) return ErrnoStatus(errno, "make a pipe for", spec.program);
    const bool written =
        write(secret[1], spec.secret.data(), spec.secret.size()) == static_cast<ssize_t>(spec.secret.size());
    const int reason = errno;
    close(secret[1]);
    if (!written) {
      close(secret[0]);
      return ErrnoStatus(reason, "write the secret for", spec.program);
    }
  }

  std::vector<std::string> text = {spec.program};
  text.insert(text.end(), spec.arguments.begin(), spec.arguments.end());
  std::vector<std::string> pairs;
  for (const auto& [name, value] : spec.environment) pairs.push_back(name + "=" + value);
  std::vector<char*> argv, envp;
  for (std::string& a : text) argv.push_back(a.data());
  for (std::string& e : pairs) envp.push_back(e.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, spec.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  if (secret[0] >= 0) posix_spawn_file_actions_adddup2(&actions, secret[0], 3);
  posix_spawn_file_actions_addclosefrom_np(&actions, secret[0] >= 0 ? 4 : 3);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  // A session of its own: no signal of the terminal or of the worker's end reaches it.
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  Process process;
  const int error = posix_spawn(&process.pid, spec.program.c_str(), &actions, &attributes, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (secret[0] >= 0) close(secret[0]);
  if (error != 0) return ErrnoStatus(error, "start", spec.program);
  process.pidfd = PidfdOpen(process.pid);  // not reaped yet, so the number is ours
  if (process.pidfd < 0) {
    const int reason = errno;
    kill(-process.pid, SIGKILL);
    return ErrnoStatus(reason, "watch (pidfd_open)", spec.program);
  }
  return process;
}

std::uint64_t StartTime(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return 0;
  // The name in parentheses may hold anything; fields count from behind it.
  std::istringstream rest(line.substr(line.rfind(')') + 1));
  std::string field;
  for (int i = 3; i <= 21; ++i) rest >> field;
  std::uint64_t start = 0;
  rest >> start;
  return start;
}

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  file >> id;
  return id;
}

bool KillGroupAndWait(int pid) {
  // kill(2) takes 0 for our own group and -1 for every process there is; a number read from a damaged file may be
  // either.
  if (pid <= 1) return true;
  const int pidfd = PidfdOpen(pid);
  kill(-pid, SIGKILL);
  kill(pid, SIGKILL);
  if (pidfd < 0) return true;
  pollfd wait{pidfd, POLLIN, 0};
  const bool ended = poll(&wait, 1, 5000) == 1;
  close(pidfd);
  return ended;
}

}  // namespace vicreg
