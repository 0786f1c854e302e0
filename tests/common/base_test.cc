// Goal: the base keeps its small promises: identities, addresses, files, locks, errors and names.
// Method: tables; a reader races a writer; a forked process holds the lock and dies by SIGKILL.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "common/address.h"
#include "common/enum_names.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/rpc/gate.h"
#include "common/rpc/status.h"
#include "vicreg/v1/job.pb.h"
#include "vicreg/v1/jobs_service.pb.h"

namespace vicreg {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A folder of its own for each test, removed afterwards.
class Folder {
 public:
  Folder() {
    std::string name = testing::TempDir() + "vicreg-base-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

unsigned ModeOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

TEST(Uuid, IsRandomOfVersionFour) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = NewUuid();
    EXPECT_TRUE(IsUuid(id)) << id;
    EXPECT_EQ(id[14], '4') << id;
    EXPECT_THAT(std::string("89ab"), HasSubstr(std::string(1, id[19]))) << id;
    EXPECT_TRUE(seen.insert(id).second) << id;
  }
}

TEST(Uuid, IsRecognisedOnlyInItsOneForm) {
  const std::string good = "00112233-4455-6677-8899-aabbccddeeff";
  EXPECT_TRUE(IsUuid(good));
  for (const std::string& bad :
       {std::string(), good.substr(1), good + "0", std::string("00112233-4455-6677-8899-AABBCCDDEEFF"),
        std::string("00112233445566778899aabbccddeeff"), std::string("0011223-34455-6677-8899-aabbccddeeff"),
        std::string("g0112233-4455-6677-8899-aabbccddeeff"), "{" + good.substr(1, 34) + "}"}) {
    EXPECT_FALSE(IsUuid(bad)) << bad;
  }
}

TEST(RandomBytes, AreAsManyAsAskedForAndDiffer) {
  for (const std::size_t count : {0u, 1u, 16u, 1000000u}) EXPECT_EQ(RandomBytes(count).size(), count);
  EXPECT_NE(RandomBytes(16), RandomBytes(16));
  // The last byte is drawn too: 64 zeros in a row happen once in 2^512.
  std::set<char> last;
  for (int i = 0; i < 64; ++i) last.insert(RandomBytes(33).back());
  EXPECT_GT(last.size(), 1u);
}

TEST(Loopback, IsAllThatIsAccepted) {
  const struct {
    const char *address, *host;
    int port;
  } good[] = {{"127.0.0.1:7070", "127.0.0.1", 7070},
              {"127.9.9.9:1", "127.9.9.9", 1},
              {"localhost:0", "localhost", 0},
              {"[::1]:65535", "[::1]", 65535}};
  for (const auto& r : good) {
    const auto got = ParseLoopback(r.address, "--grpc-address");
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->host, r.host);
    EXPECT_EQ(got->port, r.port);
  }
  for (const char* address : {"0.0.0.0:7070", "10.0.0.1:7070", "128.0.0.1:7070", "example.org:7070",
                              "127.example.org:7070", "127.0.0.1.example.org:7070", "localhost.example.org:7070",
                              "[::]:7070", "::1:7070", ":7070", "1270.0.0.1:80"}) {
    const auto got = ParseLoopback(address, "--grpc-address");
    EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(got.status().message()),
                AllOf(HasSubstr("--grpc-address: " + std::string(address)), HasSubstr("not a loopback address")))
        << address;
  }
  for (const char* address : {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:80x", "127.0.0.1:65536",
                              "127.0.0.1:-1", "127.0.0.1:-0", "127.0.0.1: 80", "127.0.0.1:99999999999999999999"}) {
    const auto got = ParseLoopback(address, "--grpc-address");
    EXPECT_THAT(std::string(got.status().message()),
                AllOf(StartsWith("--grpc-address: found"), HasSubstr("expected HOST:PORT")))
        << address;
  }
}

TEST(WriteFile, ReplacesTheWholeFileAndLeavesNothingBeside) {
  const Folder folder;
  ASSERT_TRUE(WriteFileAtomically(folder / "a", std::string(200000, 'x')).ok());
  EXPECT_EQ(*ReadFile(folder / "a"), std::string(200000, 'x'));
  EXPECT_EQ(ModeOf(folder / "a"), 0600u);
  ASSERT_TRUE(WriteFileAtomically(folder / "a", std::string_view("a\0b", 3), 0640).ok());
  EXPECT_EQ(*ReadFile(folder / "a"), std::string("a\0b", 3));
  EXPECT_THAT(Names(folder.path()), ElementsAre("a"));
}

TEST(WriteFile, SaysWhatOfALargeFileIsDurableWhileItIsWritten) {
  const Folder folder;
  const std::string bytes(std::size_t{70} << 20, 'x');
  std::size_t wrote = 0;
  int parts = 0;
  ASSERT_TRUE(WriteFileAtomically(folder / "a", bytes, 0600, [&](std::size_t part) {
                EXPECT_FALSE(std::filesystem::exists(folder / "a")) << "half of it can be read";
                wrote += part;
                ++parts;
              }).ok());
  EXPECT_EQ(wrote, bytes.size());
  EXPECT_EQ(parts, 3);
  EXPECT_EQ(*ReadFile(folder / "a"), bytes);
}

TEST(WriteFile, ReadersSeeTheOldBytesOrTheNew) {
  const Folder folder;
  const std::string path = folder / "a";
  ASSERT_TRUE(WriteFileAtomically(path, std::string(100000, 'a')).ok());
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int i = 1; i <= 50; ++i)
      EXPECT_TRUE(WriteFileAtomically(path, std::string(100000 + i, static_cast<char>('a' + i % 26))).ok());
    done = true;
  });
  while (!done && !HasFailure()) {
    const std::string bytes = ReadFile(path).value_or("");
    EXPECT_GE(bytes.size(), 100000u);
    EXPECT_EQ(bytes.find_first_not_of('a' + static_cast<char>(bytes.size() % 100000 % 26)), std::string::npos);
  }
  writer.join();
}

TEST(WriteFile, FailureKeepsTheOldFileAndRemovesTheHalf) {
  const Folder folder;
  EXPECT_EQ(WriteFileAtomically(folder / "none/a", "x").code(), absl::StatusCode::kNotFound);
  // A folder in the place of the file: everything works but the last step.
  ASSERT_TRUE(MakeFolders(folder / "b/c").ok());
  const absl::Status status = WriteFileAtomically(folder / "b", "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), StartsWith("cannot rename to " + (folder / "b") + ": "));
  EXPECT_THAT(Names(folder.path()), ElementsAre("b"));
}

TEST(WriteFile, FollowsNoLinkLaidInItsWay) {
  const Folder folder;
  std::ofstream(folder / "victim") << "precious";
  std::filesystem::create_symlink(folder / "victim", folder / "a.tmp");
  EXPECT_FALSE(WriteFileAtomically(folder / "a", "x").ok());
  EXPECT_EQ(*ReadFile(folder / "victim"), "precious");
}

TEST(ReadFile, NamesWhatItCannotRead) {
  const Folder folder;
  const auto none = ReadFile(folder / "none");
  EXPECT_EQ(none.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(none.status().message(), "cannot open " + (folder / "none") + ": No such file or directory");
  EXPECT_EQ(ReadFile(folder.path()).status().code(), absl::StatusCode::kInternal);
}

TEST(Errno, BecomesTheCodeByWhatTheCallerDoesNext) {
  const struct {
    int error;
    absl::StatusCode code;
    const char* advice;
  } rows[] = {
      {ENOSPC, absl::StatusCode::kResourceExhausted, "No space left on device: free space there"},
      {EDQUOT, absl::StatusCode::kResourceExhausted, "free space there"},
      {EACCES, absl::StatusCode::kPermissionDenied, "make it writable"},
      {EPERM, absl::StatusCode::kPermissionDenied, "make it writable"},
      {EROFS, absl::StatusCode::kPermissionDenied, "make it writable"},
      {ENOENT, absl::StatusCode::kNotFound, "No such file"},
      {EIO, absl::StatusCode::kInternal, "Input/output error"},
  };
  for (const auto& r : rows) {
    const absl::Status status = ErrnoStatus(r.error, "write", "/a/b");
    EXPECT_EQ(status.code(), r.code) << r.error;
    EXPECT_THAT(std::string(status.message()), AllOf(StartsWith("cannot write /a/b: "), HasSubstr(r.advice)));
  }
}

TEST(Folders, AreMadeForTheirOwnerOnly) {
  const Folder folder;
  ASSERT_TRUE(MakeFolders(folder / "a/b/c/").ok());
  EXPECT_EQ(ModeOf(folder / "a"), 0700u);
  EXPECT_EQ(ModeOf(folder / "a/b/c"), 0700u);
  EXPECT_TRUE(MakeFolders(folder / "a/b").ok()) << "it exists";
  std::ofstream(folder / "file") << "x";
  for (const std::string& path : {folder / "file", folder / "file/b"}) {
    EXPECT_THAT(std::string(MakeFolders(path).message()),
                HasSubstr((folder / "file") + ": a file of that name is in the way"));
  }
}

TEST(Sha256, GivesTheStandardsVectors) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Lock, HeldByAnotherProcessIsRefusedNamingItsPid) {
  const Folder folder;
  const std::string path = folder / "lock";
  EXPECT_EQ(LockHolder(path), 0) << "there is no such file";
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t other = fork();
  if (other == 0) {
    const auto lock = LockFile(path);
    const char answer = lock.ok() ? 'y' : 'n';
    if (write(ready[1], &answer, 1) != 1) _exit(1);
    while (true) pause();
  }
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  const auto refused = LockFile(path);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr(path + " is held by process " + std::to_string(other) + ": stop that process"));
  EXPECT_EQ(LockHolder(path), other);
  kill(other, SIGKILL);
  ASSERT_EQ(waitpid(other, nullptr, 0), other);
  EXPECT_EQ(LockHolder(path), 0) << "kill -9 frees it, whatever pid the file still holds";
  EXPECT_TRUE(LockFile(path).ok());
  close(ready[0]);
  close(ready[1]);
}

TEST(Lock, EndsWithItsOwnerAndMovesWithIt) {
  const Folder folder;
  const std::string path = folder / "lock";
  {
    auto first = LockFile(path);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(*ReadFile(path), std::to_string(getpid()));
    EXPECT_EQ(LockHolder(path), getpid());
    FileLock second = *std::move(first);
    FileLock third;
    third = std::move(second);
    EXPECT_FALSE(LockFile(path).ok());
  }
  EXPECT_EQ(LockHolder(path), 0);
  // A longer number of an earlier owner does not show through.
  std::ofstream(path) << "4194304999";
  auto again = LockFile(path);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(LockHolder(path), getpid());
}

TEST(Lock, FollowsNoLink) {
  const Folder folder;
  std::ofstream(folder / "victim") << "precious";
  std::filesystem::create_symlink(folder / "victim", folder / "lock");
  EXPECT_FALSE(LockFile(folder / "lock").ok());
  EXPECT_EQ(*ReadFile(folder / "victim"), "precious");
}

absl::StatusOr<int> Twice(const absl::StatusOr<int>& given, int& evaluated) {
  ASSIGN_OR_RETURN(const int value, (++evaluated, given));
  RETURN_IF_ERROR((++evaluated, absl::OkStatus()));
  return 2 * value;
}

TEST(StatusMacros, EvaluateOnceAndReturnTheError) {
  int evaluated = 0;
  EXPECT_EQ(*Twice(21, evaluated), 42);
  EXPECT_EQ(evaluated, 2);
  EXPECT_EQ(Twice(absl::AbortedError("no"), evaluated).status(), absl::AbortedError("no"));
  EXPECT_EQ(evaluated, 3);
}

TEST(RpcStatus, ComesBackEqualForEveryCode) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? ""
                                                                             : "job \"a\": gr\xc3\xb6\xc3\x9f"
                                                                               "er");
    const grpc::Status wire = rpc::ToGrpc(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(rpc::FromGrpc(wire), status);
  }
  // The numbers are gRPC's own, not only alike here.
  EXPECT_EQ(rpc::ToGrpc(absl::UnavailableError("")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(rpc::ToGrpc(absl::FailedPreconditionError("")).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(rpc::FromGrpc({grpc::StatusCode::UNAUTHENTICATED, "x"}), absl::UnauthenticatedError("x"));
}

class DenyCancels : public rpc::Policy {
 public:
  absl::Status Decide(const rpc::Principal& principal, std::string_view method) const override {
    EXPECT_THAT(principal.name, StartsWith("local:"));
    return method == "vicreg.v1.JobsService/CancelJob" ? absl::InternalError("ask an admin") : absl::OkStatus();
  }
};

TEST(Gate, DenialNamesCallerMethodAndReason) {
  const rpc::Gate gate(std::make_unique<DenyCancels>());
  const auto admitted = gate.Admit(nullptr, "vicreg.v1.JobsService/GetJob");
  ASSERT_TRUE(admitted.ok());
  const absl::Status denied = gate.Check(nullptr, "vicreg.v1.JobsService/CancelJob");
  EXPECT_EQ(denied, absl::PermissionDeniedError(admitted->name +
                                                " may not call vicreg.v1.JobsService/CancelJob: ask an admin"));
  EXPECT_TRUE(rpc::Gate(rpc::AllowLocalUser()).Check(nullptr, "vicreg.v1.JobsService/CancelJob").ok());
}

TEST(ShortName, DropsThePrefixOfEveryEnum) {
  EXPECT_EQ(ShortName(v1::JOB_STATE_RUNNING), "RUNNING");
  EXPECT_EQ(ShortName(v1::LOSS_FORM_COVARIANCE), "COVARIANCE");
  EXPECT_EQ(ShortName(v1::PRECISION_FP32), "FP32");
  EXPECT_EQ(ShortName(static_cast<v1::JobState>(99)), "99");
  for (const auto* file : {v1::JobSpec::descriptor()->file(), v1::JobState_descriptor()->file()}) {
    for (int e = 0; e < file->enum_type_count(); ++e) {
      for (int i = 0; i < file->enum_type(e)->value_count(); ++i) {
        const auto& value = *file->enum_type(e)->value(i);
        EXPECT_LT(ShortName(value).size(), value.name().size()) << value.full_name();
        EXPECT_TRUE(value.number() != 0 || ShortName(value) == "UNSPECIFIED") << value.full_name();
      }
    }
  }
}

TEST(Log, IsOneJsonObjectPerLineWhateverTheMessage) {
  const auto before = spdlog::default_logger();
  testing::internal::CaptureStderr();
  InitLog("vicreg-test");
  const std::string odd =
      "a \"quoted\"\nsecond line\x1b[2J \\ gr\xc3\xb6\xc3\x9f"
      "e";
  spdlog::info("{}", odd);
  spdlog::error("not UTF-8: {}", "\xff");
  spdlog::set_default_logger(before);
  std::istringstream lines(testing::internal::GetCapturedStderr());
  std::vector<nlohmann::json> logged;
  for (std::string line; std::getline(lines, line);) logged.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(logged.size(), 2u);
  EXPECT_EQ(logged[0]["message"], odd);
  EXPECT_EQ(logged[0]["level"], "info");
  EXPECT_EQ(logged[0]["program"], "vicreg-test");
  EXPECT_EQ(logged[0]["pid"], getpid());
  EXPECT_EQ(logged[1]["level"], "error");
  EXPECT_EQ(logged[1]["message"], "not UTF-8: \xef\xbf\xbd");
}

}  // namespace
}  // namespace vicreg
