#include "common/address.h"

#include <arpa/inet.h>

#include <charconv>

namespace vicreg {

absl::StatusOr<HostPort> ParseLoopback(const std::string& address, const std::string& flag) {
  const std::size_t colon = address.rfind(':');
  HostPort out;
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (port.empty() || port[0] == '-' || error != std::errc() || end != port.data() + port.size() || out.port > 65535) {
    return absl::InvalidArgumentError(flag + ": found \"" + address + "\"; expected HOST:PORT, such as 127.0.0.1:7070");
  }
  out.host = address.substr(0, colon);
  // A number, not a name such as 127.example.org, which resolves to whatever its owner likes.
  in_addr number;
  const bool loopback = inet_pton(AF_INET, out.host.c_str(), &number) == 1 && ntohl(number.s_addr) >> 24 == 127;
  if (out.host != "localhost" && out.host != "[::1]" && !loopback) {
    return absl::InvalidArgumentError(
        flag + ": " + address + " is not a loopback address; this build has no TLS and listens on 127.0.0.1 only");
  }
  return out;
}

}  // namespace vicreg
