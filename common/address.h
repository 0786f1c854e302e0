#pragma once

#include <string>

#include "common/status.h"

namespace vicreg {

struct HostPort {
  std::string host;
  int port = 0;
};

// "127.0.0.1:7070". InvalidArgument naming `flag`: not host:port, or not a loopback address (other addresses need TLS
// and client certificates, which this build does not offer).
absl::StatusOr<HostPort> ParseLoopback(const std::string& address, const std::string& flag);

}  // namespace vicreg
