#include "worker/train_cli/objective.h"

#include <ATen/ATen.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "common/files.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/data/order.h"
#include "worker/train/objective/vicreg.h"
#include "worker/train_cli/rank_threads.h"

namespace vicreg::train {
namespace {

constexpr int kMaxRanks = 64;                  // threads of this process, connected in pairs
constexpr double kMaxWeight = 1e12;            // as in a job file
constexpr std::chrono::minutes kPatience{30};  // of a rank for its peers, which share this machine's cores with it

// Of one field: an option, or x or y.
[[noreturn]] void Refuse(const std::string& field, const std::string& text) {
  throw std::invalid_argument(field + ": " + text);
}

template <class T>
std::string Text(const T& value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

std::string TypeName(at::ScalarType type) {
  return type == at::kFloat    ? "float32"
         : type == at::kDouble ? "float64"
         : type == at::kLong   ? "int64"
                               : at::toString(type);
}

struct Pair {
  at::Tensor x, y;
};

at::Tensor Find(const std::vector<NamedTensor>& tensors, const std::string& name, const std::string& file) {
  for (const NamedTensor& t : tensors) {
    if (t.name == name) return t.value;
  }
  Refuse(name, "no such tensor in " + file + "; expected x and y");
}

void CheckFinite(const at::Tensor& z, const std::string& name) {
  const at::Tensor bad = z.isfinite().logical_not().nonzero();
  if (bad.size(0) == 0) return;
  const auto row = bad[0][0].item<std::int64_t>(), column = bad[0][1].item<std::int64_t>();
  Refuse(name, "row " + std::to_string(row) + ", column " + std::to_string(column) + " (from 0) is " +
                   Text(z[row][column].item<double>()) + "; expected finite numbers");
}

Pair Read(const std::string& file) {
  const auto bytes = ReadFile(file);
  if (!bytes.ok()) Refuse("--input", std::string(bytes.status().message()));
  std::vector<NamedTensor> tensors;
  try {
    tensors = ParseSafetensors(*bytes);
  } catch (const std::invalid_argument& error) {
    Refuse("--input", file + ": " + error.what());
  }
  const Pair pair{Find(tensors, "x", file), Find(tensors, "y", file)};
  for (const auto& [name, z] : {std::pair{"x", pair.x}, {"y", pair.y}}) {
    if (!z.is_floating_point()) Refuse(name, "dtype " + TypeName(z.scalar_type()) + "; expected float32 or float64");
    if (z.dim() != 2) Refuse(name, "shape " + Text(z.sizes()) + "; expected [rows, D]");
  }
  if (pair.y.sizes() != pair.x.sizes())
    Refuse("y", "shape " + Text(pair.y.sizes()) + "; expected " + Text(pair.x.sizes()) + ", that of x");
  if (pair.y.scalar_type() != pair.x.scalar_type()) {
    Refuse("y",
           "dtype " + TypeName(pair.y.scalar_type()) + "; expected " + TypeName(pair.x.scalar_type()) + ", that of x");
  }
  if (pair.x.size(1) == 0) Refuse("x", "shape " + Text(pair.x.sizes()) + "; expected D of at least 1");
  if (pair.x.size(0) < 2)
    Refuse("x", "shape " + Text(pair.x.sizes()) + "; expected at least 2 rows, a variance needs them");
  CheckFinite(pair.x, "x");
  CheckFinite(pair.y, "y");
  return pair;
}

double Coefficient(const std::string& field, double value) {
  if (!(value >= 0 && value <= kMaxWeight))
    Refuse(field, "found " + Text(value) + "; expected a number from 0 to 1e12");
  return value;
}

double Only(const std::string& field, const std::vector<double>& values, const std::string& convention) {
  if (values.size() != 1)
    Refuse(field, "found " + std::to_string(values.size()) + " numbers; expected one with convention " + convention);
  return Coefficient(field, values[0]);
}

// The number of view k: the only one, or its own.
double OfView(const std::string& field, const std::vector<double>& values, std::size_t k) {
  if (values.empty() || values.size() > 2)
    Refuse(field, "found " + std::to_string(values.size()) + " numbers; expected one, or two for x and y");
  return Coefficient(field, values[values.size() == 1 ? 0 : k]);
}

VicregWeights Weights(const ObjectiveOptions& o) {
  const double lambda = Coefficient("--lambda", o.lambda);
  if (o.convention == "per_view") {
    VicregWeights weights{lambda, {}};
    for (std::size_t k = 0; k < 2; ++k) weights.views.push_back({OfView("--mu", o.mu, k), OfView("--nu", o.nu, k)});
    return weights;
  }
  for (const auto& [name, convention] : {std::pair{"authors", recipe::Convention::kAuthors},
                                         {"paper", recipe::Convention::kPaper},
                                         {"vicregl", recipe::Convention::kVicregl}}) {
    if (o.convention == name)
      return WeightsFor(convention, lambda, Only("--mu", o.mu, name), Only("--nu", o.nu, name), 2);
  }
  Refuse("--convention", "found \"" + o.convention + "\"; expected authors, paper, vicregl or per_view");
}

recipe::LossForm Form(const std::string& name) {
  if (name == "auto") return recipe::LossForm::kAuto;
  if (name == "gram") return recipe::LossForm::kGram;
  if (name == "covariance") return recipe::LossForm::kCovariance;
  Refuse("--form", "found \"" + name + "\"; expected auto, gram or covariance");
}

// Rows of each rank.
std::vector<std::int64_t> Split(const ObjectiveOptions& o, std::int64_t rows) {
  std::vector<std::int64_t> split;
  if (o.split.empty()) {
    for (int rank = 0; rank < o.ranks; ++rank) {
      const RowRange own = RowsOfRank(rows, rank, o.ranks);
      split.push_back(own.end - own.begin);
    }
    return split;
  }
  std::istringstream parts(o.split + ",");
  std::int64_t sum = 0;
  for (std::string part; std::getline(parts, part, ',');) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    if (error != std::errc() || end != part.data() + part.size())
      Refuse("--split", "found \"" + part + "\"; expected numbers with a comma between them, such as 5,0,3");
    if (number < 0 || number > rows)
      Refuse("--split", "found a part of " + part + " rows; expected 0 to " + std::to_string(rows) + ", the rows of x");
    split.push_back(number);
    sum += number;
  }
  if (split.size() != static_cast<std::size_t>(o.ranks)) {
    Refuse("--split", "found " + std::to_string(split.size()) + " parts; expected " + std::to_string(o.ranks) +
                          ", one for each of --ranks");
  }
  if (sum != rows)
    Refuse("--split",
           "parts add up to " + std::to_string(sum) + "; expected " + std::to_string(rows) + ", the rows of x");
  return split;
}

struct Answer {
  LossTerms terms;
  recipe::LossForm form = recipe::LossForm::kAuto;
  std::int64_t collectives = 0, collectives_in_backward = 0, bytes = 0;  // of one rank; all alike
  std::vector<at::Tensor> gx, gy;                                        // by rank
};

Answer Compute(const Pair& pair, const VicregWeights& weights, recipe::LossForm form,
               const std::vector<std::int64_t>& split) {
  Answer answer;
  answer.gx.resize(split.size());
  answer.gy.resize(split.size());
  RunRanks(
      static_cast<int>(split.size()),
      [&](Group& group) {
        const auto rank = static_cast<std::size_t>(group.rank());
        std::int64_t first = 0;
        for (std::size_t r = 0; r < rank; ++r) first += split[r];
        const at::Tensor x = pair.x.narrow(0, first, split[rank]).detach().set_requires_grad(true);
        const at::Tensor y = pair.y.narrow(0, first, split[rank]).detach().set_requires_grad(true);
        const LossResult result = VicregLoss({x, y}, weights, form, group, /*grad_scale=*/1);
        const std::int64_t forward = group.collectives();
        result.loss.backward();
        answer.gx[rank] = x.grad();
        answer.gy[rank] = y.grad();
        if (rank != 0) return;
        answer.terms = result.terms;
        answer.form = result.form;
        answer.collectives = group.collectives();
        answer.collectives_in_backward = group.collectives() - forward;
        answer.bytes = group.bytes();
      },
      kPatience);
  return answer;
}

std::string Json(const Answer& answer, const VicregWeights& weights, const std::vector<std::int64_t>& split) {
  nlohmann::ordered_json json = {{"invariance", answer.terms.invariance},
                                 {"variance", answer.terms.variance},
                                 {"covariance", answer.terms.covariance},
                                 {"loss", answer.terms.loss},
                                 {"form", answer.form == recipe::LossForm::kGram ? "gram" : "covariance"},
                                 {"lambda", weights.lambda_}};
  for (const ViewWeights& view : weights.views) {
    json["mu_per_view"].push_back(view.mu);
    json["nu_per_view"].push_back(view.nu);
  }
  json["rows"] = split;
  json["collectives"] = answer.collectives;
  json["collectives_in_backward"] = answer.collectives_in_backward;
  json["bytes"] = answer.bytes;
  return json.dump();
}

}  // namespace

int RunObjective(const ObjectiveOptions& options) {
  try {
    if (options.ranks < 1 || options.ranks > kMaxRanks) {
      Refuse("--ranks", "found " + std::to_string(options.ranks) + "; expected 1 to " + std::to_string(kMaxRanks));
    }
    if (const std::string why = WhyNotSoManyRanks(options.ranks); !why.empty())
      Refuse("--ranks", "found " + std::to_string(options.ranks) + ", which " + why);
    const VicregWeights weights = Weights(options);
    const recipe::LossForm form = Form(options.form);
    const Pair pair = Read(options.input);
    const std::vector<std::int64_t> split = Split(options, pair.x.size(0));
    const Answer answer = Compute(pair, weights, form, split);
    if (!answer.terms.nonfinite_term.empty()) {
      Refuse("x, y", "the " + answer.terms.nonfinite_term + " term is too large for " + TypeName(pair.x.scalar_type()) +
                         "; expected smaller numbers");
    }
    const std::string gradients = SafetensorsBytes({{"gx", at::cat(answer.gx)}, {"gy", at::cat(answer.gy)}});
    if (const auto written = WriteFileAtomically(options.output, gradients); !written.ok())
      Refuse("--output", std::string(written.message()));
    std::cout << Json(answer, weights, split) << std::endl;
    return 0;
  } catch (const std::invalid_argument& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 2;
  } catch (const std::exception& error) {
    const std::string text = error.what();
    std::cerr << "error: " << text.substr(0, text.find('\n')) << std::endl;  // torch appends a stack trace
    return 1;
  }
}

}  // namespace vicreg::train
