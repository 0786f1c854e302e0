// Goal: a run that is known to go wrong is named, with the value that says so; a run that goes right never is.
// Method: one row per rule and per boundary; rows are all alike but for the named values.

#include "coordinator/telemetry/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace vicreg::telemetry {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Newest first, ending at `step`.
std::vector<v1::MetricRow> Rows(std::int64_t step, double z_std, double mismatch, double loss = 10,
                                double redundancy = 0.05) {
  std::vector<v1::MetricRow> rows;
  for (std::int64_t s = step; s > 0 && rows.size() < 40; --s) {
    v1::MetricRow& row = rows.emplace_back();
    row.set_step(s);
    row.set_z_std_mean(z_std);
    row.set_mismatch(mismatch);
    row.set_loss(loss);
    row.set_redundancy(redundancy);
  }
  return rows;
}

TEST(Verdict, FollowsTheTable) {
  const struct {
    const char* rule;
    std::int64_t step;
    double z_std, mismatch, loss;
    const char* want;
    double redundancy = 0.05;
  } rows[] = {
      {"before the first step", 0, 0, 0, 0, "warming_up"},
      {"nothing is judged during the grace", 49, 0.01, 0.99, 10, "warming_up"},
      {"not even there may the loss be NaN", 3, 0.5, 0.3, kNan, "diverging"},
      {"infinite loss", 300, 0.5, 0.3, kInfinity, "diverging"},
      {"minus infinity", 300, 0.5, 0.3, -kInfinity, "diverging"},
      {"a NaN loss comes before collapse", 300, 0.01, 0.3, kNan, "diverging"},
      {"25/25/1 early", 50, 0.28, 0.45, 10, "healthy"},
      {"25/25/1 late", 300, 0.39, 0.19, 10, "healthy"},
      {"10/10/1", 150, 0.23, 0.68, 10, "healthy"},
      {"1/0/0", 50, 0.024, 0.5, 10, "collapsed"},
      {"10/1/1", 300, 0.063, 0.5, 10, "collapsed"},
      {"just below the threshold", 300, 0.0999, 0.5, 10, "collapsed"},
      {"at the threshold", 300, 0.1, 0.5, 10, "healthy"},
      {"collapse comes before views that differ", 300, 0.01, 0.99, 10, "collapsed"},
      {"all embeddings equal: mismatch is 0/0", 300, 0.0, kNan, 10, "collapsed"},
      {"0/25/1", 100, 0.63, 0.93, 10, "not_invariant"},
      {"1/1/1", 100, 0.17, 0.82, 10, "not_invariant"},
      {"mismatch at the threshold", 100, 0.5, 0.75, 10, "healthy"},
      {"1/1/0", 100, 1.0, 0.12, 10, "redundant", 0.89},
      {"just above the threshold", 100, 1.0, 0.12, 10, "redundant", 0.501},
      {"redundancy at the threshold", 100, 1.0, 0.12, 10, "healthy", 0.5},
      {"not during the grace", 49, 1.0, 0.12, 10, "warming_up", 0.9},
      {"views that differ come before repeated dimensions", 100, 0.5, 0.93, 10, "not_invariant", 0.9},
      {"all embeddings equal: redundancy is 0/0", 300, 0.0, kNan, 10, "collapsed", kNan},
      {"a row of an older rank has none", 300, 0.35, 0.2, 10, "healthy", 0},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.rule);
    const Verdict got = Judge(Rows(r.step, r.z_std, r.mismatch, r.loss, r.redundancy));
    EXPECT_EQ(got.name, r.want);
    EXPECT_FALSE(got.sentence.empty());
  }
}

TEST(Verdict, OneBadStepAmongTwentyChangesNothing) {
  auto rows = Rows(300, 0.35, 0.2);
  rows[0].set_z_std_mean(0.001);
  rows[7].set_mismatch(0.99);
  EXPECT_EQ(Judge(rows).name, "healthy");
}

TEST(Verdict, MostOfTheWindowDecides) {
  auto rows = Rows(300, 0.35, 0.2);
  for (std::size_t i = 0; i < 11; ++i) rows[i].set_z_std_mean(0.02);
  EXPECT_EQ(Judge(rows).name, "collapsed");
}

TEST(Verdict, RowsOlderThanTheWindowDoNotCount) {
  auto rows = Rows(300, 0.35, 0.2);
  for (std::size_t i = 20; i < rows.size(); ++i) rows[i].set_z_std_mean(0.001);
  EXPECT_EQ(Judge(rows).name, "healthy");
}

TEST(Verdict, SentencesNameValueAndStep) {
  EXPECT_THAT(Judge(Rows(300, 0.0241, 0.5)).sentence, HasSubstr("0.0241, below 0.1"));
  EXPECT_THAT(Judge(Rows(300, 0.5, 0.93)).sentence, HasSubstr("0.93"));
  EXPECT_THAT(Judge(Rows(300, 1, 0.1, 10, 0.93)).sentence, HasSubstr("0.93, above 0.5: raise the weight"));
  auto rows = Rows(300, 0.35, 0.2);
  rows[4].set_loss(kNan);
  EXPECT_THAT(Judge(rows).sentence, HasSubstr("step 296"));
}

}  // namespace
}  // namespace vicreg::telemetry
