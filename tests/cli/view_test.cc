// Goal: a person sees where a job stands and why, on a terminal and in a log file.
// Method: jobs built by hand, exact lines.
#include "cli/view.h"

#include <gmock/gmock.h>

namespace vicreg::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::Job Running(std::int64_t step) {
  v1::Job job;
  job.set_id("0123456789abcdef");
  job.mutable_spec()->set_name("demo");
  job.mutable_spec()->set_device(v1::DEVICE_CPU);
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_reason(v1::REASON_TRAINING);
  job.set_message("training");
  job.set_attempt(1);
  job.set_slots_have(2);
  job.set_slots_want(2);
  job.set_step(step);
  job.set_total_steps(300);
  job.set_eta_seconds(75);
  job.set_verdict("healthy");
  job.set_verdict_message("spread 0.9");
  v1::MetricRow& row = *job.mutable_last_row();
  row.set_step(step);
  row.set_loss(20.5);
  row.set_invariance(0.16);
  row.set_invariance_weighted(4);
  row.set_variance(1.24);
  row.set_variance_weighted(15.5);
  row.set_covariance(1);
  row.set_covariance_weighted(1);
  row.set_learning_rate(0.0005);
  row.set_images_per_second(2950);
  return job;
}

TEST(Panel, ShowsBarEtaTermsAndVerdictInFiveLines) {
  EXPECT_EQ(Panel(Running(150), 120, false),
            "demo  01234567  RUNNING  attempt 1, 2 of 2 cpu slots\n"
            "[###############---------------] 50 %   step 150 of 300   ETA 1m15s   2,950 images/s\n"
            "loss 20.5 = invariance 4 + variance 15.5 + covariance 1\n"
            "raw: invariance 0.16  variance 1.24  covariance 1   learning rate 0.0005\n"
            "healthy: spread 0.9\n");
}

TEST(Panel, NeverWrapsAndNeverChangesItsHeight) {
  v1::Job job = Running(1);
  job.set_verdict_message(std::string(500, 'x') + "\nsecond line");
  const std::string panel = Panel(job, 40, false);
  EXPECT_EQ(std::count(panel.begin(), panel.end(), '\n'), 5);
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = panel.find('\n', begin)) != std::string::npos; begin = end + 1)
    EXPECT_LT(end - begin, 40u);
  job.clear_last_row();
  const std::string waiting = Panel(job, 40, false);
  EXPECT_EQ(std::count(waiting.begin(), waiting.end(), '\n'), 5);
}

TEST(Panel, WaitingJobSaysWhatItWaitsFor) {
  v1::Job job = Running(0);
  job.set_state(v1::JOB_STATE_QUEUED);
  job.set_reason(v1::REASON_NOT_ENOUGH_SLOTS);
  job.set_message("needs 5 cpu slots, the cluster has 2");
  EXPECT_THAT(Panel(job, 120, false), HasSubstr("NOT_ENOUGH_SLOTS: needs 5 cpu slots, the cluster has 2\n"));
}

TEST(Panel, ColourIsOnlyAddedToStateAndVerdict) {
  const std::string plain = Panel(Running(150), 120, false), coloured = Panel(Running(150), 120, true);
  EXPECT_THAT(coloured, HasSubstr("\033[32mRUNNING\033[0m"));
  EXPECT_THAT(coloured, HasSubstr("\033[32mhealthy\033[0m: spread"));
  EXPECT_EQ(coloured.size(), plain.size() + 2 * 9);
}

TEST(ProgressLine, HasNoEtaWhenNothingIsLeft) {
  EXPECT_THAT(ProgressLine(Running(299)), HasSubstr("ETA 1m15s"));
  EXPECT_THAT(ProgressLine(Running(300)), Not(HasSubstr("ETA")));
}

TEST(LineFilter, OneLinePerChangeAndTenth) {
  LineFilter filter;
  EXPECT_TRUE(filter.Wants(Running(1)));
  EXPECT_FALSE(filter.Wants(Running(2)));
  EXPECT_TRUE(filter.Wants(Running(30)));
  EXPECT_FALSE(filter.Wants(Running(59)));
  v1::Job measured = Running(59);
  measured.set_knn_accuracy(0.5);
  EXPECT_TRUE(filter.Wants(measured));
  EXPECT_FALSE(filter.Wants(measured));
  measured.set_attempt(2);
  EXPECT_TRUE(filter.Wants(measured));
  // After a rollback the tenths below the best one are no news.
  v1::Job back = measured;
  back.set_step(20);
  EXPECT_FALSE(filter.Wants(back));
  back.set_state(v1::JOB_STATE_BACKOFF);
  EXPECT_TRUE(filter.Wants(back));
}

v1::Node WellNode() {
  v1::Node node;
  node.set_name("n1");
  node.set_state(v1::NODE_STATE_READY);
  node.set_admin(v1::NODE_ADMIN_OPEN);
  node.set_build("1.2");
  node.set_last_heard_us(1'000'000);
  node.add_data_roots("images");
  v1::SlotCount& slots = *node.add_slots();
  slots.set_kind("cpu");
  slots.set_total(2);
  slots.set_used(1);
  return node;
}

TEST(Ailments, AreNoneOfAWellNodeAndOneForEachThingThatIsWrong) {
  EXPECT_THAT(Ailments(WellNode(), "1.2", 2'000'000), testing::IsEmpty());
  const struct {
    void (*spoil)(v1::Node&);
    const char* says;
  } rows[] = {
      {[](v1::Node& n) { n.set_state(v1::NODE_STATE_QUARANTINED); }, "it is QUARANTINED"},
      {[](v1::Node& n) { n.set_last_heard_us(-10'000'000); }, "it was not heard for 12s"},
      {[](v1::Node& n) { n.set_strikes(2); }, "2 of 3 strikes"},
      {[](v1::Node& n) { n.set_build("1.1"); }, "its worker is version 1.1, the coordinator 1.2"},
      {[](v1::Node& n) { n.clear_slots(); }, "it offers no slots"},
      {[](v1::Node& n) { n.clear_data_roots(); }, "it offers no data root"},
  };
  for (const auto& row : rows) {
    v1::Node node = WellNode();
    row.spoil(node);
    EXPECT_THAT(Ailments(node, "1.2", 2'000'000), testing::ElementsAre(testing::HasSubstr(row.says)));
  }
}

TEST(Top, ShowsTheFullestNodeFirstAndWhoseRanksItHolds) {
  v1::Node empty = WellNode();
  empty.set_name("n0");
  empty.mutable_slots(0)->set_used(0);
  v1::Job job = Running(3);
  job.clear_ranks();
  for (const char* state : {"STEPPING", "EXITED"}) {
    v1::RankStatus& rank = *job.add_ranks();
    rank.set_node("n1");
    rank.set_state(state);
  }
  const std::string text = TopNodes({empty, WellNode()}, {job}, 2'000'000, true);
  EXPECT_LT(text.find("n1"), text.find("n0"));
  EXPECT_THAT(text, testing::HasSubstr(ShortId(job.id()) + " " + job.spec().name() + " x1"))
      << "an ended rank holds nothing";
  EXPECT_THAT(TopNodes({empty}, {}, 0, false), testing::Not(testing::HasSubstr("NODE")));
  EXPECT_THAT(TopRanks(job, true), testing::HasSubstr("STEPPING"));
  job.clear_ranks();
  job.set_message("waits for slots");
  EXPECT_THAT(TopRanks(job, true), testing::HasSubstr("no ranks: waits for slots"));
}

TEST(ListRow, FitsAHundredColumns) {
  const std::vector<std::string> row = ListRow(Running(150), 0);
  EXPECT_EQ(row.size(), ListColumns().size());
  EXPECT_THAT(row, testing::ElementsAre("01234567", "demo", "RUNNING", "TRAINING", "0", "2/2", "150 (50%)", "1m15s", "",
                                        "", "", "", "1", "healthy", "training"));
}

TEST(Describe, NamesRanksAndCheckpoints) {
  v1::Job job = Running(150);
  v1::RankStatus& rank = *job.add_ranks();
  rank.set_rank(1);
  rank.set_node("n\033[31m");
  rank.set_state("EXITED");
  rank.set_exit_reason(v1::EXIT_REASON_SIGNALLED);
  rank.set_exit_message("killed by signal 9 (Killed)");
  v1::Checkpoint& checkpoint = *job.add_checkpoints();
  checkpoint.set_step(100);
  checkpoint.set_bytes(2832243);
  const std::string text = Describe(job, 0);
  EXPECT_THAT(text, HasSubstr("SIGNALLED"));
  EXPECT_THAT(text, HasSubstr("killed by signal 9 (Killed)"));
  EXPECT_THAT(text, HasSubstr("2,832,243"));
  EXPECT_THAT(text, Not(HasSubstr("\033")));
}

TEST(InQueue, ShowsRunningJobsFirstThenWaitingOnesInTheirOrder) {
  std::vector<v1::Job> jobs;
  const auto add = [&](const std::string& id, v1::JobState state, int priority, int slots,
                       const std::string& queue = "night") {
    v1::Job& job = jobs.emplace_back();
    job.set_id(id);
    job.set_state(state);
    job.set_priority(priority);
    job.set_slots_have(slots);
    job.mutable_spec()->set_project("vision");
    job.mutable_spec()->set_queue(queue);
  };
  add("old", v1::JOB_STATE_QUEUED, 0, 0);
  add("ended", v1::JOB_STATE_FAILED, 9, 0);
  add("runs", v1::JOB_STATE_RUNNING, -5, 2);
  add("elsewhere", v1::JOB_STATE_QUEUED, 0, 0, "default");
  add("young", v1::JOB_STATE_QUEUED, 0, 0);
  add("urgent", v1::JOB_STATE_BACKOFF, 3, 0);
  std::vector<std::string> ids;
  for (const v1::Job& job : InQueue(jobs, "vision", "night")) ids.push_back(job.id());
  EXPECT_THAT(ids, testing::ElementsAre("runs", "urgent", "old", "young"));
}

TEST(QueueRow, SaysWhyAJobWaits) {
  v1::Job job = Running(0);
  job.set_state(v1::JOB_STATE_QUEUED);
  job.set_reason(v1::REASON_QUEUE_CLOSED);
  job.set_message("queue night is closed");
  job.set_submitted_us(1'000'000);
  job.set_slots_have(0);
  EXPECT_THAT(QueueRow(job, 61'000'000), testing::ElementsAre("01234567", "demo", "QUEUED", "QUEUE_CLOSED", "0", "0/2",
                                                              "1m00s", "queue night is closed"));
}

}  // namespace
}  // namespace vicreg::cli
