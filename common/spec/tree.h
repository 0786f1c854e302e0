#pragma once

// A YAML (hence also JSON) document as a tree that remembers where everything stood, and the problems found while
// reading it.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace vicreg::spec {

// 1-based.
struct Mark {
  int line = 0;
  int column = 0;
};

// One thing wrong. `field` is the dotted path, empty for the document as a whole.
struct Problem {
  Mark mark;
  std::string field;
  std::string text;  // what was found, what was expected, what to do
};

struct TreeEntry;

struct TreeNode {
  enum class Kind { kNull, kScalar, kSequence, kMap } kind = Kind::kNull;
  Mark mark;
  std::string scalar;
  bool quoted = false;
  std::vector<TreeNode> items;
  std::vector<TreeEntry> entries;  // in file order
};

struct TreeEntry {
  TreeNode key, value;
};

// Reads one document. Anchors, aliases, tags, several documents, nesting over 16, more than 10,000 items, strings over
// 4 KiB, control characters, bytes that are not UTF-8 and texts over 256 KiB are problems. Duplicate keys are reported
// too; the first one counts.
TreeNode ReadTree(std::string_view text, std::vector<Problem>& problems);

// Closest of `names` to `word` when it is likely a slip of the pen (edit distance <= 2), else "".
std::string Nearest(std::string_view word, const std::vector<std::string>& names);

}  // namespace vicreg::spec
