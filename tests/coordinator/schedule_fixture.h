#pragma once

// A cluster in which jobs are submitted as tests want them, and run when they must.

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "coordinator/core/scheduler.h"
#include "tests/coordinator/core_cluster.h"

namespace vicreg::core {

using Fill = std::function<void(Job&)>;

class Scheduler : public ::testing::Test {
 protected:
  void Add(const std::string& name, int slots, std::vector<std::string> labels = {}) {
    Node node = CoreCluster::Offered(name, slots);
    node.labels = std::move(labels);
    EXPECT_TRUE(c.AddNode(std::move(node)).ok());
  }
  void Wants(
      const std::string& id, int world, const Fill& fill = [](Job&) {}) {
    Job job = CoreCluster::Wanted(world);
    job.name = id;
    fill(job);
    EXPECT_TRUE(c.Decide([&](Transaction& tx) { return Submit(tx, job, id, "request of " + id, "sha"); }).ok());
  }
  void Runs(
      const std::string& id, int world, const Fill& fill = [](Job&) {}) {
    Wants(id, world, fill);
    c.Plan();
    ASSERT_EQ(c.job(id).state, JobState::kReserved) << c.why(id).message;
    c.ConfirmAll(id);
    c.Step(id);
    ASSERT_EQ(c.job(id).state, JobState::kRunning);
  }
  std::vector<std::string> NodesOfJob(const std::string& id) {
    std::set<std::string> nodes;
    for (const Rank& rank : c.job(id).ranks) nodes.insert(rank.node);
    return {nodes.begin(), nodes.end()};
  }
  absl::Status Do(absl::Status (*wish)(Transaction&, const Wish&), const std::string& id) {
    return c.Decide([&](Transaction& tx) { return wish(tx, {id, "local:test", 30}); });
  }
  static Fill Priority(int priority) {
    return [=](Job& job) { job.priority = priority; };
  }
  JobState state(const std::string& id) const { return c.job(id).state; }

  CoreCluster c;
};

}  // namespace vicreg::core
