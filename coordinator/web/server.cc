#include "coordinator/web/server.h"

#include <httplib.h>

#include <atomic>
#include <cerrno>
#include <system_error>
#include <thread>

#include "common/address.h"

namespace vicreg::web {
namespace {

using Handled = httplib::Server::HandlerResponse;

// "localhost:7071" -> "localhost"; "[::1]" has colons of its own.
std::string HostName(const std::string& host) {
  const std::size_t from = host.empty() || host[0] != '[' ? 0 : host.find(']');
  const std::size_t colon = from == std::string::npos ? from : host.find(':', from);
  return host.substr(0, colon);
}

bool IsOurs(const std::string& name, const std::string& bound) {
  return name == "127.0.0.1" || name == "localhost" || name == "[::1]" || name == bound;
}

Handled Refuse(httplib::Response& response, int status, const std::string& sentence) {
  response.status = status;
  response.set_content(sentence + "\n", "text/plain");
  return Handled::Handled;
}

// A page of another site must neither reach us under a name of its own (DNS rebinding) nor send requests here.
Handled Screen(const httplib::Request& request, httplib::Response& response, const std::string& bound) {
  const std::string name = HostName(request.get_header_value("Host"));
  if (!IsOurs(name, bound))
    return Refuse(response, 421, "host \"" + name + "\" is not served here; use 127.0.0.1 or localhost");
  if (request.has_header("Origin")) {
    const std::string origin = request.get_header_value("Origin");
    const std::size_t scheme = origin.find("://");
    if (scheme == std::string::npos || !IsOurs(HostName(origin.substr(scheme + 3)), bound))
      return Refuse(response, 403, "requests from other origins are not answered");
  }
  if (request.method != "GET" && request.method != "HEAD") {
    response.set_header("Allow", "GET, HEAD");
    return Refuse(response, 405, "only GET and HEAD");
  }
  return Handled::Unhandled;
}

absl::Status BindError(int error, const std::string& address) {
  if (error == EADDRINUSE) {
    return absl::FailedPreconditionError(
        "address " + address + " is in use: choose another with --http-address, or stop the program that holds it");
  }
  return absl::UnavailableError("cannot listen on " + address + ": " + std::generic_category().message(error) +
                                "; choose another address with --http-address");
}

}  // namespace

struct HttpServer::Impl {
  httplib::Server server;
  std::thread thread;
  int port = 0;
  std::atomic<bool> ended = false;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  impl_->server.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

int HttpServer::port() const { return impl_->port; }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address, const Pages& pages) {
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
  // One request per connection: an idle client cannot sit on a thread, and an unread body is never taken for the next
  // request.
  server.set_keep_alive_max_count(1);
  server.set_default_headers(
      {{"X-Content-Type-Options", "nosniff"},
       {"Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
       {"Cache-Control", "no-store"}});
  server.set_pre_routing_handler([bound = where.host](const httplib::Request& request, httplib::Response& response) {
    return Screen(request, response, bound);
  });
  server.Get("/", [](const httplib::Request&, httplib::Response& response) {
    response.set_content(
        "vicreg coordinator\n\n/metrics  Prometheus text\n/healthz  the process lives\n/readyz   it serves\n",
        "text/plain");
  });
  server.Get("/metrics", [metrics = pages.metrics](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics(), "text/plain; version=0.0.4; charset=utf-8");
  });
  server.Get("/healthz",
             [](const httplib::Request&, httplib::Response& response) { response.set_content("ok\n", "text/plain"); });
  server.Get("/readyz", [ready = pages.ready](const httplib::Request&, httplib::Response& response) {
    const absl::Status status = ready();
    response.status = status.ok() ? 200 : 503;
    response.set_content(status.ok() ? "ready\n" : "not ready: " + std::string(status.message()) + "\n", "text/plain");
  });
  const std::string host = where.host == "[::1]" ? "::1" : where.host;
  errno = 0;
  impl->port = where.port == 0 ? server.bind_to_any_port(host.c_str())
                               : (server.bind_to_port(host.c_str(), where.port) ? where.port : -1);
  if (impl->port <= 0) return BindError(errno, address);
  impl->thread = std::thread([raw = impl.get()] {
    raw->server.listen_after_bind();
    raw->ended = true;
  });
  // stop() before the loop runs would be forgotten, and the destructor would wait for ever.
  while (!server.is_running() && !impl->ended) std::this_thread::yield();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace vicreg::web
