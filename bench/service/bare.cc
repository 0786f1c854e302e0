#include "bench/service/bare.h"

#include <stdexcept>

namespace vicreg::bench {
namespace {

// One answer for each message, before the next is read.
class Echo : public grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  Echo() { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    response_.Clear();
    if (request_.has_heartbeat()) {
      response_.mutable_heartbeat()->set_sequence(request_.heartbeat().sequence());
    } else {
      response_.mutable_welcome()->set_incarnation(1);
    }
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      StartRead(&request_);
    } else {
      Finish(grpc::Status::OK);
    }
  }
  void OnDone() override { delete this; }

 private:
  v1::ConnectRequest request_;
  v1::ConnectResponse response_;
};

}  // namespace

grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* BareServer::Workers::Connect(
    grpc::CallbackServerContext*) {
  return new Echo;
}

grpc::ServerUnaryReactor* BareServer::Calls::GetCluster(grpc::CallbackServerContext* context,
                                                        const v1::GetClusterRequest*, v1::GetClusterResponse*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

BareServer::BareServer() {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(&workers_);
  builder.RegisterService(&calls_);
  server_ = builder.BuildAndStart();
  if (!server_ || port_ == 0) throw std::runtime_error("cannot listen on 127.0.0.1");
}

}  // namespace vicreg::bench
