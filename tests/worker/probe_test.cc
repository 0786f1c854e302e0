// Goal: a probe finds what keeps ranks from running here, and nothing else. Method: real folders and a rank program
// that answers as the test wants.

#include "worker/agent/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "common/files.h"

namespace vicreg::agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ProbeTest : public testing::Test {
 protected:
  ProbeTest() {
    std::string name = "/tmp/vicreg-probe-XXXXXX";
    folder_ = mkdtemp(name.data());
    for (const char* part : {"/w/logs", "/artifacts", "/images"}) EXPECT_TRUE(MakeFolders(folder_ + part).ok());
    EXPECT_TRUE(WriteFileAtomically(folder_ + "/images/one", "x").ok());
    options_.folder = folder_ + "/w";
    options_.artifact_root = folder_ + "/artifacts";
    options_.data_roots = {{"images", folder_ + "/images"}};
    options_.rank_program = folder_ + "/rank";
    options_.cpu_slots = 1;
    Program("exit 0");
  }
  ~ProbeTest() override { std::filesystem::remove_all(folder_); }

  void Program(const std::string& script) {
    EXPECT_TRUE(WriteFileAtomically(options_.rank_program, "#!/bin/sh\n" + script + "\n", 0700).ok());
  }
  static std::vector<std::string> Problems(const v1::Probed& probed) {
    return {probed.problems().begin(), probed.problems().end()};
  }

  std::string folder_;
  AgentOptions options_;
};

TEST_F(ProbeTest, WellNodePassesAndIsLeftAsItWas) {
  const v1::Probed probed = Probe(options_);
  EXPECT_THAT(Problems(probed), IsEmpty());
  EXPECT_THAT(probed.facts(), Contains(HasSubstr("the folder of checkpoints: 1 MiB written")));
  EXPECT_THAT(probed.facts(), Contains("data root images: readable"));
  EXPECT_THAT(probed.facts(), Contains("ranks: compute on a cpu"));
  EXPECT_TRUE(std::filesystem::is_empty(options_.artifact_root));
}

TEST_F(ProbeTest, EveryProblemIsNamed) {
  std::filesystem::remove_all(options_.artifact_root);
  std::filesystem::remove_all(folder_ + "/images/one");
  Program("echo 'no such library' >&2; exit 1");
  EXPECT_THAT(Problems(Probe(options_)), ElementsAre(HasSubstr("the folder of checkpoints: "),
                                                     "data root images: is empty", "ranks on a cpu: no such library"));
}

// The folder of checkpoints is shared by all nodes, and a cluster that starts probes them all at once.
TEST_F(ProbeTest, ProbesOfManyWorkersDoNotDisturbEachOther) {
  std::vector<v1::Probed> probed(8);
  std::vector<std::thread> workers;
  for (std::size_t i = 0; i < probed.size(); ++i) {
    workers.emplace_back([&, i] {
      AgentOptions mine = options_;
      mine.folder = folder_ + "/w" + std::to_string(i);
      EXPECT_TRUE(MakeFolders(mine.folder + "/logs").ok());
      for (int k = 0; k < 5; ++k) probed[i].MergeFrom(Probe(mine));
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (const v1::Probed& one : probed) EXPECT_THAT(Problems(one), IsEmpty());
}

}  // namespace
}  // namespace vicreg::agent
