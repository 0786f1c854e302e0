#pragma once

// The whole trainer on one machine without the service: one process per rank, metrics as JSON lines on standard output.

#include <map>
#include <string>
#include <vector>

namespace vicreg::train {

struct RunOptions {
  std::string job_file;
  std::vector<std::string> sets;  // field.path=value
  int ranks = 0;                  // 0: the job's world_size
  std::map<std::string, std::string> data_roots;
  std::string output = "vicreg-output";
};

// Exit status: 0 finished, 2 bad job file or options, 3 stopped by a signal (a checkpoint was saved), 1 failed.
int RunLocally(const RunOptions& options);

}  // namespace vicreg::train
