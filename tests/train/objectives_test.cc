// Goal: what a job names as its objective is what is minimised, with the weights of its recipe; the parts beside the
// network (predictor, momentum target, regularisation) do what their papers say and nothing else. Method: numbers and
// gradients against the functions of one objective each, which have their own tests; whole runs of a few steps.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "common/recipe/recipe_json.h"
#include "tests/train/run.h"
#include "tests/train/sharded_loss.h"
#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/model/model.h"
#include "worker/train/objective/barlow_twins.h"
#include "worker/train/objective/cosine.h"
#include "worker/train/objective/objective.h"
#include "worker/train/objective/vicreg.h"

namespace vicreg::train {
namespace {

using recipe::LossForm;
using recipe::RegularizeOn;

const bool kOneThread = [] {  // small shapes: more threads only wait for each other
  at::set_num_threads(1);
  return true;
}();

recipe::Recipe Named(recipe::Objective objective) {
  recipe::Recipe recipe;
  recipe.data.limit = 256;
  recipe.encoder.name = "tiny";
  recipe.expander = {32, 32, 16};
  recipe.batch_size = 64;
  recipe.length = {6, 0};
  recipe.checkpoint_every = {3, 0};
  recipe.checkpoint_keep = 2;
  recipe.loss.objective = objective;
  if (objective == recipe::Objective::kBarlowTwins) recipe.loss.redundancy = 0.3;
  if (objective == recipe::Objective::kSimSiam || objective == recipe::Objective::kByol) recipe.loss.predictor = 8;
  if (objective == recipe::Objective::kByol) recipe.loss.momentum = 0.9;
  return recipe;
}

// Embeddings and predictions of two views, leaves; targets.
Embedded Batch() {
  Embedded batch;
  for (const std::uint64_t k : {0, 1}) {
    batch.embeddings.push_back((Normal({12, 5}, 1) + 0.4 * Normal({12, 5}, 2 + k)).set_requires_grad(true));
    batch.predictions.push_back(Normal({12, 5}, 4 + k).set_requires_grad(true));
    batch.targets.push_back(Normal({12, 5}, 6 + k));
  }
  return batch;
}

struct Result {
  LossTerms terms;
  double value = 0;
  at::Tensor dz, dp;  // of both views; undefined where the loss does not look
};

at::Tensor Gradients(const std::vector<at::Tensor>& leaves) {
  if (leaves.empty() || !leaves[0].grad().defined()) return {};
  return at::stack({leaves[0].grad(), leaves[1].grad()});
}

Result Of(const Embedded& batch, const LossResult& loss) {
  loss.loss.backward();
  return {loss.terms, loss.loss.item<double>(), Gradients(batch.embeddings), Gradients(batch.predictions)};
}

// Of the recipe's objective, by W = 1; grad_scale 3.
Result Evaluate(const recipe::Recipe& recipe, Embedded batch = Batch()) {
  Group alone;
  return Of(batch, MakeObjective(recipe)->Loss(batch, alone, 3));
}

double Distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

void ExpectAddsUp(const LossTerms& t, double value) {
  EXPECT_NEAR(t.loss, t.invariance_weighted + t.variance_weighted + t.covariance_weighted, 1e-12);
  EXPECT_NEAR(t.loss, value, 1e-12);
}

TEST(MakeObjective, VicregHasTheWeightsOfEachView) {
  recipe::Recipe recipe;
  recipe.loss = {.lambda_ = 7, .mu_per_view = 3, .nu_per_view = 2};
  const Result got = Evaluate(recipe);
  Embedded batch = Batch();
  Group alone;
  const VicregWeights weights{7, {{3, 2}, {3, 2}}};
  const Result want = Of(batch, VicregLoss(batch.embeddings, weights, LossForm::kAuto, alone, 3));
  EXPECT_EQ(got.value, want.value);
  EXPECT_TRUE(at::equal(got.dz, want.dz));
  recipe.branches.resize(2);
  recipe.branches[0].mu = 30;
  recipe.branches[1].mu = 4;
  recipe.branches[0].nu = recipe.branches[1].nu = 0;
  batch = Batch();
  const VicregWeights own{7, {{30, 0}, {4, 0}}};
  EXPECT_EQ(Evaluate(recipe).value, VicregLoss(batch.embeddings, own, LossForm::kAuto, alone, 3).terms.loss);
}

TEST(MakeObjective, BarlowTwinsHasItsRedundancyWeight) {
  const Result got = Evaluate(Named(recipe::Objective::kBarlowTwins));
  Embedded batch = Batch();
  Group alone;
  const Result want = Of(batch, BarlowTwinsLoss(batch.embeddings, 0.3, LossForm::kAuto, alone, 3));
  EXPECT_EQ(got.value, want.value);
  EXPECT_TRUE(at::equal(got.dz, want.dz));
  ExpectAddsUp(got.terms, got.value);
}

TEST(MakeObjective, SimSiamTurnsPredictionsTowardsEmbeddings) {
  const Result got = Evaluate(Named(recipe::Objective::kSimSiam), [] {
    Embedded batch = Batch();
    batch.targets.clear();
    return batch;
  }());
  Embedded batch = Batch();
  Group alone;
  const CosineResult want = NegativeCosine(batch.predictions, batch.embeddings, alone, 3);
  want.loss.backward();
  EXPECT_NEAR(got.value, -want.cosine, 1e-15);
  EXPECT_NEAR(got.terms.invariance, -want.cosine, 1e-15);
  EXPECT_LT(Distance(got.dp, Gradients(batch.predictions)), 1e-15);
  EXPECT_FALSE(got.dz.defined()) << "embeddings are constant as targets";
  ExpectAddsUp(got.terms, got.value);
}

TEST(MakeObjective, WithoutAPredictorEmbeddingsAreThePredictions) {
  recipe::Recipe recipe = Named(recipe::Objective::kSimSiam);
  Embedded batch = Batch();
  batch.predictions.clear();
  batch.targets.clear();
  const Result got = Evaluate(recipe, batch);
  Embedded other = Batch();
  Group alone;
  NegativeCosine(other.embeddings, other.embeddings, alone, 3).loss.backward();
  EXPECT_LT(Distance(got.dz, Gradients(other.embeddings)), 1e-15);
}

TEST(MakeObjective, ByolIsFourLessFourCosinesToItsTargets) {
  const Result got = Evaluate(Named(recipe::Objective::kByol));
  Embedded batch = Batch();
  Group alone;
  const CosineResult want = NegativeCosine(batch.predictions, batch.targets, alone, 12);
  want.loss.backward();
  EXPECT_NEAR(got.value, 4 - 4 * want.cosine, 1e-14);
  EXPECT_LT(Distance(got.dp, Gradients(batch.predictions)), 1e-14);
  ExpectAddsUp(got.terms, got.value);
}

// The terms and their gradient come on top, by VICReg's own code with an invariance that weighs nothing.
TEST(Regularisation, AddsVicregsVarianceAndCovarianceToAnyObjective) {
  for (const auto objective :
       {recipe::Objective::kBarlowTwins, recipe::Objective::kSimSiam, recipe::Objective::kByol}) {
    for (const RegularizeOn on : {RegularizeOn::kRaw, RegularizeOn::kL2}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(objective)) + ", " + std::to_string(static_cast<int>(on)));
      recipe::Recipe recipe = Named(objective);
      const Result plain = Evaluate(recipe);
      recipe.loss.regularize = {2, 0.5, on};
      const Result got = Evaluate(recipe);
      Embedded batch = Batch();
      std::vector<at::Tensor> seen;
      for (const at::Tensor& z : batch.embeddings) seen.push_back(on == RegularizeOn::kRaw ? z : Directions(z));
      Group alone;
      const VicregWeights weights{0, {{2, 0.5}, {2, 0.5}}};
      const Result terms = Of(batch, VicregLoss(seen, weights, LossForm::kAuto, alone, 3));
      EXPECT_NEAR(got.value, plain.value + terms.value, 1e-12);
      const at::Tensor before = plain.dz.defined() ? plain.dz : at::zeros_like(terms.dz);
      EXPECT_LT(Distance(got.dz, before + terms.dz), 1e-12);
      EXPECT_EQ(got.terms.variance, terms.terms.variance);
      EXPECT_EQ(got.terms.variance_weighted, terms.terms.variance_weighted);
      EXPECT_EQ(got.terms.z_std_mean, terms.terms.z_std_mean);
      ExpectAddsUp(got.terms, got.value);
    }
  }
}

// Over ranks, with terms of regularisation, and with parts of the batch that the loss holds constant.
TEST(MakeObjective, AnySplitOfTheRowsGivesWhatOneProcessGives) {
  const auto embedded = [](const recipe::Recipe& recipe, const Views& views) {
    Embedded batch{views, {}, {}};
    for (const at::Tensor& z : views) {
      const at::Tensor map = Normal({z.size(1), z.size(1)}, 77).to(z.scalar_type());
      if (recipe.loss.predictor > 0) batch.predictions.push_back(z.mm(map).tanh() + 0.1);
      if (recipe.loss.momentum) batch.targets.push_back(z.detach().mm(map));
    }
    return batch;
  };
  for (const auto objective : {recipe::Objective::kVicreg, recipe::Objective::kBarlowTwins, recipe::Objective::kSimSiam,
                               recipe::Objective::kByol}) {
    for (const RegularizeOn on : {RegularizeOn::kRaw, RegularizeOn::kL2}) {
      for (const std::int64_t d : {4, 11}) {  // both forms
        for (const std::vector<std::int64_t>& rows : Splits(9)) {
          recipe::Recipe recipe = Named(objective);
          if (objective != recipe::Objective::kVicreg) recipe.loss.regularize = {2, 0.5, on};
          const auto own = MakeObjective(recipe);
          const Comparison comparison = CompareWithWhole(
              {9, d, rows},
              [&](const Views& views, Group& group) { return own->Loss(embedded(recipe, views), group, group.size()); },
              [&](const Views& all) {
                Group alone;
                return own->Loss(embedded(recipe, all), alone, 1).loss;
              });
          SCOPED_TRACE(std::string(recipe::Name(objective)) + ", " + recipe::Name(on) + ", D " + std::to_string(d) +
                       ", rows " + testing::PrintToString(rows));
          EXPECT_LE(comparison.error.loss, 1e-12);
          EXPECT_LE(comparison.error.embeddings, 1e-12);
          EXPECT_LE(comparison.error.parameters, 1e-12);
          for (const LossResult& rank : comparison.ranks) {
            EXPECT_EQ(rank.terms.loss, comparison.ranks[0].terms.loss);
            EXPECT_EQ(rank.terms.z_std_mean, comparison.ranks[0].terms.z_std_mean);
          }
        }
      }
    }
  }
}

// A cosine does not see lengths: health is of directions, and collapse shows whatever the scale.
TEST(CosineObjectives, MeasureTheSpreadOfDirections) {
  const auto spread = [](double scale, bool collapsed) {
    Embedded batch = Batch();
    for (at::Tensor& z : batch.embeddings)
      z = ((collapsed ? at::ones({12, 5}, at::kDouble) + 1e-3 * z.detach() : z.detach()) * scale)
              .set_requires_grad(true);
    return Evaluate(Named(recipe::Objective::kSimSiam), batch).terms;
  };
  EXPECT_NEAR(spread(1e-3, false).z_std_mean, spread(1e3, false).z_std_mean, 1e-9);
  EXPECT_GT(spread(1e-3, false).z_std_mean, 0.5);
  EXPECT_LT(spread(1e3, true).z_std_mean, 0.02);
}

TEST(Objectives, NotANumberIsNamed) {
  for (const auto objective : {recipe::Objective::kSimSiam, recipe::Objective::kByol}) {
    Embedded batch = Batch();
    const at::NoGradGuard no_grad;
    batch.predictions[0][2][1] = std::nan("");
    Group alone;
    EXPECT_EQ(MakeObjective(Named(objective))->Loss(batch, alone, 1).terms.nonfinite_term, "invariance");
  }
}

// --------------------------------------------------------------------------------- the parts beside the network

TEST(TargetMomentum, RisesFromItsBaseToOneByHalfACosine) {
  EXPECT_DOUBLE_EQ(TargetMomentum(1, 100, 0.99), 0.99);
  EXPECT_DOUBLE_EQ(TargetMomentum(51, 100, 0.99), 0.995);
  EXPECT_NEAR(TargetMomentum(100, 100, 0.99), 1, 1e-5);
  EXPECT_LT(TargetMomentum(100, 100, 0.99), 1);
  for (std::int64_t step = 2; step <= 100; ++step)
    EXPECT_GT(TargetMomentum(step, 100, 0.5), TargetMomentum(step - 1, 100, 0.5));
  EXPECT_EQ(TargetMomentum(7, 100, 1), 1);
}

std::map<std::string, at::Tensor> ByName(const std::vector<NamedTensor>& tensors) {
  std::map<std::string, at::Tensor> map;
  for (const NamedTensor& t : tensors) map[t.name] = t.value.detach().clone();
  return map;
}

TEST(Model, TargetStartsAsACopyAndFollowsAsAMovingAverage) {
  const recipe::Recipe recipe = Named(recipe::Objective::kByol);
  Model model(recipe, at::kDouble);
  const auto first = ByName(model.TargetState());
  std::size_t copies = 0;
  for (const NamedTensor& p : model.parameters().trained()) {
    if (p.name.starts_with("predictor.")) continue;
    EXPECT_TRUE(at::equal(first.at("target." + p.name), p.value)) << p.name;
    ++copies;
    const at::NoGradGuard no_grad;
    at::Tensor moved = p.value;
    moved.add_(1);
  }
  EXPECT_GT(copies, 10u);
  model.Updated(1, 4);  // momentum 0.9
  for (const auto& [name, value] : ByName(model.TargetState())) {
    if (name.find("running") != std::string::npos || name.find("num_batches") != std::string::npos) {
      EXPECT_TRUE(at::equal(value, first.at(name))) << name;
    } else {
      EXPECT_LT(Distance(value, first.at(name) + 0.1), 1e-12) << name;
    }
  }
}

// Without a graph, and by the statistics of the batch: the same numbers as the network's own while they are equal.
TEST(Model, TargetsAreTheEmbeddingsOfTheTargetWithoutAGraph) {
  const recipe::Recipe recipe = Named(recipe::Objective::kByol);
  Model model(recipe, at::kDouble);
  Group alone;
  const std::vector<at::Tensor> views = {Normal({6, 1, 12, 12}, 1), Normal({6, 1, 12, 12}, 2)};
  const auto targets = model.Targets(views, alone);
  const Embedded batch = model.Forward(views, alone);
  for (std::size_t k = 0; k < 2; ++k) {
    EXPECT_TRUE(at::equal(targets[k], batch.embeddings[k]));
    EXPECT_FALSE(targets[k].requires_grad());
    EXPECT_EQ(batch.predictions[k].sizes(), batch.embeddings[k].sizes());
  }
  EXPECT_TRUE(Model(Named(recipe::Objective::kSimSiam)).TargetState().empty());
  EXPECT_TRUE(Model(Named(recipe::Objective::kVicreg))
                  .Forward({views[0].to(at::kFloat), views[1].to(at::kFloat)}, alone)
                  .predictions.empty());
}

TEST(Model, PredictorHasTheParametersOfHandArithmetic) {
  const auto count = [](const recipe::Recipe& recipe) {
    const Model model(recipe);
    std::int64_t parameters = 0;
    for (const NamedTensor& p : model.parameters().trained()) {
      if (p.name.starts_with("predictor.")) parameters += p.value.numel();
    }
    return parameters;
  };
  recipe::Recipe recipe = Named(recipe::Objective::kSimSiam);
  EXPECT_EQ(count(recipe), 16 * 8 + 8 + 2 * 8 + 8 * 16 + 16);
  recipe.expander_norm = recipe::ExpanderNorm::kNone;
  EXPECT_EQ(count(recipe), 16 * 8 + 8 + 8 * 16 + 16);
  recipe.loss.predictor = 0;
  EXPECT_EQ(count(recipe), 0);
}

// ---------------------------------------------------------------------------------------------------- whole runs

class ObjectiveRuns : public RunTest {};

TEST_F(ObjectiveRuns, EachObjectiveTrainsAndExportsTheOnlineEncoderAlone) {
  int attempt = 0;
  for (const auto objective : {recipe::Objective::kVicreg, recipe::Objective::kBarlowTwins, recipe::Objective::kSimSiam,
                               recipe::Objective::kByol}) {
    SCOPED_TRACE(static_cast<int>(objective));
    recipe::Recipe recipe = Named(objective);
    recipe.optimizer.peak_lr = 3e-3;
    recipe.length = {12, 0};
    Recorder recorder;
    const Outcome outcome = train::Run(recipe, Context(++attempt), stop_, recorder);
    ASSERT_EQ(outcome.reason, ExitReason::kCompleted) << outcome.message;
    ASSERT_EQ(recorder.rows.size(), 12u);
    EXPECT_LT(recorder.rows.back().loss, recorder.rows.front().loss);
    for (const StepRow& row : recorder.rows) {
      EXPECT_NEAR(row.loss, row.invariance_weighted + row.variance_weighted + row.covariance_weighted,
                  1e-9 * std::abs(row.loss));
      EXPECT_GT(row.grad_norm, 0);
    }
    const auto online = ByName(ParseSafetensors(Bytes(recorder.checkpoints.back(), "model.safetensors")));
    const auto exported = ParseSafetensors(*ReadFile(root_ + "/" + recorder.exported + "/encoder.safetensors"));
    EXPECT_GT(exported.size(), 10u);
    for (const NamedTensor& t : exported) {
      ASSERT_TRUE(online.contains("encoder." + t.name)) << t.name;
      EXPECT_TRUE(at::equal(t.value, online.at("encoder." + t.name))) << t.name;
    }
  }
}

TEST_F(ObjectiveRuns, TheTargetLagsBehindTheTrainedNetwork) {
  Recorder recorder;
  ASSERT_EQ(train::Run(Named(recipe::Objective::kByol), Context(1), stop_, recorder).reason, ExitReason::kCompleted);
  const auto online = ByName(ParseSafetensors(Bytes(recorder.checkpoints.back(), "model.safetensors"))),
             state = ByName(ParseSafetensors(Bytes(recorder.checkpoints.back(), "optimizer.safetensors")));
  const Network untrained(Named(recipe::Objective::kByol));
  for (const NamedTensor& p : untrained.parameters().trained()) {
    if (p.value.dim() < 2) continue;
    const at::Tensor &now = online.at(p.name), &target = state.at("target." + p.name);
    const double moved = (now - p.value).norm().item<double>(), lag = (now - target).norm().item<double>();
    EXPECT_GT(lag, 0) << p.name;
    EXPECT_GT((target - p.value).norm().item<double>(), 0) << p.name;
    EXPECT_LT(lag, 1.5 * moved) << p.name;
  }
  EXPECT_FALSE(online.contains("target.encoder.conv1.weight"));
}

}  // namespace
}  // namespace vicreg::train
