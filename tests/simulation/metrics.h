#pragma once

// The metric history: its rules are the real ones (telemetry/head.h), its writer and disk simulated. A commit that
// fails stores nothing of its batch.

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/telemetry/head.h"
#include "tests/simulation/events.h"
#include "tests/simulation/random.h"

namespace vicreg::simulation {

// What is durable of one job: rows as they were written, and where each attempt began.
struct Rows {
  telemetry::Head head;
  std::vector<std::pair<int, std::int64_t>> written;  // attempt, step
  std::vector<std::int64_t> curve;                    // steps of the effective curve
  int begun = 0;                                      // newest attempt
  bool stale = false;                                 // a row of an older one was taken
};

struct MetricDisk {
  std::map<std::string, Rows> jobs;
  bool failing = false;
  int fail_next = 0;  // writes
};

// The writer of one coordinator process.
class Metrics {
 public:
  using Done = std::function<void(absl::Status)>;
  Metrics(Events& events, Random& random, MetricDisk& disk) : events_(events), random_(random), disk_(disk) {}
  ~Metrics() { *alive_ = false; }

  void Append(const std::string& job_id, int attempt, std::vector<std::int64_t> steps, Done done);
  void BeginAttempt(const std::string& job_id, int attempt, std::int64_t resume_step);
  void Barrier(Done done);

 private:
  struct Item {
    std::string job_id;
    int attempt = 0;
    std::vector<std::int64_t> steps;
    std::optional<std::int64_t> begin_at;
    bool barrier = false;
    Done done;
  };
  void Add(Item item);
  void Write();
  static absl::Status Apply(Rows& rows, const Item& item);

  Events& events_;
  Random& random_;
  MetricDisk& disk_;
  std::deque<Item> queue_, owed_;
  bool writing_ = false;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace vicreg::simulation
