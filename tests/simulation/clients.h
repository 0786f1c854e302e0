#pragma once

// Users and operators: each wish has a request id and is sent again, with the same id, until it is answered.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/core/decide.h"
#include "tests/simulation/plan.h"
#include "tests/simulation/random.h"

namespace vicreg::simulation {

struct World;

class Clients {
 public:
  explicit Clients(World& world) : world_(world) {}

  void Do(const Step& step, Random& draw);
  // Whoever held, paused, cordoned or limited something lets it go on.
  void LetGo();
  bool idle() const { return open_ == 0; }

 private:
  using Decide = std::function<absl::Status(core::Transaction&)>;
  struct Call {
    std::string what;
    Decide decide;
    std::function<void()> answered = [] {};  // with OK
  };
  void Submit(Random& draw);
  void Resubmit(Random& draw);
  void Wish(What what, Random& draw);
  void Operate(What what, Random& draw);
  void Ask(Call call);
  void Try(const std::shared_ptr<Call>& call);
  std::string AnyJob(Random& draw) const;

  World& world_;
  struct Submitted {
    core::Job job;
    std::string request_id;
  };
  std::vector<Submitted> submitted_;
  std::vector<std::string> known_;  // ids of jobs that were answered
  int open_ = 0, requests_ = 0, ids_ = 0;
};

}  // namespace vicreg::simulation
