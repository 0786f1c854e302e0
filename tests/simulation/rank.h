#pragma once

// A rank's process, and gangs of them: they attach to their worker, meet, step together, save, and leave, as
// worker/rank does; what they compute is a count of steps.

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "tests/simulation/events.h"
#include "vicreg/v1/rank_service.pb.h"
#include "worker/core/supervisor.h"

namespace vicreg::simulation {

struct World;
class Machine;
class Gang;

class RankProcess {
 public:
  RankProcess(World& world, Machine& machine, worker::Key key, int pid, int slot, std::string secret);
  ~RankProcess();
  void Begin();

  // From its worker.
  void OnResponse(const v1::AttachResponse& message);
  void ReadOn() {
    paused = false;
    Flush();
  }
  void OnWorkerGone();
  void OnSignal(int number);

  void Say(v1::RankSays says);
  // Everything said is committed, then it leaves; `good`: it waits long for that.
  void Leave(int code, const std::string& message, bool good, std::int64_t nonfinite_step = 0);
  void Die(int wait_status);
  // Its training stands still; `silent`: its other threads too.
  void Hang(bool silent);

  bool alive() const { return !ended_; }
  bool hung() const { return hung_; }
  bool leaving() const { return leaving_; }
  bool stop_asked() const { return stop_asked_; }
  const worker::Key& key() const { return key_; }
  int pid() const { return pid_; }
  int slot() const { return slot_; }
  Machine& machine() { return machine_; }
  std::int64_t resume_step() const { return assignment_.has_resume() ? assignment_.resume().step() : 0; }
  const v1::Assignment& assignment() const { return assignment_; }

  bool paused = false;
  bool ignores_stop = false;
  bool hangs_leaving = false;  // it says how it ends, and does not
  TimePoint unkillable_until{};

 private:
  void After(std::chrono::nanoseconds delay, void (RankProcess::*what)());
  void Attach();
  void Meet();
  void Flush();
  void PollLeave();
  void LeaveIfCommitted();
  void SetUp();
  void TellProgress();

  World& world_;
  Machine& machine_;
  const worker::Key key_;
  const int pid_, slot_;
  const std::string secret_;
  v1::Assignment assignment_;
  bool attached_ = false, assigned_ = false, stop_asked_ = false, leaving_ = false, leaving_good_ = false;
  bool nobody_confirms_ = false;
  bool ended_ = false, hung_ = false, silent_ = false;
  int code_ = 0;
  std::string last_words_;
  std::int64_t nonfinite_step_ = 0;
  TimePoint leave_by_{}, meet_by_{}, alone_since_{};
  std::int64_t next_ = 1;    // of what it says
  std::int64_t unsent_ = 1;  // first not sent on this connection
  std::deque<v1::RankSays> unacked_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// The ranks of one attempt.
class Gang {
 public:
  Gang(World& world, std::string job_id, int attempt) : world_(world), job_id_(std::move(job_id)), attempt_(attempt) {}

  // A rank came to the rendezvous under this coordinator; the last of all lets them step.
  void Meet(RankProcess& rank, std::uint64_t coordinator);
  void Forget(const RankProcess& rank);
  std::int64_t step() const { return step_; }
  bool stepping() const { return stepping_; }
  bool Stuck() const;
  TimePoint cut_until{};      // ranks do not hear each other
  bool numeric_next = false;  // the next loss is not finite

 private:
  void Step();
  void StepLater();
  void Save(RankProcess& first);

  World& world_;
  const std::string job_id_;
  const int attempt_;
  std::map<int, std::pair<RankProcess*, std::uint64_t>> met_;  // whose process, under which coordinator
  bool stepping_ = false;
  int world_size_ = 0;
  std::int64_t step_ = 0, saved_ = 0, first_ = 0;
  TimePoint stuck_since_{};
};

}  // namespace vicreg::simulation
