// Goal: nothing is placed on a node before it has shown that ranks can run there, and a node that cannot show it is
// neither forgotten nor lets too much of the cluster be shut. Method: a core whose nodes answer when the test says so;
// what a registration makes of a node is one row for each of its states.

#include <gmock/gmock.h>

#include "coordinator/store/record.h"
#include "tests/coordinator/core_cluster.h"

namespace vicreg::core {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Probation : ::testing::Test {
  CoreCluster c;

  const Node& node(const std::string& name) { return c.state.nodes.at(name); }
  void Answer(const ProbeAnswer& answer) {
    c.Decide([&](Transaction& tx) { return OnProbed(tx, answer), 0; });
  }
  // A cluster of that many ready nodes, "n0" and on.
  void Nodes(int count) {
    for (int i = 0; i < count; ++i) EXPECT_TRUE(c.AddNode("n" + std::to_string(i), 1).ok());
  }
  int Quarantined() {
    return static_cast<int>(std::count_if(c.state.nodes.begin(), c.state.nodes.end(),
                                          [](const auto& n) { return n.second.state == NodeState::kQuarantined; }));
  }
};

TEST_F(Probation, NewNodeIsProbedBeforeAnythingIsPlacedThere) {
  c.SubmitJob("job", 1);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  EXPECT_EQ(c.node("a"), NodeState::kProbing);
  EXPECT_THAT(c.SentTo<SendProbe>(), ElementsAre("a"));
  c.Plan();
  EXPECT_EQ(c.job("job").state, JobState::kQueued);
  EXPECT_EQ(c.why("job").reason, Reason::kNoNodes);
  EXPECT_THAT(c.why("job").message, HasSubstr("no node is ready; 1 node is being probed: next when one passes"));
  c.Probed("a");
  EXPECT_EQ(c.node("a"), NodeState::kReady);
  EXPECT_EQ(node("a").message, "passed a probe by coordinator");
  c.Plan();
  EXPECT_EQ(c.job("job").state, JobState::kReserved);
}

TEST_F(Probation, JobThatTheReadyNodesCannotHoldHearsOfThoseThatAreProbed) {
  Nodes(1);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("new", 4)).ok());
  c.SubmitJob("wide", 4);
  c.Plan();
  EXPECT_EQ(c.why("wide").reason, Reason::kNotEnoughSlots);
  EXPECT_THAT(c.why("wide").message, HasSubstr("; 1 node is being probed"));
}

TEST_F(Probation, RegistrationProbesWhatIsNotKnownToWork) {
  using enum NodeState;
  const struct {
    NodeState before;
    bool rebooted, same_process;
    NodeState after;
  } rows[] = {
      {kReady, false, true, kReady},
      {kReady, false, false, kReady},
      {kSuspect, false, true, kReady},
      {kSuspect, false, false, kReady},
      {kJoining, false, true, kReady},
      {kJoining, false, false, kReady},
      {kJoining, true, false, kProbing},
      {kSuspect, true, false, kProbing},
      {kReady, true, false, kProbing},
      {kLost, false, true, kProbing},
      {kLost, false, false, kProbing},
      {kLost, true, false, kProbing},
      {kProbing, false, true, kProbing},
      {kProbing, false, false, kProbing},
      {kProbing, true, false, kProbing},
      {kQuarantined, false, true, kQuarantined},
      {kQuarantined, true, false, kQuarantined},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(static_cast<int>(row.before) * 100 + row.rebooted * 10 + row.same_process);
    CoreCluster cluster;
    ASSERT_TRUE(cluster.AddNode("a", 1).ok());
    Node& stored = cluster.state.nodes.at("a");
    stored.state = row.before;
    stored.message = "as it was";
    cluster.clock.Advance(seconds(6));
    Node next = CoreCluster::Offered("a", 1);
    if (row.rebooted) next.boot_id = "another boot";
    if (row.same_process) next.incarnation = stored.incarnation;
    const std::int64_t probes = stored.probe;
    ASSERT_TRUE(cluster.RegisterNode(next).ok());
    EXPECT_EQ(cluster.node("a"), row.after);
    EXPECT_EQ(cluster.SentTo<SendProbe>().size(), row.after == kProbing ? 1U : 0U);
    EXPECT_EQ(cluster.state.nodes.at("a").probe, probes + (row.after == kProbing ? 1 : 0));
    if (row.after == kQuarantined) {
      EXPECT_EQ(cluster.state.nodes.at("a").message, "as it was") << "why it is shut";
    }
  }
}

TEST_F(Probation, OnlyTheAnswerToTheNewestProbeCounts) {
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  ASSERT_TRUE(c.Reconnect("a").ok());  // the first was lost with the connection, or not
  ASSERT_EQ(node("a").probe, 2);
  for (const ProbeAnswer& stale :
       {ProbeAnswer{"a", 1, 1, ""}, ProbeAnswer{"a", 1, 3, ""}, ProbeAnswer{"a", 2, 2, ""}, ProbeAnswer{"a", 0, 2, ""},
        ProbeAnswer{"b", 1, 2, ""}, ProbeAnswer{"a", 2, 0, "", "local:operator"}}) {
    Answer(stale);
    EXPECT_EQ(c.fenced, 1);
    EXPECT_EQ(c.node("a"), NodeState::kProbing);
  }
  c.Probed("a");
  EXPECT_EQ(c.node("a"), NodeState::kReady);
  // Said again, or late: it is READY now, and nobody waits for an answer.
  Answer({"a", 1, 2, "no space"});
  EXPECT_EQ(c.fenced, 1);
  EXPECT_EQ(c.node("a"), NodeState::kReady);
  EXPECT_THAT(node("a").strikes, IsEmpty());
}

TEST_F(Probation, ProbeThatIsNotAnsweredInTwentySecondsIsAskedAgain) {
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  c.PassWithHeartbeats(seconds(19));
  EXPECT_EQ(node("a").probe, 1);
  c.PassWithHeartbeats(seconds(1));
  EXPECT_EQ(node("a").probe, 2);
  EXPECT_THAT(c.SentTo<SendProbe>(), ElementsAre("a"));
  EXPECT_EQ(c.node("a"), NodeState::kProbing);
  EXPECT_THAT(node("a").message, HasSubstr("has not answered a probe within 20 s: asked again"));
  Answer({"a", 1, 1, ""});
  EXPECT_EQ(c.node("a"), NodeState::kProbing) << "an answer to the first";
  c.PassWithHeartbeats(seconds(20));
  EXPECT_EQ(node("a").probe, 3);
  c.Probed("a");
  EXPECT_EQ(c.node("a"), NodeState::kReady);
}

TEST_F(Probation, SilentNodeIsLostWhileItIsProbed) {
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  c.Pass(seconds(6));
  EXPECT_EQ(c.node("a"), NodeState::kProbing);
  c.Pass(seconds(14));
  EXPECT_EQ(c.node("a"), NodeState::kLost);
}

TEST_F(Probation, FailedProbeQuarantinesWithTheProblem) {
  Nodes(4);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("bad", 1)).ok());
  c.Probed("bad", "ranks on a cpu: no such library");
  EXPECT_EQ(c.node("bad"), NodeState::kQuarantined);
  EXPECT_THAT(node("bad").message, HasSubstr("a probe by coordinator failed: ranks on a cpu: no such library"));
  EXPECT_THAT(node("bad").message, HasSubstr("`vicreg node probe bad`"));
  c.PassWithHeartbeats(seconds(120));
  EXPECT_THAT(c.SentTo<SendProbe>(), IsEmpty()) << "left by a probe or an operator";
  EXPECT_EQ(node("bad").probe, 1);
  Answer({"bad", 1, 0, "", "local:operator"});
  EXPECT_EQ(c.node("bad"), NodeState::kReady);
}

TEST_F(Probation, AboveTheCapAFailedNodeStaysProbingSaysWhyAndIsAskedAgain) {
  Nodes(3);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("bad", 9)).ok());
  c.SubmitJob("wide", 9);
  c.Probed("bad", "no space");
  EXPECT_EQ(c.node("bad"), NodeState::kProbing);
  EXPECT_EQ(Quarantined(), 0);
  EXPECT_THAT(node("bad").message, HasSubstr("failed: no space; nothing is placed there"));
  EXPECT_THAT(node("bad").message, HasSubstr("more than a fifth"));
  c.Plan();
  EXPECT_THAT(c.why("wide").message, HasSubstr("1 node is being probed, of which bad failed: no space"));
  c.PassWithHeartbeats(seconds(59));
  EXPECT_EQ(node("bad").probe, 1);
  c.PassWithHeartbeats(seconds(1));
  EXPECT_EQ(node("bad").probe, 2);
  EXPECT_THAT(node("bad").message, HasSubstr("no space")) << "until it is known to be over";
  c.Probed("bad");
  EXPECT_EQ(c.node("bad"), NodeState::kReady);
  EXPECT_EQ(node("bad").problem, "");
}

TEST_F(Probation, NeverAreMoreThanAFifthQuarantined) {
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("n" + std::to_string(i), 1)).ok());
  for (int i = 0; i < 10; ++i) c.Probed("n" + std::to_string(i), "bad rank program");
  EXPECT_EQ(Quarantined(), 2);
}

TEST_F(Probation, OperatorOpensWhatFailedAndNotWhatWasNotAskedYet) {
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  const auto open = [&] {
    EXPECT_TRUE(c.Decide([](Transaction& tx) { return SetNodeAdmin(tx, "a", AdminState::kOpen, 1, "op"); }).ok());
  };
  open();
  EXPECT_EQ(c.node("a"), NodeState::kProbing);
  c.Probed("a", "no space");
  ASSERT_EQ(c.node("a"), NodeState::kProbing);
  open();
  EXPECT_EQ(c.node("a"), NodeState::kReady);
}

TEST_F(Probation, OperatorMayOpenANodeInTheCommitInWhichItRegistersAfterAReboot) {
  Nodes(4);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  c.Probed("a", "no space");
  ASSERT_EQ(c.node("a"), NodeState::kQuarantined);
  c.clock.Advance(seconds(6));
  Node rebooted = CoreCluster::Offered("a", 1);
  rebooted.boot_id = "another boot";
  const auto broken = [&](bool opened) {
    State state = c.state;
    Transaction tx(state, c.options, c.clock.SteadyNow(), 1);
    EXPECT_TRUE(Register(tx, {rebooted, {}}).ok());
    if (opened) {
      EXPECT_TRUE(SetNodeAdmin(tx, "a", AdminState::kOpen, 1, "op").ok());
    } else {
      tx.EditNode("a").state = NodeState::kReady;
    }
    const State before = PartBefore(state, tx);
    tx.ApplyTo(state);
    return BrokenBy(before, tx, state);
  };
  EXPECT_THAT(broken(true), IsEmpty());
  EXPECT_THAT(broken(false), ElementsAre(HasSubstr("nobody has probed it")));
}

TEST_F(Probation, ProbeOfAnOperatorCountsToo) {
  Nodes(4);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  Answer({"a", 1, 0, "", "local:operator"});
  EXPECT_EQ(c.node("a"), NodeState::kReady);
  EXPECT_EQ(node("a").message, "passed a probe by local:operator");
  Answer({"a", 1, 0, "no space", "local:operator"});
  EXPECT_EQ(c.node("a"), NodeState::kReady) << "one strike";
  EXPECT_EQ(node("a").strikes.size(), 1U);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("b", 1)).ok());
  Answer({"b", 1, 0, "no space", "local:operator"});
  EXPECT_EQ(c.node("b"), NodeState::kQuarantined);
}

TEST_F(Probation, RestartedCoordinatorAsksWhoHadNotPassed) {
  Nodes(1);
  ASSERT_TRUE(c.RegisterNode(CoreCluster::Offered("a", 1)).ok());
  for (const auto& [name, was] : std::map(c.state.nodes))
    store::Restore(c.state, store::NodeFromRecord(store::NodeRecord(was)));
  EXPECT_EQ(c.node("n0"), NodeState::kJoining);
  EXPECT_EQ(c.node("a"), NodeState::kProbing);
  c.since_start = seconds(1);
  c.Pass(seconds(30));
  EXPECT_EQ(node("a").probe, 1) << "its worker is not there";
  ASSERT_TRUE(c.Reconnect("a").ok());
  EXPECT_THAT(c.SentTo<SendProbe>(), ElementsAre("a"));
  EXPECT_EQ(node("a").probe, 2) << "what is said to the one before does not count";
  ASSERT_TRUE(c.Reconnect("n0").ok());
  EXPECT_EQ(c.node("n0"), NodeState::kReady);
}

}  // namespace
}  // namespace vicreg::core
