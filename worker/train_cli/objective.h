#pragma once

// `vicreg-train objective`: value and gradient of the loss for two tensors in a file, computed by W ranks; with it
// anybody can hold our numbers against another framework's.

#include <string>
#include <vector>

namespace vicreg::train {

// As given on the command line; RunObjective checks all of it.
struct ObjectiveOptions {
  std::string input;   // safetensors with x and y, [N, D], float32 or float64
  std::string output;  // safetensors with gx and gy: dL/dx, dL/dy, in the type of x
  int ranks = 1;
  std::string convention = "authors";  // or paper, vicregl, per_view
  double lambda = 25;
  // One number; per_view: also two, for x and for y.
  std::vector<double> mu = {25}, nu = {1};
  std::string form = "auto";  // or gram, covariance
  std::string split;          // "n1,n2,..": rows of each rank; empty: as even as possible
};

// Prints one JSON line. Exit status: 0, 2 bad input (one line on standard error that names the field; no output), 1
// failed.
int RunObjective(const ObjectiveOptions& options);

}  // namespace vicreg::train
