#include "cli/client.h"

#include <algorithm>
#include <iostream>
#include <thread>

#include "common/ids.h"

namespace vicreg::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kCallTimeout{20'000};
constexpr milliseconds kStreamPatience{60'000};

}  // namespace

Client::Client(std::string address) : address_(std::move(address)) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetMaxReceiveMessageSize(64 << 20);
  channel_ = grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
  jobs_ = v1::JobsService::NewStub(channel_);
  cluster_ = v1::ClusterService::NewStub(channel_);
}

void Client::Pause(milliseconds pause) {
  const auto until = std::chrono::system_clock::now() + pause;
  // Not a plain sleep: between calls gRPC's own poller connects only every 5 s.
  if (channel_->WaitForConnected(until)) std::this_thread::sleep_for(milliseconds(50));
}

absl::Status Client::Explained(const grpc::Status& status) const {
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return rpc::FromGrpc(status);
  return absl::UnavailableError(
      "no coordinator answers at " + address_ + " (" + status.error_message() +
      "): start a development cluster with `vicreg up`, or name another with --coordinator or VICREG_COORDINATOR");
}

absl::Status Client::Retry(const std::function<grpc::Status(grpc::ClientContext&)>& call) {
  const auto give_up = steady_clock::now() + patience_;
  milliseconds pause{50};
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
    const grpc::Status status = call(context);
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || steady_clock::now() + pause > give_up) {
      if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED)
        return absl::UnavailableError("the coordinator at " + address_ + " did not answer within 20 s");
      return Explained(status);
    }
    Pause(pause);
    pause = std::min(pause * 2, milliseconds(500));
  }
}

absl::Status Client::Reopen(Interrupts& interrupts, std::optional<SteadyTime> deadline,
                            const std::function<grpc::Status(grpc::ClientContext&, bool& heard)>& stream) {
  auto last_heard = steady_clock::now();
  bool told = false;
  while (true) {
    grpc::ClientContext context;
    if (deadline)
      context.set_deadline(std::chrono::system_clock::now() +
                           std::chrono::duration_cast<milliseconds>(*deadline - steady_clock::now()));
    interrupts.Set([&] { context.TryCancel(); });
    bool heard = false;
    const grpc::Status status = stream(context, heard);
    interrupts.Set({});
    if (heard) {
      last_heard = steady_clock::now();
      told = false;
    }
    if (interrupts.seen()) return absl::CancelledError("detached");
    const bool again = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                       status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
    if (!again || steady_clock::now() - last_heard > kStreamPatience) return Explained(status);
    if (!told) std::cerr << "vicreg: the coordinator at " << address_ << " is away; waiting for it (the job goes on)\n";
    told = true;
    Pause(milliseconds(200));
  }
}

absl::StatusOr<std::vector<v1::Job>> Client::List(const std::vector<v1::JobState>& states) {
  v1::ListJobsRequest request;
  for (const v1::JobState state : states) request.add_states(state);
  std::vector<v1::Job> jobs;
  do {
    ASSIGN_OR_RETURN(v1::ListJobsResponse page, Call(*jobs_, &v1::JobsService::Stub::ListJobs, request));
    std::move(page.mutable_jobs()->begin(), page.mutable_jobs()->end(), std::back_inserter(jobs));
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return jobs;
}

absl::StatusOr<std::string> Client::FullId(const std::string& prefix) {
  if (IsUuid(prefix)) return prefix;
  ASSIGN_OR_RETURN(const std::vector<v1::Job> jobs, List());
  std::vector<std::string> found;
  for (const v1::Job& job : jobs) {
    if (!prefix.empty() && job.id().compare(0, prefix.size(), prefix) == 0) found.push_back(job.id());
  }
  if (found.size() == 1) return found[0];
  if (found.empty())
    return absl::NotFoundError("no job whose id begins with \"" + prefix + "\": `vicreg list` shows all");
  std::string list;
  for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 5); ++i) list += "\n  " + found[i];
  return absl::InvalidArgumentError("\"" + prefix + "\" begins the ids of " + std::to_string(found.size()) +
                                    " jobs: give more characters" + list);
}

absl::StatusOr<v1::Job> Client::Get(const std::string& id) {
  ASSIGN_OR_RETURN(const std::string full, FullId(id));
  v1::GetJobRequest request;
  request.set_id(full);
  ASSIGN_OR_RETURN(v1::GetJobResponse response, Call(*jobs_, &v1::JobsService::Stub::GetJob, request));
  return response.job();
}

}  // namespace vicreg::cli
