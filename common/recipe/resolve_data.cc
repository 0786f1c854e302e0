// Which samples are trained on, and how their views are drawn.

#include <algorithm>

#include "common/recipe/resolver.h"

namespace vicreg::recipe {

void Resolver::CheckPath(const std::string& path) {
  if (path.empty()) return;
  bool fine = path.size() <= 512 && path.front() != '/' && path.back() != '/';
  std::size_t start = 0;
  while (fine && start <= path.size()) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string part = path.substr(start, end - start);
    fine = !part.empty() && part != "." && part != ".." &&
           part.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
               std::string::npos;
    start = end + 1;
  }
  if (!fine) {
    Bad("data.path",
        "found \"" + path.substr(0, 80) +
            "\"; expected a relative path of at most 512 bytes, its parts of A-Z a-z 0-9 . _ - and never ..");
  }
}

// A root that no worker offers is a slip of the pen.
void Resolver::CheckOffered(const std::string& root) {
  if (!offered_ || offered_->roots.count(root) != 0) return;
  std::string list;
  for (const std::string& name : offered_->roots) list += (list.empty() ? "" : ", ") + name;
  Bad("data.root", "found \"" + root.substr(0, 80) +
                       "\", which no worker offers; expected one of: " + (list.empty() ? "(none is offered)" : list) +
                       "; or start a worker with --data-root " + root.substr(0, 80) + "=PATH");
}

void Resolver::DataAndViews() {
  const v1::DataSpec& data = s().data();
  if (data.root().empty()) {
    Bad("data.root", "missing; expected the name of a data root a worker offers (--data-root NAME=PATH)");
  } else {
    CheckName("data.root", data.root());
    CheckOffered(data.root());
  }
  CheckPath(data.path());
  Range<std::int64_t>("data.limit", data.limit(), 0, std::int64_t{1} << 40);
  if (data.channels() != 1)
    Bad("data.channels", "found " + std::to_string(data.channels()) + "; expected 1: format idx holds grey images");
  if (data.limit() > 0 && data.limit() < s().batch_size()) {
    Bad("data.limit", "found " + std::to_string(data.limit()) + " samples for a batch of " +
                          std::to_string(s().batch_size()) +
                          "; expected at least one whole batch: raise it or lower batch_size");
  }
  const v1::AugmentationSpec& views = s().augmentation();
  static const std::vector<std::string> kViews = {"cifar", "none"};
  if (std::find(kViews.begin(), kViews.end(), views.preset()) == kViews.end())
    Bad("augmentation.preset", Suggest(views.preset(), kViews));
  Range("augmentation.size", views.size(), 8, 512);
  out.recipe.data = {data.root(), data.path(), data.split() == v1::DATA_SPLIT_TRAIN ? "train" : "test", data.limit(),
                     data.channels()};
  out.recipe.augmentation = {views.preset(), views.size()};
}

}  // namespace vicreg::recipe
