// Goal: the command line's reference and completion come from the parser itself, and usage errors end with code 2.
// Method: the real program; its output is compared with docs/reference/cli.md.
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <sstream>

namespace {

using testing::HasSubstr;
using testing::Not;

struct Ran {
  int code;
  std::string out;  // standard output and error
};

Ran Vicreg(const std::string& arguments) {
  const std::string command =
      std::string("VICREG_COORDINATOR=127.0.0.1:1 " VICREG_BINARY_DIR "/vicreg ") + arguments + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  std::string out;
  char buffer[4096];
  while (const std::size_t got = fread(buffer, 1, sizeof buffer, pipe)) out.append(buffer, got);
  return {WEXITSTATUS(pclose(pipe)), out};
}

TEST(Reference, PageIsWhatTheParserPrints) {
  std::ifstream file(VICREG_SOURCE_DIR "/docs/reference/cli.md");
  std::stringstream page;
  page << file.rdbuf();
  EXPECT_EQ(Vicreg("__reference").out, page.str())
      << "docs/reference/cli.md is stale: build/bin/vicreg __reference > docs/reference/cli.md";
}

TEST(Completion, OffersCommandsOptionsAndNothingHidden) {
  EXPECT_EQ(Vicreg("__complete me").out, "metrics\n");
  EXPECT_EQ(Vicreg("__complete node ''").out, "list\ndescribe\ncordon\nuncordon\nhealth\nprobe\ndrain\n");
  EXPECT_EQ(Vicreg("__complete quota s").out, "set\n");
  EXPECT_EQ(Vicreg("__complete submit --re").out, "--request-id\n");
  EXPECT_THAT(Vicreg("__complete ''").out, Not(HasSubstr("__")));
  for (const char* shell : {"bash", "zsh", "fish"})
    EXPECT_THAT(Vicreg(std::string("completion ") + shell).out, HasSubstr("vicreg __complete"));
  // The script is valid in the shell that everybody has.
  EXPECT_EQ(system(VICREG_BINARY_DIR "/vicreg completion bash | bash -n"), 0);
}

TEST(Usage, ErrorsEndWithCodeTwoAndSayWhatWasExpected) {
  const struct {
    const char* arguments;
    const char* says;
  } rows[] = {
      {"", "subcommand is required"},
      {"frobnicate", "no command \"frobnicate\""},
      {"sumbit x", "did you mean submit?"},
      {"submit", "FILE is required"},
      {"submit /nonexistent --frob", "--frob"},
      {"list -o xml", "xml"},
      {"completion tcsh", "tcsh"},
      {"wait abc --timeout soon", "soon"},
      {"wait abc --for never", "never"},
      {"watch abc --timeout -1", "-1"},
      {"submit " VICREG_SOURCE_DIR "/examples/fashion-mnist.yaml --request-id 7", "lower-case UUID"},
      {"submit " VICREG_SOURCE_DIR "/examples/fashion-mnist.yaml --timeout x", "--timeout"},
      {"up --cpu 1000 --grpc-port 70000 --data-root x --dir /tmp/vicreg-usage-test", "--grpc-port: found 70000"},
      {"up --cpu 1000 --grpc-port 70000 --data-root x --dir /tmp/vicreg-usage-test", "--cpu: found 1000"},
      {"up --cpu 1000 --grpc-port 70000 --data-root x --dir /tmp/vicreg-usage-test",
       "--data-root x: expected NAME=PATH"},
  };
  for (const auto& r : rows) {
    SCOPED_TRACE(r.arguments);
    const Ran ran = Vicreg(r.arguments);
    EXPECT_EQ(ran.code, 2) << ran.out;
    EXPECT_THAT(ran.out, HasSubstr(r.says));
  }
}

TEST(Files, MissingFileIsNotFoundAndNamed) {
  const Ran ran = Vicreg("validate /nonexistent.yaml");
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.out, HasSubstr("/nonexistent.yaml"));
}

TEST(Files, ValidateAndExplainNeedNoCoordinator) {
  EXPECT_EQ(Vicreg("validate " VICREG_SOURCE_DIR "/examples/fashion-mnist.yaml").code, 0);
  const Ran explained = Vicreg("explain " VICREG_SOURCE_DIR "/examples/fashion-mnist.yaml");
  EXPECT_EQ(explained.code, 0);
  EXPECT_THAT(explained.out, HasSubstr("steps"));
}

TEST(Connection, NobodyThereIsCodeSixWithTheNextStep) {
  const Ran ran = Vicreg("list");
  EXPECT_EQ(ran.code, 6);
  EXPECT_THAT(ran.out, HasSubstr("vicreg up"));
}

}  // namespace
