// Goal: every objective is reached from a job file with the numbers its authors published, keys that it does not read
// are refused with the reason, and parts of a step are offered exactly where they do not change it. Method: one valid
// job and overrides of single keys; borders from both sides.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "common/recipe/explain.h"
#include "common/recipe/recipe_json.h"
#include "tests/common/jobs.h"

namespace vicreg::recipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

const char* const kOthers[] = {"barlow_twins", "simsiam", "byol"};

Sets With(const std::string& objective, Sets more = {}) {
  more.insert(more.begin(), "loss={objective: " + objective + "}");
  return more;
}

TEST(Objectives, HaveThePublishedDefaults) {
  const Loss barlow = Must(kJob, With("barlow_twins")).recipe.loss;
  EXPECT_EQ(barlow.objective, Objective::kBarlowTwins);
  EXPECT_EQ(barlow.redundancy, 0.0051);
  EXPECT_EQ(barlow.predictor, 0);
  EXPECT_FALSE(barlow.momentum.has_value());
  const Loss simsiam = Must(kJob, With("simsiam", {"expander=[2048, 2048, 2048]"})).recipe.loss;
  EXPECT_EQ(simsiam.objective, Objective::kSimSiam);
  EXPECT_EQ(simsiam.predictor, 512);
  EXPECT_FALSE(simsiam.momentum.has_value());
  EXPECT_EQ(Must(kJob, With("simsiam", {"expander=[3]"})).recipe.loss.predictor, 1);
  const Loss byol = Must(kJob, With("byol", {"expander=[4096, 256]"})).recipe.loss;
  EXPECT_EQ(byol.objective, Objective::kByol);
  EXPECT_EQ(byol.predictor, 4096);
  EXPECT_EQ(byol.momentum, 0.99);
  for (const char* name : kOthers) {
    const Regularize terms = Must(kJob, With(name)).recipe.loss.regularize;
    EXPECT_EQ(terms.variance, 0) << name;
    EXPECT_EQ(terms.covariance, 0) << name;
  }
}

TEST(Objectives, TakeRegularisationWithTheWeightsOfEachView) {
  for (const char* name : kOthers) {
    const Regularize raw =
        Must(kJob, With(name, {"loss.regularize={variance: 1, covariance: 0.01}"})).recipe.loss.regularize;
    EXPECT_EQ(raw.variance, 1) << name;
    EXPECT_EQ(raw.covariance, 0.01) << name;
    EXPECT_EQ(raw.on, RegularizeOn::kRaw) << name;
    const Regularize l2 =
        Must(kJob, With(name, {"loss.regularize={variance: 2}", "loss.regularize_on=l2"})).recipe.loss.regularize;
    EXPECT_EQ(l2.variance, 2) << name;
    EXPECT_EQ(l2.covariance, 0) << name;
    EXPECT_EQ(l2.on, RegularizeOn::kL2) << name;
  }
}

TEST(Objectives, AreNotGivenThePresetsCoefficients) {
  const Resolved job = Must("{name: a, preset: demo-cpu, data: {root: r}, loss: {objective: simsiam}}");
  EXPECT_FALSE(job.spec.loss().has_lambda());
  EXPECT_EQ(job.recipe.loss.predictor, 256);
  EXPECT_EQ(Must("{name: a, preset: demo-cpu, data: {root: r}, loss: {objective: vicreg}}").spec.loss().mu(), 25);
}

TEST(Objectives, ResolvedTwiceAreTheSameAndComeBackFromTheirRecipe) {
  for (const Sets& sets :
       {With("barlow_twins"), With("simsiam", {"loss.predictor=0"}), With("byol", {"loss.momentum=0"}),
        With("byol", {"loss.regularize={variance: 1}", "loss.regularize_on=l2"})}) {
    const Resolved once = Must(kJob, sets);
    const auto twice = Resolve(once.spec);
    ASSERT_TRUE(twice.ok()) << twice.status();
    EXPECT_EQ(twice->hash, once.hash);
    EXPECT_EQ(Serialize(Deserialize(Serialize(once.recipe))), Serialize(once.recipe));
    EXPECT_THAT(Serialize(once.recipe), StartsWith("{\"version\":5,"));
  }
}

TEST(Objectives, NameTheExperiment) {
  std::set<std::string> hashes = {Must(kJob).hash};
  for (const Sets& sets : {
           With("barlow_twins"),
           With("barlow_twins", {"loss.redundancy=0.005"}),
           With("barlow_twins", {"loss.form=gram"}),
           With("barlow_twins", {"loss.regularize={variance: 1}"}),
           With("barlow_twins", {"loss.regularize={covariance: 1}"}),
           With("barlow_twins", {"loss.regularize={variance: 1}", "loss.regularize_on=l2"}),
           With("simsiam"),
           With("simsiam", {"loss.predictor=0"}),
           With("byol"),
           With("byol", {"loss.predictor=8"}),
           With("byol", {"loss.momentum=0.996"}),
       }) {
    EXPECT_TRUE(hashes.insert(Must(kJob, sets).hash).second) << testing::PrintToString(sets);
  }
  EXPECT_EQ(Must(kJob, With("vicreg")).hash, Must(kJob).hash);
  EXPECT_EQ(Must(kJob, With("simsiam", {"loss.predictor=8"})).hash, Must(kJob, With("simsiam")).hash);
}

TEST(Objectives, RefuseKeysThatTheyDoNotRead) {
  const struct {
    const char *objective, *field, *value, *reason;
  } rows[] = {
      {"vicreg", "redundancy", "0.1", "vicreg has no redundancy term"},
      {"vicreg", "predictor", "8", "vicreg compares embeddings without a predictor"},
      {"vicreg", "momentum", "0.9", "vicreg has no moving average as its target"},
      {"vicreg", "regularize", "{variance: 1}", "vicreg has variance and covariance terms already"},
      {"vicreg", "regularize_on", "raw", "vicreg looks at embeddings as they are"},
      {"barlow_twins", "convention", "authors", "barlow_twins has no coefficients for a convention to weigh"},
      {"barlow_twins", "lambda", "25", "barlow_twins has no such coefficient"},
      {"barlow_twins", "predictor", "8", "barlow_twins compares embeddings without a predictor"},
      {"barlow_twins", "momentum", "0.9", "barlow_twins has no moving average"},
      {"simsiam", "mu", "0", "simsiam has no such coefficient"},
      {"simsiam", "nu", "1", "simsiam has no such coefficient"},
      {"simsiam", "redundancy", "0.1", "simsiam has no redundancy term"},
      {"simsiam", "momentum", "0.9", "simsiam has no moving average"},
      {"byol", "convention", "paper", "byol has no coefficients for a convention"},
      {"byol", "redundancy", "0.1", "byol has no redundancy term"},
      {"byol", "regularize_on", "l2", "byol is not regularised in this job"},
  };
  for (const auto& r : rows) {
    const std::string field = std::string("loss.") + r.field;
    EXPECT_THAT(ProblemsOf(kJob, With(r.objective, {field + "=" + r.value})),
                ElementsAre(StartsWith("job: " + field + ": " + r.reason)))
        << r.objective;
  }
}

TEST(Objectives, LimitsHoldExactlyAtTheirBorders) {
  const struct {
    const char *objective, *field;
    Sets good, bad;
  } rows[] = {
      {"barlow_twins", "loss.redundancy", {"0", "1e12"}, {"-1e-9", "1.01e12"}},
      {"simsiam", "loss.predictor", {"0", "65536"}, {"-1", "65537"}},
      {"byol", "loss.predictor", {"0", "65536"}, {"-1", "65537"}},
      {"byol", "loss.momentum", {"0", "1"}, {"-0.001", "1.001"}},
      {"byol", "loss.regularize.variance", {"1e-9", "1e12"}, {"-1e-9", "1.01e12"}},
      {"simsiam", "loss.regularize.covariance", {"1e-9", "1e12"}, {"-1e-9", "1.01e12"}},
      {"simsiam", "loss.objective", {"simsiam", "byol"}, {"moco"}},
  };
  for (const auto& r : rows) {
    for (const std::string& value : r.good)
      EXPECT_THAT(ProblemsOf(kJob, With(r.objective, {std::string(r.field) + "=" + value})), IsEmpty()) << value;
    for (const std::string& value : r.bad)
      EXPECT_THAT(ProblemsOf(kJob, With(r.objective, {std::string(r.field) + "=" + value})),
                  ElementsAre(StartsWith("job: " + std::string(r.field) + ": found ")))
          << value;
  }
  EXPECT_THAT(ProblemsOf(kJob, With("simsiam", {"loss.regularize={variance: 0}"})),
              ElementsAre(HasSubstr("loss.regularize: has no weight above 0")));
}

TEST(Accumulate, IsOfferedWhereThereIsNoBatchNorm) {
  const Sets exact = {"encoder={name: vit_ti16}", "expander_norm=none"};
  const auto with = [&](Sets more) {
    more.insert(more.begin(), exact.begin(), exact.end());
    return more;
  };
  EXPECT_EQ(Must(kJob).recipe.accumulate, 1);
  EXPECT_EQ(Must(kJob, {"accumulate=1"}).recipe.accumulate, 1);
  for (const char* objective : {"vicreg", "barlow_twins", "simsiam", "byol"}) {
    const std::string key = std::string("loss.objective=") + objective;
    EXPECT_EQ(Must(kJob, with({key, "accumulate=256"})).recipe.accumulate, 256);
  }
  const struct {
    Sets sets;
    const char* reason;
  } rows[] = {
      {{"accumulate=2"}, "found 2 parts with batch norm in the expander"},
      {{"accumulate=2", "expander_norm=none"}, "found 2 parts with batch norm in encoder tiny"},
      {with({"accumulate=2", "embedding_norm=std"}), "found 2 parts with batch norm in embedding_norm std"},
      {with({"accumulate=257"}), "found 257 parts of a batch of 256 rows"},
      {with({"accumulate=0"}), "found 0; expected 1 to 1048576"},
      {with({"accumulate=-1"}), "found -1; expected 1 to 1048576"},
  };
  for (const auto& r : rows)
    EXPECT_THAT(ProblemsOf(kJob, r.sets), ElementsAre(StartsWith(std::string("job: accumulate: ") + r.reason)));
  EXPECT_EQ(Must(kJob, with({"accumulate=4"})).hash, Must(kJob, exact).hash) << "the same experiment in less memory";
}

TEST(ExplainObjective, SaysWhatApplies) {
  const auto text = [](const Sets& sets) { return ExplainText(Must(kJob, sets)); };
  EXPECT_THAT(text(With("barlow_twins")),
              testing::AllOf(HasSubstr("barlow_twins, redundancy 0.0051"), HasSubstr("regularisation      none"),
                             testing::Not(HasSubstr("predictor"))));
  EXPECT_THAT(text(With("simsiam", {"loss.regularize={variance: 1, covariance: 0.01}"})),
              testing::AllOf(HasSubstr("32 to 8 to 32"),
                             HasSubstr("per view: variance 1, covariance 0.01 of embeddings "
                                       "as they are"),
                             testing::Not(HasSubstr("momentum"))));
  EXPECT_THAT(text(With("byol", {"loss.regularize={variance: 1}", "loss.regularize_on=l2"})),
              testing::AllOf(HasSubstr("32 to 4096 to 32"), HasSubstr("factor 0.99 at first, by half a cosine to 1"),
                             HasSubstr("scaled to length sqrt(D)")));
  EXPECT_THAT(text(With("simsiam", {"loss.predictor=0", "loss.regularize={variance: 1}"})),
              HasSubstr("none: embeddings are compared as they are"));
  EXPECT_THAT(text({"encoder={name: vit_ti16}", "expander_norm=none", "accumulate=4"}),
              HasSubstr("activations of one of 4 parts"));
  const auto json = ExplainJson(Must(kJob, With("byol")));
  EXPECT_EQ(json["objective"], "byol");
  EXPECT_EQ(json["momentum"], 0.99);
  EXPECT_EQ(json["effective_weights"]["variance_per_view"], 0);
  EXPECT_TRUE(ExplainJson(Must(kJob))["momentum"].is_null());
}

TEST(ExplainObjective, NumbersAreThoseOfHandArithmetic) {
  const Explanation plain = Explain(Must(kJob)), simsiam = Explain(Must(kJob, With("simsiam"))),
                    byol = Explain(Must(kJob, With("byol", {"loss.predictor=10"})));
  EXPECT_EQ(plain.predictor_parameters, 0);
  EXPECT_EQ(simsiam.predictor_parameters, 32 * 8 + 8 + 2 * 8 + 8 * 32 + 32);
  EXPECT_EQ(Explain(Must(kJob, With("simsiam", {"expander_norm=none"}))).predictor_parameters,
            32 * 8 + 8 + 8 * 32 + 32);
  EXPECT_EQ(simsiam.state_bytes - plain.state_bytes, 16 * simsiam.predictor_parameters);
  // Four numbers for each trained value, one more for each that the target follows.
  EXPECT_EQ(byol.state_bytes - plain.state_bytes,
            16 * byol.predictor_parameters + 4 * (byol.encoder_parameters + byol.expander_parameters));
  // K is one matrix where VICReg has one for each view.
  const auto bytes = [](const char* name, Sets more = {}) {
    more.push_back("world_size=2");
    return Explain(Must(kJob, With(name, more))).loss_bytes;
  };
  EXPECT_EQ(bytes("barlow_twins"), 4 * 2 * 32 * 32 / 2);
  EXPECT_EQ(bytes("simsiam"), bytes("vicreg"));
  EXPECT_EQ(bytes("barlow_twins", {"loss.regularize={variance: 1}"}), bytes("barlow_twins") + bytes("vicreg"));
  EXPECT_EQ(bytes("barlow_twins", {"loss.form=gram"}), bytes("vicreg", {"loss.form=gram"}));
}

TEST(WarningsOfObjectives, AreGivenForWhatIsAllowedButUnwise) {
  const struct {
    Sets sets;
    const char* want;  // nullptr: none
  } rows[] = {
      {With("barlow_twins"), nullptr},
      {With("barlow_twins", {"loss.redundancy=0"}), "redundancy is 0"},
      {With("simsiam"), nullptr},
      {With("simsiam", {"loss.predictor=0"}), "neither a predictor nor a variance term"},
      {With("simsiam", {"loss.predictor=0", "loss.regularize={covariance: 1}"}), "neither a predictor"},
      {With("simsiam", {"loss.predictor=0", "loss.regularize={variance: 1}"}), nullptr},
      {With("byol"), nullptr},
      {With("byol", {"loss.momentum=1"}), "momentum is 1"},
  };
  for (const auto& r : rows) {
    const auto warnings = Must(kJob, r.sets).warnings;
    if (r.want == nullptr) {
      EXPECT_THAT(warnings, IsEmpty()) << testing::PrintToString(r.sets);
    } else {
      EXPECT_THAT(warnings, ElementsAre(HasSubstr(r.want))) << testing::PrintToString(r.sets);
    }
  }
}

}  // namespace
}  // namespace vicreg::recipe
