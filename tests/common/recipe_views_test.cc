// Goal: a job can have any number of views and weigh each as it likes, with the weights that a convention gives two
// views spread over more, and every mistake in that is named. Method: one valid job and overrides of single keys;
// weights and bytes by hand; borders from both sides.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/recipe/explain.h"
#include "common/recipe/recipe_json.h"
#include "tests/common/jobs.h"

namespace vicreg::recipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

const std::string kTwo = "[{variance: 12, covariance: 1}, {variance: 3, covariance: 0}]";

Sets Each(const std::string& weights, Sets more = {}) {
  more.push_back("loss.per_view=" + weights);
  return more;
}

TEST(Views, AreTwoUnlessTheJobSaysMore) {
  EXPECT_EQ(Must(kJob).recipe.views, 2);
  const Resolved three = Must(kJob, {"views=3"});
  EXPECT_EQ(three.recipe.views, 3);
  EXPECT_EQ(recipe::Views(three.recipe).size(), 3u);
  EXPECT_EQ(Must("{name: a, preset: demo-cpu, data: {root: r}, views: 4}").recipe.views, 4);
  EXPECT_EQ(Must(kJob, {"views=2"}).hash, Must(kJob).hash);
}

// A recipe that was hashed before there was a choice keeps its name.
TEST(Views, TwoOfThemAreHashedAsTheyAlwaysWere) {
  EXPECT_THAT(Serialize(Must(kJob).recipe), AllOf(StartsWith("{\"version\":1,"), Not(HasSubstr("views"))));
}

TEST(Views, ShareTheWeightsOfAConvention) {
  const struct {
    const char *convention, *views;
    double mu, nu;  // of mu = 30 and nu = 4
  } rows[] = {
      {"authors", "2", 15, 4}, {"authors", "3", 10, 8.0 / 3}, {"paper", "2", 30, 4},
      {"paper", "4", 15, 2},   {"vicregl", "2", 15, 2},       {"vicregl", "5", 6, 0.8},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(std::string(r.convention) + ", " + r.views);
    const Recipe recipe = Must(kJob, {"loss={lambda: 20, mu: 30, nu: 4}",
                                      std::string("loss.convention=") + r.convention, std::string("views=") + r.views})
                              .recipe;
    EXPECT_EQ(recipe.loss.lambda_, 20) << "of the mean over pairs";
    for (const Branch& view : recipe::Views(recipe)) {
      EXPECT_DOUBLE_EQ(view.mu, r.mu);
      EXPECT_DOUBLE_EQ(view.nu, r.nu);
    }
  }
}

TEST(Views, ThatAnObjectiveDoesNotCompareAreRefused) {
  for (const std::string name : {"barlow_twins", "simsiam", "byol"}) {
    EXPECT_THAT(ProblemsOf(kJob, {"loss={objective: " + name + "}", "views=3"}),
                ElementsAre("job: views: found 3; expected 2, for which alone " + name +
                            " is defined: remove the key, or use objective: vicreg"));
    EXPECT_EQ(Must(kJob, {"loss={objective: " + name + "}", "views=2"}).recipe.views, 2);
  }
}

TEST(PerView, WeightsAreAppliedAsTheyAre) {
  const Resolved job = Must(kJob, Each(kTwo));
  EXPECT_EQ(job.spec.loss().convention(), v1::CONVENTION_PER_VIEW) << "of the key's presence";
  EXPECT_FALSE(job.spec.loss().has_mu());
  EXPECT_EQ(job.recipe.loss.convention, Convention::kPerView);
  EXPECT_EQ(job.recipe.loss.lambda_, 25);
  const std::vector<Branch> views = recipe::Views(job.recipe);
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].mu, 12);
  EXPECT_EQ(views[0].nu, 1);
  EXPECT_EQ(views[1].mu, 3);
  EXPECT_EQ(views[1].nu, 0);
  EXPECT_EQ(Must(kJob, Each(kTwo, {"loss.convention=per_view"})).hash, job.hash);
  EXPECT_EQ(Must(kJob, {"loss.per_view=[{variance: 12, covariance: 1}, {variance: 9, covariance: 0}]",
                        "loss.per_view[1].variance=3"})
                .hash,
            job.hash);
}

TEST(PerView, ReplacesThePresetsCoefficients) {
  const std::string preset = "{name: demo, preset: demo-cpu, data: {root: r}}";
  const Resolved job = Must(preset, Each(kTwo));
  EXPECT_EQ(job.spec.loss().convention(), v1::CONVENTION_PER_VIEW);
  EXPECT_FALSE(job.spec.loss().has_mu());
  EXPECT_EQ(job.recipe.loss.per_view.size(), 2u);
}

TEST(PerView, ResolvedTwiceIsTheSameAndComesBackFromItsRecipe) {
  for (const Sets& sets : {Each(kTwo), Sets{"views=5"}}) {
    const Resolved once = Must(kJob, sets);
    const auto twice = Resolve(once.spec);
    ASSERT_TRUE(twice.ok()) << twice.status();
    EXPECT_EQ(twice->hash, once.hash);
    EXPECT_EQ(Serialize(Deserialize(Serialize(once.recipe))), Serialize(once.recipe));
    EXPECT_THAT(Serialize(once.recipe), StartsWith("{\"version\":4,"));
  }
}

TEST(PerView, MistakesAreNamed) {
  const struct {
    Sets sets;
    const char* problem;
  } rows[] = {
      {{"loss.convention=per_view"}, "loss.per_view: found weights of 0 views; expected 2, one entry"},
      {Each(kTwo, {"views=3"}), "loss.per_view: found weights of 2 views; expected 3, one entry"},
      {Each("[{variance: 1, covariance: 1}]"), "loss.per_view: found weights of 1 views; expected 2"},
      {Each(kTwo, {"views=17"}), "views: found 17; expected 2 to 16"},
      {Each(kTwo, {"loss.convention=authors"}),
       "loss.per_view: stands beside a convention that weighs all views alike"},
      {Each(kTwo, {"loss.mu=25"}), "loss.mu: weighs all views alike, convention per_view weighs each"},
      {Each(kTwo, {"loss.nu=1"}), "loss.nu: weighs all views alike, convention per_view weighs each"},
      {Each("[{variance: 1, covariance: 1}, {covariance: 1}]"),
       "loss.per_view[1].variance: missing; expected a number"},
      {Each("[{variance: 1}, {variance: 1, covariance: 1}]"), "loss.per_view[0].covariance: missing; expected"},
      {Each("[{variance: -1e-9, covariance: 1}, {variance: 1, covariance: 1}]"),
       "loss.per_view[0].variance: found -1e-09"},
      {Each("[{variance: 1, covariance: 1}, {variance: 1, covariance: 1.01e12}]"),
       "loss.per_view[1].covariance: found 1.01"},
      {Each("[{variance: 1, covariance: 1}, {variance: 1, mu: 1, covariance: 1}]"), "loss.per_view[1].mu: unknown key"},
      {Each("[{variance: 1, covariance: 1}, 7]"), "loss.per_view[1]: found \"7\"; expected a map of keys"},
      {Each("{variance: 1}"), "loss.per_view: found a map; expected a list, such as [{...}, {...}]"},
      {{"loss={objective: simsiam, per_view: " + kTwo + "}"}, "loss.per_view: simsiam has no such coefficient"},
  };
  for (const auto& r : rows)
    EXPECT_THAT(ProblemsOf(kJob, r.sets), testing::Contains(StartsWith(std::string("job: ") + r.problem)))
        << testing::PrintToString(r.sets);
  EXPECT_THAT(ProblemsOf(kJob, Each("[{variance: 0, covariance: 0}, {variance: 1e12, covariance: 1e12}]")), IsEmpty());
  EXPECT_THAT(ProblemsOf(kJob, Each("[{variance: -1}, {covariance: -2}]", {"views=0", "loss.mu=1"})),
              testing::UnorderedElementsAre(
                  StartsWith("job: views: "), StartsWith("job: loss.mu: "),
                  StartsWith("job: loss.per_view[0].variance: "), StartsWith("job: loss.per_view[0].covariance: "),
                  StartsWith("job: loss.per_view[1].variance: "), StartsWith("job: loss.per_view[1].covariance: ")))
      << "all at once";
}

TEST(PerView, OfANewerClientIsRefused) {
  v1::JobSpec spec = Must(kJob, Each(kTwo)).spec;
  auto* view = spec.mutable_loss()->mutable_per_view(1);
  view->GetReflection()->MutableUnknownFields(view)->AddVarint(1000, 1);
  EXPECT_THAT(Lines(Resolve(spec).status()), ElementsAre(StartsWith("loss.per_view[1]: holds field number 1000")));
}

TEST(PerView, UnwiseWeightsAreWarnedOf) {
  const auto warnings = [](const std::string& weights) { return Must(kJob, Each(weights)).warnings; };
  EXPECT_THAT(warnings(kTwo), IsEmpty()) << "one view alone may go without a term";
  EXPECT_THAT(warnings("[{variance: 1, covariance: 0}, {variance: 2, covariance: 0}]"),
              ElementsAre(HasSubstr("a loss coefficient is 0")));
  EXPECT_THAT(warnings("[{variance: 1, covariance: 0.1}, {variance: 2, covariance: 2}]"),
              ElementsAre(HasSubstr("covariance weight is not below its variance weight")));
}

TEST(ExplainViews, SaysHowManyAndWithWhichWeights) {
  const Resolved three = Must(kJob, {"views=3", "world_size=2"});
  EXPECT_THAT(ExplainText(three), AllOf(HasSubstr("views                 3 of each sample"),
                                        HasSubstr("per view: variance 8.33333, covariance 0.666667")));
  EXPECT_EQ(ExplainJson(three)["views"], 3);
  const Resolved each = Must(kJob, Each(kTwo));
  EXPECT_THAT(ExplainText(each),
              AllOf(HasSubstr("convention per_view, lambda 25\n"),
                    HasSubstr("invariance 25; view 1: variance 12, covariance 1; view 2: variance 3, covariance 0")));
  const auto weights = ExplainJson(each)["effective_weights"]["views"];
  ASSERT_EQ(weights.size(), 2u);
  EXPECT_EQ(weights[0]["variance"], 12);
  EXPECT_EQ(weights[1]["covariance"], 0);
  EXPECT_FALSE(ExplainJson(each)["effective_weights"].contains("mu_per_view"));
}

TEST(ExplainViews, BytesGrowWithThem) {
  // N = 256, D = 32, two ranks: an all-reduce of D x D for each view, half of it out and half back.
  const auto explain = [](Sets sets) {
    sets.push_back("world_size=2");
    return Explain(Must(kJob, sets));
  };
  EXPECT_EQ(explain({"views=5"}).loss_bytes, 5 * 4 * 2 * 32 * 32 / 2);
  EXPECT_EQ(explain({"views=5", "loss.form=gram"}).loss_bytes, 5 * 4 * 128 * 32);
  EXPECT_EQ(explain({"views=5"}).loss_memory_bytes, 5 * 4 * (32 * 32 + 4 * 128 * 32));
  EXPECT_EQ(explain({"views=5"}).gradient_bytes, explain({}).gradient_bytes) << "one network for all";
}

}  // namespace
}  // namespace vicreg::recipe
