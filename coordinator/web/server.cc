#include "coordinator/web/server.h"

#include <httplib.h>

#include <thread>

#include "common/address.h"

namespace vicreg::web {

struct HttpServer::Impl {
  httplib::Server server;
  std::thread thread;
  int port = 0;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  impl_->server.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

int HttpServer::port() const { return impl_->port; }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address, Pages pages) {
  ASSIGN_OR_RETURN(const HostPort where, ParseLoopback(address, "--http-address"));
  auto impl = std::make_unique<Impl>();
  httplib::Server& server = impl->server;
  // The library's default, SO_REUSEPORT, would let two coordinators share the port and split the requests.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server.new_task_queue = [] { return new httplib::ThreadPool(4); };
  server.set_payload_max_length(1024);
  server.set_read_timeout(5);
  server.set_default_headers({{"X-Content-Type-Options", "nosniff"}, {"Content-Security-Policy", "default-src 'none'"}, {"Cache-Control", "no-store"}});
  server.set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
    const std::string host = request.get_header_value("Host");
    const std::string name = host.substr(0, host.rfind(':'));
    if (name != "127.0.0.1" && name != "localhost" && name != "[::1]") {
      response.status = 421;
      response.set_content("host \"" + name + "\" is not served here; use 127.0.0.1 or localhost\n", "text/plain");
      return httplib::Server::HandlerResponse::Handled;
    }
    if (request.method != "GET" && request.method != "HEAD") {
      response.status = 405;
      response.set_header("Allow", "GET, HEAD");
      response.set_content("only GET and HEAD\n", "text/plain");
      return httplib::Server::HandlerResponse::Handled;
    }
    return httplib::Server::HandlerResponse::Unhandled;
  });
  server.Get("/", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("vicreg coordinator\n\n/metrics  Prometheus text\n/healthz  the process lives\n/readyz   it serves\n", "text/plain");
  });
  server.Get("/metrics", [metrics = pages.metrics](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics(), "text/plain; version=0.0.4; charset=utf-8");
  });
  server.Get("/healthz", [](const httplib::Request&, httplib::Response& response) { response.set_content("ok\n", "text/plain"); });
  server.Get("/readyz", [ready = pages.ready](const httplib::Request&, httplib::Response& response) {
    const absl::Status status = ready();
    response.status = status.ok() ? 200 : 503;
    response.set_content(status.ok() ? "ready\n" : "not ready: " + std::string(status.message()) + "\n", "text/plain");
  });
  impl->port = where.port == 0 ? server.bind_to_any_port(where.host.c_str()) : (server.bind_to_port(where.host.c_str(), where.port) ? where.port : -1);
  if (impl->port <= 0) {
    return absl::FailedPreconditionError("address " + address + " is in use: choose another with --http-address, or stop the program that holds it");
  }
  impl->thread = std::thread([raw = impl.get()] { raw->server.listen_after_bind(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace vicreg::web
