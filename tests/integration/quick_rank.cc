// vicreg-quick-rank: for tests of what is around the training. It says all that a rank says, to a real worker, and
// trains nothing: a step is `seed` milliseconds of sleep. Each of its lives is a line in ARTIFACTS/lives.log, so that a
// test can tell whether anything ran twice.

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>

#include "worker/rank/link.h"

namespace {

namespace v1 = vicreg::v1;
using vicreg::rank::Link;

std::atomic<bool> stop{false};

void OnCommand(const v1::Command& command) {
  if (command.kind() == v1::Command::KIND_STOP) {
    stop = true;
    return;
  }
  _exit(command.kind() == v1::Command::KIND_ABORT ? 12 : 13);
}

void Note(const std::string& artifacts, const std::string& line) {
  const int fd = open((artifacts + "/lives.log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) _exit(32);
  close(fd);
}

v1::RankSays Row(std::int64_t step) {
  v1::RankSays says;
  v1::MetricRow& row = *says.mutable_rows()->add_rows();
  row.set_step(step);
  row.set_loss(1.0 / static_cast<double>(step));
  return says;
}

v1::RankSays Checkpoint(const v1::Hello& hello, const std::string& project, std::int64_t step) {
  v1::RankSays says;
  says.mutable_checkpoint()->set_step(step);
  says.mutable_checkpoint()->set_path(project + "/" + hello.job_id() + "/a" + std::to_string(hello.attempt()) +
                                      "/step-" + std::to_string(step));
  says.mutable_checkpoint()->set_hash(std::string(64, 'a'));
  return says;
}

[[noreturn]] void Leave(Link& link, v1::ExitReason reason, int code) {
  if (!link.WaitForAcks(std::chrono::minutes(30))) code = 12;
  v1::Exited exited;
  exited.set_reason(reason);
  exited.set_code(code);
  link.Leave(exited);
  _exit(code);
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags;
  for (int i = 1; i + 1 < argc; i += 2) flags[argv[i]] = argv[i + 1];
  if (flags["--check-device"] == "cpu") return 0;  // what a probe asks
  signal(SIGPIPE, SIG_IGN);
  signal(SIGTERM, [](int) { stop = true; });
  char secret[32];
  if (read(3, secret, sizeof secret) != static_cast<ssize_t>(sizeof secret)) return 20;
  v1::Hello hello;
  hello.set_job_id(flags["--job"]);
  hello.set_attempt(std::atoi(flags["--attempt"].c_str()));
  hello.set_rank(std::atoi(flags["--rank"].c_str()));
  hello.set_pid(getpid());
  hello.set_secret(std::string(secret, sizeof secret));
  Link link(flags["--socket"], hello, OnCommand, std::chrono::minutes(30), [] {
    v1::Progress progress;
    progress.set_phase(v1::Progress::PHASE_LEAVING);  // slow machines are not what its tests are about
    return progress;
  });
  const auto assignment = link.WaitForAssignment(std::chrono::seconds(60));
  if (!assignment.ok()) return 13;
  const std::int64_t first = assignment->has_resume() ? assignment->resume().step() : 0;
  const std::int64_t last = assignment->spec().length().steps();
  const std::string& project = assignment->project();
  const bool lead = hello.rank() == 0;
  Note(assignment->artifact_root(), hello.job_id() + " " + std::to_string(hello.attempt()) + " " +
                                        std::to_string(hello.rank()) + " " + std::to_string(getpid()) + "\n");
  v1::RankSays says;
  says.mutable_connected()->set_resume_step(first);
  says.mutable_connected()->set_total_steps(last);
  link.Say(says);
  std::int64_t saved = first;
  for (std::int64_t step = first + 1; step <= last && !stop; ++step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(assignment->spec().seed()));
    if (step == first + 1) {
      says.mutable_stepping()->set_step(step);
      link.Say(says);
    }
    if (lead) link.Say(Row(step));
    if (lead && (step % 10 == 0 || step == last)) link.Say(Checkpoint(hello, project, saved = step));
    if (stop && lead && saved < step) link.Say(Checkpoint(hello, project, saved = step));
  }
  if (stop) Leave(link, v1::EXIT_REASON_STOPPED, 10);
  if (lead) {
    says.mutable_exported()->set_path(project + "/" + hello.job_id() + "/export");
    link.Say(says);
  }
  Leave(link, v1::EXIT_REASON_COMPLETED, 0);
}
