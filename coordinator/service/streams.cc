// The server streams of JobsService.

#include <charconv>
#include <deque>
#include <filesystem>
#include <limits>
#include <tuple>

#include "common/files.h"
#include "common/recipe/recipe.h"
#include "coordinator/service/jobs_service.h"
#include "coordinator/service/wire.h"

namespace vicreg::service {
namespace {

constexpr int kPage = 256;
constexpr std::size_t kChunk = 64UL * 1024;

// A stream that was refused before it began.
template <typename Response>
class Refused : public Stream<Response> {
 public:
  explicit Refused(absl::Status why) : why_(std::move(why)) {}

 protected:
  typename Stream<Response>::Next Produce(Response&, absl::Status& status) override {
    status = why_;
    return Stream<Response>::Next::kEnd;
  }

 private:
  const absl::Status why_;
};

template <typename Response>
Stream<Response>* Refuse(const absl::Status& why, Fanout& fanout) {
  return Stream<Response>::Begin(std::make_shared<Refused<Response>>(why), fanout);
}

bool Ended(Coordinator& coordinator, const std::string& id) {
  const auto job = coordinator.FindJob(id);
  return !job || core::IsTerminal(job->state);
}

class Events : public Stream<v1::WatchEventsResponse> {
 public:
  Events(Coordinator& coordinator, const v1::WatchEventsRequest& request)
      : coordinator_(coordinator), request_(request), after_(request.after_seq()) {}

 protected:
  Next Produce(v1::WatchEventsResponse& response, absl::Status& status) override {
    if (page_.empty()) {
      const bool ended = !request_.follow() || (!request_.id().empty() && Ended(coordinator_, request_.id()));
      auto events = coordinator_.store().ReadEvents(request_.id(), after_, kPage);
      if (!events.ok()) {
        status = events.status();
        return Next::kEnd;
      }
      page_.assign(events->begin(), events->end());
      if (page_.empty()) return ended ? Next::kEnd : Next::kNothing;
    }
    response = ToWire(page_.front());
    after_ = page_.front().seq;
    page_.pop_front();
    return Next::kWrite;
  }

 private:
  Coordinator& coordinator_;
  const v1::WatchEventsRequest request_;
  std::int64_t after_;
  std::deque<core::Event> page_;
};

class Metrics : public Stream<v1::StreamMetricsResponse> {
 public:
  Metrics(Coordinator& coordinator, const v1::StreamMetricsRequest& request, std::int64_t after)
      : coordinator_(coordinator), request_(request), after_(after) {}

 protected:
  Next Produce(v1::StreamMetricsResponse& response, absl::Status& status) override {
    if (page_.empty()) {
      // Read before the page: rows are durable before a job ends, so an empty page after that is the end.
      const bool ended = !request_.follow() || Ended(coordinator_, request_.id());
      const std::uint64_t version = coordinator_.history().version();
      if (version == seen_ && !ended) return Next::kNothing;
      auto entries = coordinator_.history().Query(request_.id(), after_, kPage, request_.all_attempts());
      if (!entries.ok()) {
        status = entries.status();
        return Next::kEnd;
      }
      page_.assign(entries->begin(), entries->end());
      if (page_.empty()) {
        seen_ = version;
        return ended ? Next::kEnd : Next::kNothing;
      }
    }
    const telemetry::Entry entry = std::move(page_.front());
    page_.pop_front();
    after_ = entry.sequence;
    response.Clear();
    response.set_resume_token(std::to_string(after_));
    if (const auto* row = std::get_if<v1::MetricRow>(&entry.what)) {
      *response.mutable_row() = *row;
      newest_step_ = std::max(newest_step_, row->step());
      return Next::kWrite;
    }
    const auto& rollback = std::get<telemetry::Rollback>(entry.what);
    // A reader that has no row above it has nothing to take back.
    if (newest_step_ <= rollback.step) return Produce(response, status);
    newest_step_ = rollback.step;
    response.mutable_rollback()->set_step(rollback.step);
    response.mutable_rollback()->set_attempt(rollback.attempt);
    return Next::kWrite;
  }

 private:
  Coordinator& coordinator_;
  const v1::StreamMetricsRequest request_;
  std::int64_t after_;
  // What the reader may have; of one that resumes it is not known.
  std::int64_t newest_step_ = after_ > 0 ? std::numeric_limits<std::int64_t>::max() : 0;
  std::uint64_t seen_ = ~std::uint64_t{0};
  std::deque<telemetry::Entry> page_;
};

class Progress : public Stream<v1::WatchJobResponse> {
 public:
  Progress(Coordinator& coordinator, std::string id) : coordinator_(coordinator), id_(std::move(id)) {}

 protected:
  Next Produce(v1::WatchJobResponse& response, absl::Status&) override {
    if (ended_) return Next::kEnd;
    const TimePoint now = coordinator_.clock().SteadyNow();
    if (sent_ && now - last_ < std::chrono::milliseconds(100)) return Next::kNothing;
    const auto job = coordinator_.FindJob(id_);
    if (!job) return Next::kEnd;
    const auto row = coordinator_.history().LastRow(id_);
    const std::tuple key(job->version, job->message, row ? row->step() : 0);
    if (sent_ && key == key_) return Next::kNothing;
    *response.mutable_job() = ToWire(*job, coordinator_.history());
    key_ = key;
    sent_ = true;
    last_ = now;
    ended_ = core::IsTerminal(job->state);
    return Next::kWrite;
  }

 private:
  Coordinator& coordinator_;
  const std::string id_;
  std::tuple<std::uint64_t, std::string, std::int64_t> key_;
  TimePoint last_{};
  bool sent_ = false, ended_ = false;
};

class Logs : public Stream<v1::StreamLogsResponse> {
 public:
  Logs(Coordinator& coordinator, LogCalls& calls, std::string node, v1::ReadLog read, bool follow)
      : coordinator_(coordinator), calls_(calls), node_(std::move(node)), read_(std::move(read)), follow_(follow) {}

 protected:
  Next Produce(v1::StreamLogsResponse& response, absl::Status& status) override {
    const std::lock_guard lock(answer_->mutex);
    if (answer_->waiting) {
      if (coordinator_.clock().SteadyNow() - asked_ < std::chrono::seconds(10)) return Next::kNothing;
      calls_.Forget(call_);
      status = absl::UnavailableError("worker " + node_ + " does not answer: retry");
      return Next::kEnd;
    }
    if (answer_->chunk) {
      const v1::LogChunk chunk = *std::exchange(answer_->chunk, std::nullopt);
      if (!chunk.error().empty()) {
        status = absl::NotFoundError(chunk.error());
        return Next::kEnd;
      }
      read_.set_offset(chunk.offset() + static_cast<std::int64_t>(chunk.data().size()));
      last_empty_ = chunk.data().empty();
      if (!last_empty_) {
        response.set_data(chunk.data());
        response.set_offset(chunk.offset());
        response.set_rank(read_.rank());
        response.set_attempt(read_.attempt());
        return Next::kWrite;
      }
      if (chunk.end() || !follow_) return Next::kEnd;
      return Next::kNothing;
    }
    return Ask(status);
  }

 private:
  struct Answer {
    std::mutex mutex;
    bool waiting = false;
    std::optional<v1::LogChunk> chunk;
  };

  Next Ask(absl::Status& status) {
    call_ = calls_.Add([answer = answer_](const v1::LogChunk& chunk) {
      const std::lock_guard lock(answer->mutex);
      answer->waiting = false;
      answer->chunk = chunk;
    });
    asked_ = coordinator_.clock().SteadyNow();
    answer_->waiting = true;
    v1::ConnectResponse message;
    *message.mutable_read_log() = read_;
    message.mutable_read_log()->set_call_id(call_);
    if (coordinator_.SendTo(node_, std::move(message))) return Next::kNothing;
    status = absl::UnavailableError("worker " + node_ + " is not connected: its logs can be read when it is back");
    return Next::kEnd;
  }

  Coordinator& coordinator_;
  LogCalls& calls_;
  const std::string node_;
  v1::ReadLog read_;
  const bool follow_;
  const std::shared_ptr<Answer> answer_ = std::make_shared<Answer>();
  std::int64_t call_ = 0;
  TimePoint asked_{};
  bool last_empty_ = false;
};

class Export : public Stream<v1::ExportJobResponse> {
 public:
  // Only these files are ever read: nothing a client says becomes a path.
  Export(std::string folder, std::vector<std::string> names) : folder_(std::move(folder)), names_(std::move(names)) {}

 protected:
  Next Produce(v1::ExportJobResponse& response, absl::Status& status) override {
    while (offset_ >= bytes_.size()) {
      if (next_ == names_.size()) return Next::kEnd;
      auto bytes = ReadFile(folder_ + "/" + names_[next_]);
      if (!bytes.ok()) {
        status = bytes.status();
        return Next::kEnd;
      }
      bytes_ = *std::move(bytes);
      name_ = names_[next_++];
      offset_ = 0;
    }
    response.Clear();
    response.set_name(name_);
    if (offset_ == 0) {
      response.set_sha256(Sha256Hex(bytes_));
      response.set_size(static_cast<std::int64_t>(bytes_.size()));
    }
    response.set_data(bytes_.substr(offset_, kChunk));
    offset_ += kChunk;
    return Next::kWrite;
  }

 private:
  const std::string folder_;
  const std::vector<std::string> names_;
  std::string name_, bytes_;
  std::size_t next_ = 0, offset_ = 0;
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchEventsResponse>* JobsService::WatchEvents(grpc::CallbackServerContext* context,
                                                                            const v1::WatchEventsRequest* request) {
  using Response = v1::WatchEventsResponse;
  if (const auto denied = gate_.Check(context, "vicreg.v1.JobsService/WatchEvents"); !denied.ok())
    return Refuse<Response>(denied, fanout_);
  if (!request->id().empty() && !coordinator_.FindJob(request->id()))
    return Refuse<Response>(core::NoJob(request->id()), fanout_);
  return Stream<Response>::Begin(std::make_shared<Events>(coordinator_, *request), fanout_);
}

grpc::ServerWriteReactor<v1::StreamMetricsResponse>* JobsService::StreamMetrics(
    grpc::CallbackServerContext* context, const v1::StreamMetricsRequest* request) {
  using Response = v1::StreamMetricsResponse;
  if (const auto denied = gate_.Check(context, "vicreg.v1.JobsService/StreamMetrics"); !denied.ok())
    return Refuse<Response>(denied, fanout_);
  if (!coordinator_.FindJob(request->id())) return Refuse<Response>(core::NoJob(request->id()), fanout_);
  std::int64_t after = 0;
  const std::string& token = request->resume_token();
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), after);
  if (!token.empty() && (error != std::errc() || end != token.data() + token.size() || after < 0)) {
    return Refuse<Response>(absl::InvalidArgumentError("resume_token: found \"" + token.substr(0, 80) +
                                                       "\"; expected one that StreamMetrics gave"),
                            fanout_);
  }
  return Stream<Response>::Begin(std::make_shared<Metrics>(coordinator_, *request, after), fanout_);
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* JobsService::WatchJob(grpc::CallbackServerContext* context,
                                                                      const v1::WatchJobRequest* request) {
  using Response = v1::WatchJobResponse;
  if (const auto denied = gate_.Check(context, "vicreg.v1.JobsService/WatchJob"); !denied.ok())
    return Refuse<Response>(denied, fanout_);
  if (!coordinator_.FindJob(request->id())) return Refuse<Response>(core::NoJob(request->id()), fanout_);
  return Stream<Response>::Begin(std::make_shared<Progress>(coordinator_, request->id()), fanout_);
}

grpc::ServerWriteReactor<v1::StreamLogsResponse>* JobsService::StreamLogs(grpc::CallbackServerContext* context,
                                                                          const v1::StreamLogsRequest* request) {
  using Response = v1::StreamLogsResponse;
  if (const auto denied = gate_.Check(context, "vicreg.v1.JobsService/StreamLogs"); !denied.ok())
    return Refuse<Response>(denied, fanout_);
  const auto job = coordinator_.FindJob(request->id());
  if (!job) return Refuse<Response>(core::NoJob(request->id()), fanout_);
  const int attempt = request->attempt() == 0 ? job->attempt : request->attempt();
  if (attempt < 1 || attempt > job->attempt || request->rank() < 0 || request->rank() >= job->world_size) {
    return Refuse<Response>(
        absl::NotFoundError("job " + job->id + " has no log of rank " + std::to_string(request->rank()) +
                            " in attempt " + std::to_string(attempt) + ": it has " + std::to_string(job->world_size) +
                            " ranks and made " + std::to_string(job->attempt) + " attempts"),
        fanout_);
  }
  // Where it runs or ran last; a rank of an earlier attempt most likely ran there too.
  std::string node;
  for (const core::Rank& rank : job->ranks) {
    if (rank.rank == request->rank()) node = rank.node;
  }
  if (node.empty())
    return Refuse<Response>(absl::NotFoundError("job " + job->id + " has not been placed yet: it has no log"), fanout_);
  v1::ReadLog read;
  read.set_job_id(job->id);
  read.set_attempt(attempt);
  read.set_rank(request->rank());
  read.set_max_bytes(kChunk);
  return Stream<Response>::Begin(std::make_shared<Logs>(coordinator_, logs_, node, read, request->follow()), fanout_);
}

grpc::ServerWriteReactor<v1::ExportJobResponse>* JobsService::ExportJob(grpc::CallbackServerContext* context,
                                                                        const v1::ExportJobRequest* request) {
  using Response = v1::ExportJobResponse;
  if (const auto denied = gate_.Check(context, "vicreg.v1.JobsService/ExportJob"); !denied.ok())
    return Refuse<Response>(denied, fanout_);
  const auto job = coordinator_.FindJob(request->id());
  if (!job) return Refuse<Response>(core::NoJob(request->id()), fanout_);
  if (job->export_path.empty()) {
    return Refuse<Response>(
        absl::FailedPreconditionError("job " + job->id +
                                      " has exported no encoder: one is exported when it has SUCCEEDED, it is " +
                                      core::Name(job->state)),
        fanout_);
  }
  v1::JobSpec spec;
  spec.ParseFromString(job->spec);
  // Made of what we checked at submit, not of what a rank reported.
  std::vector<std::string> names;
  for (const v1::BranchSpec& branch : spec.branches()) {
    if (branch.weights() != v1::BRANCH_WEIGHTS_SHARED) names.push_back(recipe::EncoderFile(branch.name()));
  }
  if (names.empty()) names.push_back(recipe::EncoderFile(""));
  names.push_back("export.json");
  return Stream<Response>::Begin(
      std::make_shared<Export>(coordinator_.artifact_root() + "/" + spec.project() + "/" + job->id + "/export", names),
      fanout_);
}

}  // namespace vicreg::service
