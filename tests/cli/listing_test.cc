// Goal: a list comes in the order and form that was asked for, and every YAML reader gets the values JSON has.
// Method: a listing built by hand; exact lines.
#include "cli/listing.h"

#include <gmock/gmock.h>
#include <yaml-cpp/yaml.h>

namespace vicreg::cli {
namespace {

using testing::HasSubstr;

Listing Machines() {
  const auto item = [](const char* name, const char* slots, const char* heard, const char* note) {
    return Item{name, {name, slots, heard, note}, {{"name", name}, {"slots", slots}}};
  };
  return {
      "machines",
      {{"NAME"}, {"SLOTS(used/all)"}, {"LAST HEARD"}, {"NOTE", true}},
      {item("c", "10/16", "2m05s ago", "third"), item("a", "9/16", "50s ago", ""), item("b", "-", "1h00m ago", "x")}};
}

std::string Rendered(const Form& form, bool headers = false) { return *Render(Machines(), form, headers); }

TEST(Listing, TableHidesWideColumnsUnlessTheyAreWanted) {
  EXPECT_EQ(Rendered({}, true),
            "NAME  SLOTS(used/all)  LAST HEARD\n"
            "c     10/16            2m05s ago\n"
            "a     9/16             50s ago\n"
            "b     -                1h00m ago\n");
  EXPECT_THAT(Rendered({.output = "wide"}, true), HasSubstr("NOTE\nc"));
  EXPECT_EQ(Rendered({.columns = {"note", "Name"}}), "third  c\n       a\nx      b\n");
}

TEST(Listing, SortsNumbersAndDurationsByTheirSizeAndTextByItsLetters) {
  EXPECT_EQ(Rendered({.output = "name", .sort = "name"}), "a\nb\nc\n");
  EXPECT_EQ(Rendered({.output = "name", .sort = "-name"}), "c\nb\na\n");
  EXPECT_EQ(Rendered({.output = "name", .sort = "last-heard"}), "a\nc\nb\n");
  // What has none comes last either way.
  EXPECT_EQ(Rendered({.output = "name", .sort = "slots"}), "a\nc\nb\n");
  EXPECT_EQ(Rendered({.output = "name", .sort = "-SLOTS"}), "c\na\nb\n");
}

TEST(Listing, UnknownColumnIsRefusedWithTheNearest) {
  for (const Form& form : {Form{.columns = {"nmae"}}, Form{.sort = "-nmae"}}) {
    const auto refused = Render(Machines(), form, true);
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(std::string(refused.status().message()),
                HasSubstr("did you mean name? There are: name, slots, last-heard, note"));
  }
}

TEST(Listing, JsonIsVersionedAndJsonlHasOneOnEachLine) {
  EXPECT_EQ(nlohmann::json::parse(Rendered({.output = "json"}))["machines"].size(), 3u);
  EXPECT_EQ(nlohmann::json::parse(Rendered({.output = "json"}))["version"], "v1");
  EXPECT_EQ(Rendered({.output = "jsonl", .sort = "name"}).substr(0, 29), "{\"name\":\"a\",\"slots\":\"9/16\"}\n{");
}

// Read by another library's rules: a value that is a string in JSON must be one in YAML, a number a number.
TEST(Written, YamlKeepsTheTypeOfEveryValue) {
  const nlohmann::ordered_json strings = {"yes",  "No",    "null",       "~",          "",     "12",  "1e3",
                                          "0x1f", ".inf",  "true",       "a: b",       "a #b", "- a", "a\nb",
                                          " a ",  "é\"\\", "plain text", "2026-01-31", "*x",   "key:"};
  const nlohmann::ordered_json json = {{"strings", strings},
                                       {"number", 1.0000000000000002},
                                       {"truth", true},
                                       {"nothing", nullptr},
                                       {"empty", nlohmann::ordered_json::array()},
                                       {"in", {{"x", 3}}}};
  const std::string text = Written(json, "yaml");
  const YAML::Node read = YAML::Load(text);
  for (std::size_t i = 0; i < strings.size(); ++i) {
    EXPECT_EQ(read["strings"][i].as<std::string>(), strings[i].get<std::string>()) << text;
    bool truth = false;
    const bool quoted = read["strings"][i].Tag() == "!";
    EXPECT_TRUE(quoted || (!YAML::convert<bool>::decode(read["strings"][i], truth) && !read["strings"][i].IsNull() &&
                           std::isalpha(static_cast<unsigned char>(strings[i].get<std::string>()[0])) != 0))
        << strings[i];
  }
  EXPECT_EQ(read["number"].as<double>(), 1.0000000000000002);
  EXPECT_TRUE(read["truth"].as<bool>());
  EXPECT_TRUE(read["nothing"].IsNull());
  EXPECT_EQ(read["empty"].size(), 0u);
  EXPECT_EQ(read["in"]["x"].as<int>(), 3);
}

}  // namespace
}  // namespace vicreg::cli
