// Goal: the HTTP listener answers its few pages to this machine, and nothing else to anybody.
// Method: a real server on a port of the kernel's choice, asked by plain sockets so that any request can be sent.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "coordinator/web/server.h"

namespace vicreg::web {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::unique_ptr<HttpServer> Serve(std::function<absl::Status()> ready = [] { return absl::OkStatus(); }) {
  auto server = HttpServer::Start("127.0.0.1:0", {[] { return std::string("# page\n"); }, std::move(ready)});
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

int Dial(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(static_cast<std::uint16_t>(port));
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
  return fd;
}

// Sends the bytes and reads until the server closes.
std::string Exchange(int port, const std::string& request) {
  const int fd = Dial(port);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) answer.append(buffer, static_cast<std::size_t>(n));
  close(fd);
  return answer;
}

std::string Ask(int port, const std::string& line, const std::string& host = "localhost",
                const std::string& more = "") {
  return Exchange(port, line + " HTTP/1.1\r\nHost: " + host + "\r\n" + more + "\r\n");
}

TEST(HttpServer, PagesAreServed) {
  const auto server = Serve();
  EXPECT_THAT(Ask(server->port(), "GET /healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Ask(server->port(), "GET /readyz"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Ask(server->port(), "GET /"), HasSubstr("/metrics"));
  const std::string metrics = Ask(server->port(), "GET /metrics");
  EXPECT_THAT(metrics, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(metrics, HasSubstr("\r\n\r\n# page\n"));
  EXPECT_THAT(Ask(server->port(), "GET /nothing"), StartsWith("HTTP/1.1 404"));
}

TEST(HttpServer, HeadHasNoBody) {
  const auto server = Serve();
  const std::string answer = Ask(server->port(), "HEAD /metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, Not(HasSubstr("# page")));
}

TEST(HttpServer, NotReadyIsSaidInASentence) {
  const auto server = Serve([] { return absl::UnavailableError("the store is full"); });
  const std::string answer = Ask(server->port(), "GET /readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(answer, HasSubstr("not ready: the store is full"));
  EXPECT_THAT(Ask(server->port(), "GET /healthz"), StartsWith("HTTP/1.1 200"));
}

TEST(HttpServer, OtherMethodsAreRefusedAndTheirBodyIsNoRequest) {
  const auto server = Serve();
  const std::string inner = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS"}) {
    const std::string answer = Ask(server->port(), std::string(method) + " /metrics", "localhost",
                                   "Content-Length: " + std::to_string(inner.size()) + "\r\n\r\n" + inner);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 405")) << method;
    EXPECT_THAT(answer, Not(HasSubstr("# page"))) << method;
  }
}

TEST(HttpServer, OnlyNamesOfThisMachineAreAnswered) {
  const auto server = Serve();
  for (const char* host : {"localhost", "localhost:7071", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:7071"}) {
    EXPECT_THAT(Ask(server->port(), "GET /metrics", host), StartsWith("HTTP/1.1 200")) << host;
  }
  for (const char* host : {"evil.example", "evil.example:7071", "127.0.0.1.evil.example", "127.evil.example",
                           "localhost.evil.example", "", "[::1", "[fe80::1]"}) {
    const std::string answer = Ask(server->port(), "GET /metrics", host);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 421")) << host;
    EXPECT_THAT(answer, Not(HasSubstr("# page"))) << host;
  }
  EXPECT_THAT(Exchange(server->port(), "GET /metrics HTTP/1.0\r\n\r\n"), HasSubstr(" 421 ")) << "no Host at all";
}

TEST(HttpServer, OtherOriginsAreRefused) {
  const auto server = Serve();
  EXPECT_THAT(Ask(server->port(), "GET /metrics", "localhost", "Origin: http://localhost:7071\r\n"),
              StartsWith("HTTP/1.1 200"));
  for (const char* origin : {"http://evil.example", "https://localhost.evil.example:7071", "null"}) {
    EXPECT_THAT(Ask(server->port(), "GET /metrics", "localhost", std::string("Origin: ") + origin + "\r\n"),
                StartsWith("HTTP/1.1 403"))
        << origin;
  }
}

TEST(HttpServer, EveryAnswerCarriesTheSecurityHeaders) {
  const auto server = Serve();
  for (const char* line : {"GET /metrics", "GET /nothing", "POST /metrics"}) {
    const std::string answer = Ask(server->port(), line);
    EXPECT_THAT(answer, HasSubstr("X-Content-Type-Options: nosniff")) << line;
    EXPECT_THAT(answer, HasSubstr("Content-Security-Policy: default-src 'none'")) << line;
    EXPECT_THAT(answer, Not(HasSubstr("Access-Control"))) << line;
  }
}

TEST(HttpServer, PortInUseIsNamedWithTheFlag) {
  const auto first = Serve();
  const std::string address = "127.0.0.1:" + std::to_string(first->port());
  const auto second = HttpServer::Start(address, {[] { return std::string(); }, [] { return absl::OkStatus(); }});
  ASSERT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--http-address"));
}

TEST(HttpServer, AddressOfOthersIsRefused) {
  for (const char* address : {"0.0.0.0:7071", "192.0.2.1:7071", "127.0.0.1", "127.0.0.1:x"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(HttpServer::Start(address, {}).status())) << address;
  }
}

TEST(HttpServer, StartAndStopLeaveNothingBehind) {
  const auto open_files = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
  const auto threads = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}); };
  Serve().reset();
  const auto files_before = open_files(), threads_before = threads();
  for (int i = 0; i < 50; ++i) Serve().reset();  // at once: the loop may not have begun
  EXPECT_EQ(open_files(), files_before);
  EXPECT_EQ(threads(), threads_before);
}

TEST(HttpServer, ManyClientsAtOnceAreAllAnswered) {
  const auto server = Serve();
  std::atomic<int> answered = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&] { answered += Ask(server->port(), "GET /metrics").find("# page") != std::string::npos; });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 16);
}

TEST(HttpServer, RequestLinesOfAnyKindAreSurvived) {
  const auto server = Serve();
  for (const std::string& request : {std::string("\r\n\r\n"), std::string("GET\r\n\r\n"),
                                     std::string("GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                                     "GET /" + std::string(20'000, 'a') + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                     std::string("\0\x01\xff\r\n\r\n", 7)}) {
    EXPECT_THAT(Exchange(server->port(), request), Not(HasSubstr(" 200 ")));
  }
  EXPECT_THAT(Ask(server->port(), "GET /healthz"), StartsWith("HTTP/1.1 200"));
}

}  // namespace
}  // namespace vicreg::web
