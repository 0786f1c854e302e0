// Jobs whose views differ in more than their draws: what each reads, which network it passes and how it is weighed.

#include <set>

#include "common/recipe/resolver.h"

namespace vicreg::recipe {

ViewKeys KeysOfBranch(int i) {
  const std::string branch = "branches[" + std::to_string(i) + "].";
  return {branch + "encoder", branch + "expander", branch + "augmentation", branch + "channels", branch + "part"};
}

bool Resolver::BranchesHaveWeights() const {
  for (const v1::BranchSpec& branch : given_.branches()) {
    if (branch.has_mu() || branch.has_nu()) return true;
  }
  return false;
}

void Resolver::FillBranches() {
  for (int i = 0; i < s().branches_size(); ++i) {
    v1::BranchSpec& branch = *s().mutable_branches(i);
    const ViewKeys keys = KeysOfBranch(i);
    if (branch.weights() == v1::BRANCH_WEIGHTS_UNSPECIFIED) branch.set_weights(v1::BRANCH_WEIGHTS_OWN);
    if (branch.part().empty() && !Written(keys.part))
      branch.set_part(s().data().format() == v1::DATA_FORMAT_IDX ? "image" : branch.name());
    if (branch.weights() == v1::BRANCH_WEIGHTS_SHARED) {
      // It reads what the first's network reads.
      v1::AugmentationSpec views = s().branches(0).augmentation();
      views.MergeFrom(branch.augmentation());
      if (Written(keys.augmentation + ".size")) views.set_size(branch.augmentation().size());
      *branch.mutable_augmentation() = views;
      continue;
    }
    FillView(keys, *branch.mutable_encoder(), *branch.mutable_augmentation());
    const Architecture* found = FindArchitecture(branch.encoder().name());
    const bool vector = found != nullptr && found->input == Input::kVectors;
    if (branch.channels() == 0 && !Written(keys.channels) && !vector) branch.set_channels(1);
  }
}

void Resolver::BranchOfItsOwn(int i, recipe::Branch& branch) {
  const v1::BranchSpec& given = s().branches(i);
  const ViewKeys keys = KeysOfBranch(i);
  if (given.encoder().name().empty()) {
    Bad(keys.encoder + ".name", "missing; expected an encoder, such as resnet18");
  } else {
    Encoder(keys, given.encoder(), given.augmentation().size(), branch.encoder);
  }
  Channels(keys, given.channels(), branch);
  Part(keys, given.part(), branch);
  Augmentation(keys, given.augmentation(), branch);
  branch.expander = Expander(keys, given.expander());
  if (!branch.expander.empty() && branch.expander.back() != EmbeddingWidth() && EmbeddingWidth() != 0) {
    Bad(keys.expander, "ends in a width of " + std::to_string(branch.expander.back()) + "; expected " +
                           std::to_string(EmbeddingWidth()) +
                           ", as the first branch's does: the embeddings of all branches are compared");
  }
}

void Resolver::SharedBranch(int i, recipe::Branch& branch) {
  const v1::BranchSpec& given = s().branches(i);
  const ViewKeys keys = KeysOfBranch(i);
  const recipe::Branch& first = out.recipe.branches.front();
  const auto refuse = [&](bool has, const std::string& field) {
    if (has) Bad(field, "stands beside weights: shared, and the network is the first branch's: remove the key");
  };
  refuse(given.has_encoder(), keys.encoder);
  refuse(given.expander_size() > 0, keys.expander);
  refuse(given.channels() != 0 || Written(keys.channels), keys.channels);
  branch.shared = true;
  branch.encoder = first.encoder;
  branch.expander = first.expander;
  branch.channels = first.channels;
  Part(keys, given.part(), branch);
  Augmentation(keys, given.augmentation(), branch);
  if (branch.augmentation.size != first.augmentation.size) {
    Bad(keys.augmentation + ".size", "found " + std::to_string(branch.augmentation.size) + "; expected " +
                                         std::to_string(first.augmentation.size) +
                                         ", as the first branch has, whose network both pass");
  }
}

void Resolver::Branches() {
  // Said beside branches, these would be obeyed by nobody.
  const auto refuse = [&](bool has, const std::string& field) {
    if (has) Bad(field, "stands beside branches, which have their own: remove the key");
  };
  refuse(given_.has_encoder(), "encoder");
  refuse(given_.expander_size() > 0 || Written("expander"), "expander");
  refuse(given_.has_augmentation(), "augmentation");
  refuse(given_.data().channels() != 0 || Written("data.channels"), "data.channels");
  refuse(!given_.data().part().empty() || Written("data.part"), "data.part");
  if (given_.views() != 0 || Written("views"))
    Bad("views", "stands beside branches, each of which is one view: remove the key");
  std::set<std::string> names;
  for (int i = 0; i < s().branches_size(); ++i) {
    const v1::BranchSpec& given = s().branches(i);
    const std::string field = "branches[" + std::to_string(i) + "]";
    CheckName(field + ".name", given.name());
    if (!names.insert(given.name()).second)
      Bad(field + ".name", "found \"" + given.name().substr(0, 80) + "\" twice; expected a name of its own");
    recipe::Branch branch;
    branch.name = given.name();
    if (given.weights() != v1::BRANCH_WEIGHTS_SHARED) {
      BranchOfItsOwn(i, branch);
    } else if (i == 0) {
      Bad(field + ".weights", "found shared; expected own: the first branch's network is what others share");
    } else {
      SharedBranch(i, branch);
    }
    out.recipe.branches.push_back(branch);
  }
}

}  // namespace vicreg::recipe
