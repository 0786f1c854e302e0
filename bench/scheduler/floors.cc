#include <SQLiteCpp/SQLiteCpp.h>

#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "bench/scheduler/modes.h"

namespace vicreg::bench {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

json Quantiles(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double q) {
    return samples[static_cast<std::size_t>(q * static_cast<double>(samples.size() - 1))];
  };
  return {{"samples", samples.size()}, {"p50", at(0.5)}, {"p99", at(0.99)}, {"worst", samples.back()}};
}

json Commits(const std::string& folder) {
  // As the store is opened: what an answered commit wrote survives a power cut.
  SQLite::Database database(folder + "/floor.db", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
  database.exec("PRAGMA journal_mode=WAL");
  database.exec("PRAGMA synchronous=FULL");
  database.exec("CREATE TABLE rows(id INTEGER PRIMARY KEY, record TEXT NOT NULL)");
  SQLite::Statement insert(database, "INSERT INTO rows(record) VALUES(?)");
  const std::string record(1000, 'r');
  const auto commit = [&](int rows) {
    const auto begin = Clock::now();
    SQLite::Transaction change(database);
    for (int i = 0; i < rows; ++i) {
      insert.bind(1, record);
      insert.exec();
      insert.reset();
    }
    change.commit();
    return Since(begin);
  };
  std::vector<double> alone;
  for (int i = 0; i < 500; ++i) alone.push_back(commit(1));
  double grouped = 0;
  constexpr int kGroups = 200, kRows = 32;
  for (int i = 0; i < kGroups; ++i) grouped += commit(kRows);
  json answer = Quantiles(alone);
  answer["grouped_per_second"] = kGroups * kRows / grouped;
  return answer;
}

json Hashing() {
  constexpr int kKeys = 100'000, kRounds = 20;
  const auto begin = Clock::now();
  std::unordered_map<std::string, std::int64_t> counts;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kKeys; ++i) counts["key-" + std::to_string((i * 7919) % kKeys)] += round;
  }
  std::int64_t sum = 0;
  for (const auto& [key, count] : counts) sum += count;
  return {{"per_second", kKeys * kRounds / Since(begin)}, {"sum", sum}};
}

}  // namespace vicreg::bench
