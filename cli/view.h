#pragma once

// How a job looks to people. Pure: the clock and the terminal are the caller's.

#include <optional>
#include <string>
#include <vector>

#include "cli/listing.h"
#include "vicreg/v1/cluster_service.pb.h"
#include "vicreg/v1/jobs_service.pb.h"

namespace vicreg::cli {

// First 8 characters.
std::string ShortId(const std::string& id);

// Share of the steps done, 0..1; 0 while the total is unknown.
double Done(const v1::Job& job);

// Rows of `vicreg list`.
std::vector<Column> ListColumns();
std::vector<std::string> ListRow(const v1::Job& job, std::int64_t now_us);

std::vector<Column> NodeColumns();
std::vector<std::string> NodeRow(const v1::Node& node, std::int64_t now_us);

// `vicreg top`: nodes with the jobs whose ranks they hold, the fullest first; and the ranks of one job.
std::string TopNodes(std::vector<v1::Node> nodes, const std::vector<v1::Job>& jobs, std::int64_t now_us, bool header);
std::string TopRanks(const v1::Job& job, bool header);

// What is the matter with a node, a sentence each; nothing: it is well. `build`: the coordinator's.
std::vector<std::string> Ailments(const v1::Node& node, const std::string& build, std::int64_t now_us);

// "a, b"; "none".
std::string Joined(const google::protobuf::RepeatedPtrField<std::string>& words);

// Jobs of a queue that have not ended: first those that hold slots, then those that wait, in the order in which they
// go.
std::vector<v1::Job> InQueue(std::vector<v1::Job> jobs, const std::string& project, const std::string& queue);
std::vector<std::string> QueueHeader();
std::vector<std::string> QueueRow(const v1::Job& job, std::int64_t now_us);

// All there is to know, several paragraphs.
std::string Describe(const v1::Job& job, std::int64_t now_us);

// The picture `vicreg watch` redraws on a terminal; five lines, none wider than `columns`.
std::string Panel(const v1::Job& job, int columns, bool color);

// One line: where the job stands.
std::string ProgressLine(const v1::Job& job);

// Decides which updates deserve a line where nothing can be redrawn: a new state, reason or attempt, a new accuracy,
// each further tenth of the steps.
class LineFilter {
 public:
  bool Wants(const v1::Job& job);

 private:
  std::optional<v1::Job> last_;
  int tenth_ = -1;
};

}  // namespace vicreg::cli
