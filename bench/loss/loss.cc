// vicreg-bench-loss N D W: rank 0's VICReg loss of W ranks, forward and backward, on one thread. Reads lines: "ours"
// measures once, "values" answers the terms. Answers one JSON line each; the inputs are peer_loss.py's.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <malloc.h>
#include <torch/csrc/autograd/autograd.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/loss/replay.h"
#include "bench/measure.h"
#include "worker/train/objective/vicreg.h"
#include "worker/train_cli/rank_threads.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;

train::LossResult Loss(const std::vector<at::Tensor>& views, train::Group& group) {
  return train::VicregLoss(views, train::WeightsFor(recipe::Convention::kAuthors, 25, 25, 1, 2),
                           recipe::LossForm::kAuto, group, 1);
}

int Serve(std::int64_t n, std::int64_t d, int ranks) {
  at::set_num_threads(1);
  std::vector<at::Tensor> own;
  Tape tape;
  {
    const at::Tensor noise = Noise(0, n * d).view({n, d}),
                     other = Noise(static_cast<std::uint64_t>(n * d), n * d).view({n, d});
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
    malloc_trim(0);  // what the last repetition freed and the heap kept would hide what this one takes
    const std::int64_t before = Memory("VmRSS:");
    ResetPeak();
    const auto begin = std::chrono::steady_clock::now();
    const double cpu = CpuSeconds();
    Loss(own, alone).loss.backward();
    const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::cout << json{{"wall", wall},
                      {"cpu", CpuSeconds() - cpu},
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
