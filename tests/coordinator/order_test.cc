// Goal: the order in which jobs choose is that of the rule (priority, share, age), whatever is in the indexes and
// whatever a transaction has changed. Method: random states and transactions; the rule written plainly, over all jobs
// each time, must name the same job at every turn.

#include "coordinator/core/order.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <tuple>

#include "coordinator/core/index.h"

namespace vicreg::core {
namespace {

class Rule {
 public:
  Rule(std::map<std::string, int> held, const Transaction& tx) : held_(std::move(held)), tx_(tx) {
    for (const Job* job : tx.LiveJobs()) {
      if (job->state == JobState::kQueued) pending_.push_back(job);
    }
  }
  const Job* Next() {
    const Job* first = nullptr;
    for (const Job* job : pending_) {
      if (done_.count(ClassOf(*job)) == 0 && (first == nullptr || Rank(*job) < Rank(*first))) first = job;
    }
    return first;
  }
  void Placed(const Job& job, int slots) {
    held_[job.project] += slots;
    std::erase(pending_, &job);
  }
  void Drop(const Job& job) { done_.insert(ClassOf(job)); }

 private:
  std::tuple<int, double, std::int64_t> Rank(const Job& job) {
    return {-job.priority, held_[job.project] / tx_.FindProject(job.project).weight, job.queue_seq};
  }
  std::map<std::string, int> held_;
  const Transaction& tx_;
  std::vector<const Job*> pending_;
  std::set<std::string> done_;
};

TEST(Order, IsTheRuleWhateverWasIndexedAndChanged) {
  std::size_t turns = 0;
  for (unsigned seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto below = [&](unsigned n) { return static_cast<int>(random() % n); };
    const std::string projects[] = {"a", "b", "c"};
    State state;
    for (const std::string& name : projects) state.projects[name] = {name, -1, -1, 1.0 + below(3)};
    const auto fill = [&](Job& job) {
      job.project = projects[below(3)];
      job.priority = below(3);
      job.min_world = job.max_world = 1 + below(2);
      const JobState states[] = {JobState::kQueued, JobState::kQueued, JobState::kRunning, JobState::kBackoff,
                                 JobState::kCancelled};
      job.state = states[below(5)];
    };
    for (int i = 0; i < 30; ++i) {
      Job job;
      job.id = "job " + std::to_string(i);
      job.queue_seq = state.next_queue_seq++;
      fill(job);
      Put(state, job);
    }
    const Options options;
    Transaction tx(state, options, TimePoint{}, 0);
    for (int i = 0; i < 8; ++i) fill(tx.EditJob("job " + std::to_string(below(30))));
    for (int i = 0; i < 4; ++i) {
      Job job;
      job.id = "new " + std::to_string(i);
      fill(tx.AddJob(job));
    }
    std::map<std::string, int> held;
    for (const Job* job : tx.HoldingJobs()) held[job->project] += job->world_size;
    Rule rule(held, tx);
    Order order(held, tx);
    while (const Job* want = rule.Next()) {
      const Job* got = order.Next();
      ASSERT_EQ(got, want);
      EXPECT_EQ(order.alike(), ClassOf(*want));
      ++turns;
      if (below(3) == 0) {
        rule.Drop(*want);
        order.Drop();
      } else {
        rule.Placed(*want, want->min_world);
        order.Placed(want->min_world);
      }
    }
    EXPECT_EQ(order.Next(), nullptr);
    std::map<std::string, std::size_t> queued;
    for (const Job* job : tx.LiveJobs()) queued[job->project] += job->state == JobState::kQueued;
    for (const std::string& name : projects) EXPECT_EQ(tx.QueuedCount(name), queued[name]) << name;
    tx.ApplyTo(state);
    EXPECT_EQ(BrokenIndexes(state), std::vector<std::string>{});
  }
  EXPECT_GT(turns, 1000u);
}

}  // namespace
}  // namespace vicreg::core
