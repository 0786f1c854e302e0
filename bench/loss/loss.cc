// vicreg-bench-loss N D W: rank 0's VICReg loss of W ranks, forward and backward, on one thread. Reads lines: "ours"
// measures once, "values" answers the terms. Answers one JSON line each; the inputs are peer_loss.py's.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/loss/replay.h"
#include "worker/train/objective/vicreg.h"
#include "worker/train_cli/rank_threads.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;

// SplitMix64, uniform in [0, 1): the same bits as the Python side's.
double Hashed(std::uint64_t index) {
  std::uint64_t z = (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) / 9007199254740992.0;
}

at::Tensor Noise(std::uint64_t begin, std::int64_t n, std::int64_t d) {
  at::Tensor t = at::empty({n, d}, at::kDouble);
  double* p = t.data_ptr<double>();
  for (std::int64_t i = 0; i < n * d; ++i)
    p[i] = (Hashed(begin + static_cast<std::uint64_t>(i)) - 0.5) * std::sqrt(12.0);
  return t;
}

// Of this process, in bytes.
std::int64_t Memory(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(std::string(field).size() + 1)) * 1024;
  }
  return 0;
}

void ResetPeak() { std::ofstream("/proc/self/clear_refs") << 5; }

double Cpu() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

train::LossResult Loss(const std::vector<at::Tensor>& views, train::Group& group) {
  return train::VicregLoss(views, train::WeightsFor(recipe::Convention::kAuthors, 25, 25, 1, 2),
                           recipe::LossForm::kAuto, group, 1);
}

int Serve(std::int64_t n, std::int64_t d, int ranks) {
  at::set_num_threads(1);
  std::vector<at::Tensor> own;
  Tape tape;
  {
    const at::Tensor noise = Noise(0, n, d), other = Noise(static_cast<std::uint64_t>(n * d), n, d);
    const at::Tensor x = noise.to(at::kFloat), y = (0.8 * noise + 0.6 * other).to(at::kFloat);
    train::RunRanks(
        ranks,
        [&](train::Group& group) {
          at::set_num_threads(1);
          const std::int64_t begin = group.rank() * n / ranks, rows = (group.rank() + 1) * n / ranks - begin;
          const std::vector<at::Tensor> views = {x.narrow(0, begin, rows).clone(), y.narrow(0, begin, rows).clone()};
          if (group.rank() != 0) {
            Loss(views, group);
            return;
          }
          train::Group recording = Recording(group, tape);
          Loss(views, recording);
          own = views;
        },
        std::chrono::seconds(600));
  }
  for (at::Tensor& view : own) view.set_requires_grad(true);
  std::cout << json{{"ranks", ranks}, {"collectives", tape.size()}} << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    train::Group alone = Replaying(tape, ranks);
    if (line == "values") {
      const train::LossTerms terms = Loss(own, alone).terms;
      std::cout << json{{"loss", terms.loss},
                        {"invariance", terms.invariance},
                        {"variance", terms.variance},
                        {"covariance", terms.covariance}}
                << std::endl;
      continue;
    }
    // The gradients themselves are not counted: every side must produce them.
    for (at::Tensor& view : own) view.mutable_grad() = at::zeros_like(view);
    const std::int64_t before = Memory("VmRSS:");
    ResetPeak();
    const auto begin = std::chrono::steady_clock::now();
    const double cpu = Cpu();
    Loss(own, alone).loss.backward();
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::cout << json{{"wall", wall},
                      {"cpu", Cpu() - cpu},
                      {"peak_bytes", std::max<std::int64_t>(0, Memory("VmHWM:") - before)}}
              << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace vicreg::bench

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: vicreg-bench-loss N D W   (see scripts/bench)\n";
    return 2;
  }
  return vicreg::bench::Serve(std::stoll(argv[1]), std::stoll(argv[2]), std::stoi(argv[3]));
}
