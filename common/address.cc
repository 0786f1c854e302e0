#include "common/address.h"

#include <charconv>

namespace vicreg {

absl::StatusOr<HostPort> ParseLoopback(const std::string& address, const std::string& flag) {
  const std::size_t colon = address.rfind(':');
  HostPort out;
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size() || out.port < 0 || out.port > 65535) {
    return absl::InvalidArgumentError(flag + ": found \"" + address + "\"; expected HOST:PORT, such as 127.0.0.1:7070");
  }
  out.host = address.substr(0, colon);
  if (out.host != "localhost" && out.host != "[::1]" && out.host.rfind("127.", 0) != 0) {
    return absl::InvalidArgumentError(flag + ": " + address + " is not a loopback address; this build has no TLS and listens on 127.0.0.1 only");
  }
  return out;
}

}  // namespace vicreg
