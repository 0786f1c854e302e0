// Goal: what people read is aligned, short and cannot drive their terminal; exit codes mean what the reference says.
// Method: tables of inputs and exact outputs.
#include "cli/text.h"

#include <gmock/gmock.h>

#include "cli/exit_code.h"
#include "cli/json.h"

namespace vicreg::cli {
namespace {

TEST(Table, NumbersStandAtTheRightAndLinesHaveNoTrailingSpace) {
  EXPECT_EQ(Table({"NAME", "STEP"}, {{"a", "5"}, {"longer", "1,234"}, {"c", ""}}),
            "NAME     STEP\na           5\nlonger  1,234\nc\n");
}

TEST(Table, CountsCharactersNotBytes) { EXPECT_EQ(Table({}, {{"é", "x"}, {"ab", "y"}}), "é   x\nab  y\n"); }

TEST(Duration, GrowsWithItsUnit) {
  const struct {
    double seconds;
    const char* text;
  } rows[] = {{-3, "0s"},       {0.4, "0s"},     {59.4, "59s"},   {60, "1m00s"},
              {3599, "59m59s"}, {3600, "1h00m"}, {90061, "1d01h"}};
  for (const auto& r : rows) EXPECT_EQ(Duration(r.seconds), r.text) << r.seconds;
}

TEST(ParseDuration, TakesUnitsAndRefusesTheRest) {
  const struct {
    const char* text;
    double seconds;
  } rows[] = {{"90", 90}, {"90s", 90}, {"1.5m", 90}, {"2h", 7200}, {"250ms", 0.25}, {"", -1},
              {"s", -1},  {"5x", -1},  {"-1s", -1},  {"inf", -1},  {"nan", -1},     {"5 s", -1}};
  for (const auto& r : rows) EXPECT_EQ(ParseDuration(r.text), r.seconds) << r.text;
}

TEST(Grouped, SeparatesThousands) {
  EXPECT_EQ(Grouped(0), "0");
  EXPECT_EQ(Grouped(999), "999");
  EXPECT_EQ(Grouped(1000), "1,000");
  EXPECT_EQ(Grouped(-1234567), "-1,234,567");
}

TEST(Printable, TakesTheEscapeOutOfTerminalSequences) {
  EXPECT_EQ(Printable("a\033[2Jb\r\x7f\ttab\n"), "a?[2Jb??\ttab\n");
}

TEST(Bar, IsFullOnlyAtTheEnd) {
  EXPECT_EQ(Bar(0, 4), "[----]");
  EXPECT_EQ(Bar(0.99, 4), "[###-]");
  EXPECT_EQ(Bar(1, 4), "[####]");
  EXPECT_EQ(Bar(7, 4), "[####]");
}

TEST(ExitCode, FollowsTheReference) {
  const struct {
    absl::Status status;
    int code;
  } rows[] = {
      {absl::OkStatus(), 0},
      {absl::InternalError(""), 1},
      {absl::DataLossError(""), 1},
      {absl::InvalidArgumentError(""), 2},
      {absl::PermissionDeniedError(""), 4},
      {absl::UnauthenticatedError(""), 4},
      {absl::AlreadyExistsError(""), 5},
      {absl::FailedPreconditionError(""), 5},
      {absl::UnavailableError(""), 6},
      {absl::NotFoundError(""), 7},
      {absl::DeadlineExceededError(""), 101},
      {absl::CancelledError(""), 130},
  };
  for (const auto& r : rows) EXPECT_EQ(ExitCode(r.status), r.code) << r.status;
  const auto of = [](v1::JobState state, v1::Reason reason) {
    v1::Job job;
    job.set_state(state);
    job.set_reason(reason);
    return ExitCode(job);
  };
  EXPECT_EQ(of(v1::JOB_STATE_SUCCEEDED, v1::REASON_COMPLETED), 0);
  EXPECT_EQ(of(v1::JOB_STATE_FAILED, v1::REASON_CRASH_LOOP), 100);
  EXPECT_EQ(of(v1::JOB_STATE_FAILED, v1::REASON_DETERMINISTIC_CRASH), 100);
  EXPECT_EQ(of(v1::JOB_STATE_CANCELLED, v1::REASON_CANCEL_REQUESTED), 103);
  EXPECT_EQ(of(v1::JOB_STATE_FAILED, v1::REASON_DEADLINE), 104);
  EXPECT_EQ(of(v1::JOB_STATE_FAILED, v1::REASON_PREEMPTED), 104);
  EXPECT_EQ(of(v1::JOB_STATE_RUNNING, v1::REASON_DEADLINE), 1);
}

TEST(JobToJson, HasTheNamesOtherToolsRelyOn) {
  v1::Job job;
  job.set_id("i");
  job.mutable_spec()->set_name("n");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_reason(v1::REASON_TRAINING);
  job.set_message("m");
  job.set_attempt(2);
  job.set_step(5'000'000'000);
  const auto json = JobToJson(job);
  EXPECT_EQ(json["id"], "i");
  EXPECT_EQ(json["name"], "n");
  EXPECT_EQ(json["state"], "RUNNING");
  EXPECT_EQ(json["reason"], "TRAINING");
  EXPECT_EQ(json["message"], "m");
  EXPECT_EQ(json["attempt"], 2);
  EXPECT_EQ(json["step"], 5'000'000'000);  // a number, not a string
  EXPECT_EQ(json["total_steps"], 0);       // present though zero
  EXPECT_FALSE(json.contains("eta_seconds"));
  EXPECT_EQ(json["ranks"], nlohmann::ordered_json::array());
}

TEST(ToJson, MetricRowHasThePromisedNames) {
  const auto json = ToJson(v1::MetricRow());
  for (const char* name :
       {"step", "attempt", "loss", "invariance", "variance", "covariance", "learning_rate", "images_per_second"})
    EXPECT_TRUE(json.contains(name)) << name;
}

}  // namespace
}  // namespace vicreg::cli
