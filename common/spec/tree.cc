#include "common/spec/tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <sstream>

namespace vicreg::spec {
namespace {

constexpr std::size_t kMaxText = 256UL * 1024;
constexpr std::size_t kMaxString = 4096;
constexpr std::size_t kMaxItems = 10'000;
constexpr std::size_t kMaxDepth = 16;

// Length of the UTF-8 character that `text` begins with; 0: none. Overlong forms and surrogates are none.
std::size_t CharacterSize(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t size = first >= 0xc2 && first < 0xe0   ? 2
                           : first >= 0xe0 && first < 0xf0 ? 3
                           : first >= 0xf0 && first < 0xf5 ? 4
                                                           : 0;
  if (size == 0 || text.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xbf) return 0;
  }
  const bool fine = !(first == 0xe0 && byte(1) < 0xa0) && !(first == 0xed && byte(1) > 0x9f) &&
                    !(first == 0xf0 && byte(1) < 0x90) && !(first == 0xf4 && byte(1) > 0x8f);
  return fine ? size : 0;
}

// The first byte that no job file holds. yaml-cpp takes byte 4 for the end of the file, so what stands behind it would
// be dropped without a word, and it passes on bytes that are not UTF-8, which no message can carry.
std::optional<Problem> BadByte(std::string_view text) {
  Mark mark{1, 1};
  while (!text.empty()) {
    const unsigned char c = static_cast<unsigned char>(text[0]);
    if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f)
      return Problem{mark, "", "the file holds a control character: remove it"};
    const std::size_t size = CharacterSize(text);
    if (size == 0) return Problem{mark, "", "the text is not UTF-8: save the file in that encoding"};
    mark = c == '\n' ? Mark{mark.line + 1, 1} : Mark{mark.line, mark.column + 1};
    text.remove_prefix(size);
  }
  return std::nullopt;
}

// Builds the tree from the parser's events. What is refused is still consumed, so that later problems are found too.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::vector<Problem>& problems) : problems_(problems) {}

  TreeNode Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Add(Make(TreeNode::Kind::kNull, mark, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Complain(mark, "found a YAML alias (*name); aliases are not allowed: write the value out");
    Add(Make(TreeNode::Kind::kNull, mark, "", 0));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    TreeNode node = Make(TreeNode::Kind::kScalar, mark, tag, anchor);
    node.scalar = value;
    node.quoted = tag == "!";
    if (!node.quoted && (value == "~" || value == "null" || value.empty())) node.kind = TreeNode::Kind::kNull;
    if (value.size() > kMaxString) {
      Complain(mark, "string of " + std::to_string(value.size()) + " bytes; the limit is 4096: shorten it");
    }
    if (std::any_of(value.begin(), value.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
      Complain(mark, "string holds a control character: remove it");
    }
    Add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(Make(TreeNode::Kind::kSequence, mark, tag, anchor));
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(Make(TreeNode::Kind::kMap, mark, tag, anchor));
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    TreeNode node;
    std::vector<TreeNode> key;  // 0 or 1: a key waiting for its value
  };

  TreeNode Make(TreeNode::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) Complain(mark, "found a YAML anchor (&name); aliases are not allowed: remove it");
    if (!tag.empty() && tag != "?" && tag != "!")
      Complain(mark, "found the YAML tag " + tag + "; tags are not allowed: remove it");
    TreeNode node;
    node.kind = kind;
    node.mark = {mark.line + 1, mark.column + 1};
    return node;
  }

  void Open(TreeNode node) {
    if (levels_.size() == kMaxDepth) {
      problems_.push_back({node.mark, "", "nested deeper than 16 levels: flatten it"});
    }
    levels_.push_back({std::move(node), {}});
  }

  void Close() {
    TreeNode node = std::move(levels_.back().node);
    levels_.pop_back();
    Add(std::move(node));
  }

  void Add(TreeNode node) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == TreeNode::Kind::kSequence) {
      if (level.node.items.size() == kMaxItems)
        problems_.push_back({node.mark, "", "more than 10000 items: shorten the list"});
      if (level.node.items.size() <= kMaxItems) level.node.items.push_back(std::move(node));
    } else if (level.key.empty()) {
      level.key.push_back(std::move(node));
    } else {
      level.node.entries.push_back({std::move(level.key[0]), std::move(node)});
      level.key.clear();
    }
  }

  void Complain(const YAML::Mark& mark, const std::string& text) {
    problems_.push_back({{mark.line + 1, mark.column + 1}, "", text});
  }

  std::vector<Problem>& problems_;
  std::vector<Level> levels_;
  TreeNode root_;
};

}  // namespace

TreeNode ReadTree(std::string_view text, std::vector<Problem>& problems) {
  if (text.size() > kMaxText) {
    problems.push_back(
        {{1, 1},
         "",
         "the job file is " + std::to_string(text.size() / 1024) + " KiB; the limit is 256 KiB: shorten it"});
    return {};
  }
  if (auto bad = BadByte(text)) {
    problems.push_back(*std::move(bad));
    return {};
  }
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder(problems);
    if (!parser.HandleNextDocument(builder)) {
      problems.push_back({{1, 1}, "", "the file is empty; expected a job"});
      return {};
    }
    TreeNode root = builder.Take();
    Builder second(problems);
    if (parser.HandleNextDocument(second)) {
      problems.push_back({second.Take().mark, "", "a second YAML document; expected one job per file: split it"});
    }
    return root;
  } catch (const YAML::Exception& error) {
    problems.push_back({{error.mark.line + 1, error.mark.column + 1}, "", "not YAML: " + error.msg});
    return {};
  }
}

std::string Nearest(std::string_view word, const std::vector<std::string>& names) {
  std::string best;
  std::size_t best_distance = 3;
  for (const std::string& name : names) {
    // Levenshtein, one row at a time.
    std::vector<std::size_t> row(name.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j <= name.size(); ++j) {
        const std::size_t above = row[j];
        row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (word[i - 1] == name[j - 1] ? 0 : 1)});
        diagonal = above;
      }
    }
    if (row[name.size()] < best_distance && row[name.size()] < name.size()) {
      best_distance = row[name.size()];
      best = name;
    }
  }
  return best;
}

}  // namespace vicreg::spec
