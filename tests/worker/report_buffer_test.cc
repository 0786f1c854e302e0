// Goal: what a rank said reaches the coordinator once, in order, over any number of reconnects, and waiting reports
// take bounded room. Method: the buffer alone; it is pure data.

#include "worker/core/report_buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vicreg::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::RankReport Row(std::int64_t step) {
  v1::RankReport report;
  report.mutable_rows()->add_rows()->set_step(step);
  return report;
}

v1::RankReport Exit() {
  v1::RankReport report;
  report.mutable_exited()->set_code(1);
  return report;
}

std::vector<std::int64_t> Sequences(const ReportBuffer& buffer) {
  std::vector<std::int64_t> sequences;
  buffer.ForEach([&](const v1::RankReport& report) { sequences.push_back(report.sequence()); });
  return sequences;
}

TEST(ReportBuffer, OfAnAdoptedRankGoesOnWhereTheWorkerBeforeStopped) {
  ReportBuffer buffer;
  buffer.Add(Row(8), 8);
  buffer.Add(Row(9), 9);
  buffer.StartAfter(20);
  EXPECT_EQ(buffer.Add(Exit(), 0).sequence(), 23);
  EXPECT_THAT(Sequences(buffer), ElementsAre(21, 22, 23));
  EXPECT_EQ(buffer.Ack(22), 9) << "of the rank's own numbers";
  EXPECT_THAT(Sequences(buffer), ElementsAre(23));
}

TEST(ReportBuffer, NumbersReportsOfRankAndSupervisorInOneRow) {
  ReportBuffer buffer;
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.Add(Exit(), 0).sequence(), 1);
  EXPECT_EQ(buffer.Add(Row(1), 1).sequence(), 2);
  EXPECT_EQ(buffer.Add(Row(2), 2).sequence(), 3);
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2, 3));
  EXPECT_EQ(buffer.size(), 3u);
}

TEST(ReportBuffer, ForgetsWhatIsCommittedAndTellsTheRanksOwnNumber) {
  ReportBuffer buffer;
  buffer.Add(Exit(), 0);
  for (int i = 1; i <= 4; ++i) buffer.Add(Row(i), 10 + i);
  EXPECT_EQ(buffer.Ack(1), 0) << "the supervisor's report is not the rank's";
  EXPECT_EQ(buffer.committed_rank(), 0);
  EXPECT_EQ(buffer.Ack(3), 12);
  EXPECT_THAT(Sequences(buffer), ElementsAre(4, 5));
  EXPECT_EQ(buffer.committed_rank(), 12);
}

TEST(ReportBuffer, LateAndRepeatedAcknowledgementsChangeNothing) {
  ReportBuffer buffer;
  for (int i = 1; i <= 3; ++i) buffer.Add(Row(i), i);
  EXPECT_EQ(buffer.Ack(2), 2);
  EXPECT_EQ(buffer.Ack(2), 0);
  EXPECT_EQ(buffer.Ack(1), 0);
  EXPECT_EQ(buffer.committed_rank(), 2);
  EXPECT_THAT(Sequences(buffer), ElementsAre(3));
}

TEST(ReportBuffer, NumbersGoOnAfterEverythingWasCommitted) {
  ReportBuffer buffer;
  buffer.Add(Row(1), 1);
  buffer.Ack(1);
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.Add(Row(2), 2).sequence(), 2) << "a number that is used again would be taken for a repeat";
}

TEST(ReportBuffer, KnowsWhatARankRepeatsAlsoAfterItWasCommitted) {
  ReportBuffer buffer;
  EXPECT_FALSE(buffer.IsRepeat(1));
  buffer.Add(Row(1), 1);
  buffer.Add(Row(2), 2);
  buffer.Ack(2);
  EXPECT_TRUE(buffer.IsRepeat(1));
  EXPECT_TRUE(buffer.IsRepeat(2));
  EXPECT_FALSE(buffer.IsRepeat(3));
  buffer.Add(Exit(), 0);
  EXPECT_TRUE(buffer.IsRepeat(2)) << "the supervisor's reports do not reset it";
}

TEST(ReportBuffer, KeepsTheOrderOverReconnectsWithNewReportsBehind) {
  ReportBuffer buffer;
  for (int i = 1; i <= 3; ++i) buffer.Add(Row(i), i);
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2, 3));
  buffer.Ack(1);
  buffer.Add(Row(4), 4);
  EXPECT_THAT(Sequences(buffer), ElementsAre(2, 3, 4));
  buffer.Ack(4);
  EXPECT_THAT(Sequences(buffer), IsEmpty());
}

TEST(ReportBuffer, IsFullAtTheMostReportsAndHasRoomAfterOneIsCommitted) {
  ReportBuffer buffer;
  for (std::size_t i = 1; i <= ReportBuffer::kMostReports; ++i) {
    EXPECT_FALSE(buffer.full()) << i;
    buffer.Add(Row(1), static_cast<std::int64_t>(i));
  }
  EXPECT_TRUE(buffer.full());
  EXPECT_EQ(buffer.Add(Exit(), 0).sequence(), ReportBuffer::kMostReports + 1)
      << "the supervisor's report is always taken";
  buffer.Ack(2);
  EXPECT_FALSE(buffer.full());
}

TEST(ReportBuffer, IsFullAtTheMostBytesAndCountsThemBack) {
  ReportBuffer buffer;
  v1::RankReport large;
  large.mutable_exported()->set_path(std::string(ReportBuffer::kMostBytes / 4, 'p'));
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) {
      EXPECT_FALSE(buffer.full()) << "round " << round << ", report " << i;
      buffer.Add(large, 4 * round + i + 1);
    }
    EXPECT_TRUE(buffer.full());
    buffer.Ack(4 * (round + 1));
  }
}

}  // namespace
}  // namespace vicreg::worker
