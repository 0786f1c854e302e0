#pragma once

// The one HTTP listener: /metrics, /healthz, /readyz. GET and HEAD only; only loopback Host names and origins are
// answered; one request per connection.

#include <functional>
#include <memory>
#include <string>

#include "common/status.h"

namespace vicreg::web {

class HttpServer {
 public:
  struct Pages {
    std::function<std::string()> metrics;
    std::function<absl::Status()> ready;  // not OK: 503 with the sentence
  };
  // "127.0.0.1:7071"; port 0 asks the kernel. FailedPrecondition: in use. InvalidArgument: not a loopback address.
  // Unavailable: the system refuses it for another reason.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address, const Pages& pages);
  ~HttpServer();
  int port() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vicreg::web
