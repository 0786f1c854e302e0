#pragma once

// What must hold across a whole run, over kills, reconnects and restarts: who was told what, which processes ran, what
// was trained. Independent of what the coordinator believes.

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/decide.h"
#include "coordinator/core/transaction.h"
#include "tests/simulation/events.h"
#include "worker/core/supervisor.h"

namespace vicreg::simulation {

struct World;

class Ledger {
 public:
  explicit Ledger(World& world) : world_(world) {}

  // ---- clients ----
  void OnSubmitAnswered(const std::string& request_id, const std::string& job_id, const std::string& spec);
  void OnCancelAnswered(const std::string& job_id);

  // ---- the coordinator ----
  void OnCommit(const core::State& before, const core::Transaction& tx, const core::State& after);
  void OnRecovered(const core::State& state);
  // A heartbeat of this incarnation has come; not yet that it was looked at.
  void OnHeard(const core::State& state, const std::string& node, std::int64_t incarnation);
  // A worker has read the answer to what it sent then.
  void OnAnswered(const std::string& node, TimePoint sent) { answered_[node] = std::max(answered_[node], sent); }
  void BeforeReport(const core::Transaction& tx, const std::string& node, std::int64_t incarnation,
                    const core::Report& report);
  void AfterReport(const core::Transaction& tx, const core::Report& report);

  // ---- ranks ----
  void OnSpawn(const worker::Key& key, const std::string& node, int slot);
  void OnProcessEnd(const worker::Key& key, int wait_status);
  void OnHang(const worker::Key& key) { hung_.insert(key); }
  void OnLastWords(const worker::Key& key, int code) { last_words_[key] = code; }
  void OnGangBegins(const std::string& job_id, int attempt, std::int64_t step);
  void OnStep(const std::string& job_id, int attempt, std::int64_t step);
  void OnTrained(const std::string& job_id, int attempt) { trained_.insert({job_id, attempt}); }

  // Looked at now and then while everything works: processes that nobody wants must end.
  void CheckProcesses(const core::State& state);
  // Also without a coordinator: nobody trains on for ever when none answers.
  void CheckOrphans();

  // Everything has come to rest.
  void AtTheEnd(const core::State& state);
  const std::set<std::string>& acknowledged() const { return acknowledged_jobs_; }

 private:
  // What somebody may have seen of a job.
  struct Seen {
    core::JobState state = core::JobState::kQueued;
    int attempt = 0;
    std::int64_t events = 0, checkpoint = 0;
    int charges = 0;
    TimePoint backoff_since{};
    bool retry = false;  // in BACKOFF after an attempt that failed
  };
  void See(const core::Job& job);
  void CheckPromises(const core::State& state);
  // Did that machine pass the coordinator's probe of that number?
  bool Passed(const std::string& node, std::int64_t probe) const;
  void CheckNodes(const core::State& before, const core::Transaction& tx, const core::State& after);
  void CheckPlacement(const core::Transaction& tx, const core::Event& event, const core::Job& job);
  void CheckEnd(const core::Event& event, const core::Job& job);
  void CheckLast(const core::Transaction& tx, const core::Event& event, const core::Job& job);
  void CheckCharges(const core::Transaction& tx, const core::Event& event, const core::Job& job);
  void CheckRowsOf(const core::Event& event, const core::Job& job);
  void CheckRows(const std::string& job_id, std::int64_t total);

  World& world_;
  std::map<std::string, std::pair<std::string, std::string>> acknowledged_;  // request -> job, spec
  std::set<std::string> acknowledged_jobs_;
  std::set<std::string> cancelled_;            // before they had ended
  std::map<std::string, std::string> job_of_;  // request -> job
  std::map<worker::Key, TimePoint> outdated_;  // processes of attempts that are over, since when
  std::map<std::string, Seen> seen_;
  std::map<std::string, TimePoint> submitted_;                   // when that was first committed
  std::set<std::string> started_;                                // of those that may start once
  std::map<std::string, std::deque<TimePoint>> heard_;           // the newest few, newest last
  std::map<std::string, TimePoint> answered_;                    // when what was answered last was sent
  std::map<std::string, TimePoint> lost_;                        // nodes that are LOST, since when
  std::map<worker::Key, std::pair<std::string, int>> spawned_;   // where
  std::map<worker::Key, int> ended_;                             // wait status
  std::map<worker::Key, int> last_words_;                        // exit code
  std::map<std::pair<std::string, int>, std::int64_t> steps_;    // job, attempt -> newest step
  std::map<std::pair<std::string, int>, std::int64_t> resumed_;  // as committed with the attempt
  std::map<std::pair<std::string, int>, TimePoint> may_start_;   // job, attempt -> when its delay is over
  std::set<std::pair<std::string, int>> trained_;
  std::set<worker::Key> hung_;
  std::int64_t term_ = 0;          // of the newest coordinator
  std::int64_t acked_before_ = 0;  // of its job, before a report
  std::size_t events_before_ = 0;  // of the transaction, before a report
  bool stale_ = false;
};

}  // namespace vicreg::simulation
