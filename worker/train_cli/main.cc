// vicreg-train: the trainer without the service.

#include <CLI/CLI.hpp>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "common/version.h"
#include "worker/train_cli/evaluate.h"
#include "worker/train_cli/objective.h"
#include "worker/train_cli/rank.h"
#include "worker/train_cli/run.h"

namespace {

using namespace vicreg::train;

// NAME=PATH words; CLI11 reports what the check returns.
std::string CheckRoot(const std::string& word) {
  const auto at = word.find('=');
  return at == std::string::npos || at == 0 || at + 1 == word.size() ? "\"" + word + "\" is not NAME=PATH" : "";
}

std::map<std::string, std::string> Roots(const std::vector<std::string>& words) {
  std::map<std::string, std::string> roots;
  for (const std::string& word : words) roots[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
  return roots;
}

int RunEvaluate(const EvaluateOptions& options, bool json) {
  try {
    const Evaluation evaluation = Evaluate(options);
    std::cout << (json ? Json(evaluation) + "\n" : Table(evaluation));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Train and evaluate VICReg encoders on this machine, without the service.", "vicreg-train"};
  app.set_version_flag("--version", vicreg::kVersion);
  app.require_subcommand(1);
  std::vector<std::string> roots;

  RunOptions run;
  CLI::App* run_command = app.add_subcommand("run", "Train a job file with local processes; metrics as JSON lines");
  run_command->add_option("JOB", run.job_file, "Job file")->required();
  run_command->add_option("--ranks", run.ranks, "Processes, instead of the job's world_size")
      ->check(CLI::PositiveNumber);
  run_command->add_option("--set", run.sets, "field.path=value, overrides the file")->allow_extra_args(false);
  run_command->add_option("--data-root", roots, "NAME=PATH of a data root")
      ->check(CLI::Validator(CheckRoot, "NAME=PATH"))
      ->allow_extra_args(false);
  run_command->add_option("--output", run.output, "Folder for checkpoints and the export")->capture_default_str();

  EvaluateOptions evaluate;
  evaluate.threads = static_cast<int>(std::thread::hardware_concurrency());
  bool json = false;
  CLI::App* evaluate_command = app.add_subcommand(
      "evaluate", "20-NN accuracy of raw values, the untrained and the trained encoder, of each branch");
  evaluate_command->add_option("--export", evaluate.export_folder, "Folder with export.json and the encoders it names")
      ->required();
  evaluate_command->add_option("--data-root", roots, "NAME=PATH of a data root")
      ->check(CLI::Validator(CheckRoot, "NAME=PATH"))
      ->allow_extra_args(false);
  evaluate_command
      ->add_option("--shift", evaluate.shift, "Pixels (values of a waveform) that test samples are moved by at most")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  evaluate_command->add_option("--threads", evaluate.threads, "Threads")->check(CLI::PositiveNumber);
  evaluate_command->add_flag("--json", json, "JSON instead of a table");

  ObjectiveOptions objective;
  CLI::App* objective_command =
      app.add_subcommand("objective", "Loss and gradient of two tensors in a file, computed by ranks; one JSON line");
  objective_command
      ->add_option("--input", objective.input, "safetensors file with x and y: rows x D, float32 or float64")
      ->required();
  objective_command
      ->add_option("--output", objective.output, "safetensors file to write gx and gy to: the loss's gradient")
      ->required();
  objective_command
      ->add_option("--ranks", objective.ranks, "Ranks that share the rows, 1 to 64 threads of this process")
      ->capture_default_str();
  objective_command->add_option("--split", objective.split,
                                "n1,n2,..: rows of each rank, also 0 (default: as even as possible)");
  objective_command
      ->add_option("--convention", objective.convention,
                   "authors, paper, vicregl: what mu and nu mean for one view; per_view: as given")
      ->capture_default_str();
  objective_command->add_option("--lambda", objective.lambda, "Weight of the invariance term")->capture_default_str();
  objective_command
      ->add_option("--mu", objective.mu, "Weight of the variance term (default: 25); per_view also MU_X,MU_Y")
      ->delimiter(',')
      ->allow_extra_args(false);
  objective_command
      ->add_option("--nu", objective.nu, "Weight of the covariance term (default: 1); per_view also NU_X,NU_Y")
      ->delimiter(',')
      ->allow_extra_args(false);
  objective_command->add_option("--form", objective.form, "auto (gram where D > rows), gram, covariance")
      ->capture_default_str();

  LocalRank rank;
  CLI::App* rank_command = app.add_subcommand("rank", "")->group("");  // internal
  rank_command->add_option("--folder", rank.folder)->required();
  rank_command->add_option("--job", rank.job)->required();
  rank_command->add_option("--recipe-hash", rank.recipe_hash)->required();
  rank_command->add_option("--data", rank.data_root)->required();
  rank_command->add_option("--artifacts", rank.artifacts)->required();
  rank_command->add_option("--rank", rank.rank)->required();
  rank_command->add_option("--world-size", rank.world_size)->required();
  rank_command->add_option("--threads", rank.threads)->required();
  rank_command->add_flag("--gpu", rank.gpu);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "error: " << error.what() << "\n";
    return 2;
  }
  run.data_roots = evaluate.data_roots = Roots(roots);
  if (*run_command) return RunLocally(run);
  if (*objective_command) return RunObjective(objective);
  if (*rank_command) return RunLocalRank(rank);
  return RunEvaluate(evaluate, json);
}
