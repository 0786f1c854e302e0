// Goal: a job says which part of a sample each view reads, which network it passes and how it is weighed; what it says
// is what the recipe holds, and every mistake in that is named at once, where it stands. Method: one valid job of an
// image, a waveform and a vector and overrides of single keys; weights, shapes and parameter counts by hand.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/recipe/explain.h"
#include "common/recipe/networks.h"
#include "common/recipe/recipe_json.h"
#include "tests/common/jobs.h"

namespace vicreg::recipe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kBranches[] = R"(
name: job
data: {root: sets, format: npy}
branches:
  - {name: photo, part: image, encoder: {name: tiny}, expander: [64, 32], augmentation: {size: 28}}
  - {name: sound, encoder: {name: resnet1d18}, expander: [32], channels: 2, augmentation: {size: 100}}
  - {name: facts, encoder: {name: mlp, width: 16}, expander: [32], channels: 5}
batch_size: 256
length: 100 steps
optimizer: {name: adamw, lr: 1.0e-3}
)";

// Of one network, from .npy.
constexpr char kWave[] = R"(
name: job
data: {root: sets, format: npy}
encoder: {name: resnet1d18}
augmentation: {size: 1000}
expander: [64, 32]
batch_size: 256
length: 100 steps
optimizer: {name: adamw, lr: 1.0e-3}
)";

TEST(Branches, AreInTheRecipeAsTheyAreGiven) {
  const Recipe r = Must(kBranches).recipe;
  ASSERT_EQ(r.branches.size(), 3u);
  const Branch &photo = r.branches[0], &sound = r.branches[1], &facts = r.branches[2];
  EXPECT_EQ(photo.name, "photo");
  EXPECT_EQ(photo.part, "image");
  EXPECT_EQ(photo.encoder.name, "tiny");
  EXPECT_THAT(photo.expander, ElementsAre(64, 32));
  EXPECT_EQ(photo.augmentation.preset, "cifar");
  EXPECT_THAT(SampleShape(photo), ElementsAre(1, 28, 28));
  EXPECT_EQ(sound.part, "sound") << "the branch's name";
  EXPECT_EQ(sound.encoder.name, "resnet1d18");
  EXPECT_EQ(sound.encoder.width, 48);
  EXPECT_EQ(sound.encoder.stem, Stem::kSmall);
  EXPECT_EQ(sound.augmentation.preset, "wave");
  EXPECT_THAT(SampleShape(sound), ElementsAre(2, 100));
  EXPECT_EQ(facts.encoder.width, 16);
  EXPECT_EQ(facts.augmentation.preset, "vector");
  EXPECT_THAT(SampleShape(facts), ElementsAre(5));
  for (const Branch& branch : r.branches) EXPECT_FALSE(branch.shared);
  EXPECT_EQ(recipe::Views(r).size(), 3u);
  EXPECT_EQ(Networks(r).size(), 3u);
}

TEST(Branches, ShareTheWeightsOfAConvention) {
  for (const Branch& branch : Must(kBranches, {"loss={mu: 30, nu: 3, convention: authors}"}).recipe.branches) {
    EXPECT_DOUBLE_EQ(branch.mu, 10);
    EXPECT_DOUBLE_EQ(branch.nu, 2);
  }
}

TEST(Branches, HaveWeightsOfTheirOwnAsTheyAre) {
  const Sets own = {"branches[0].mu=10",  "branches[0].nu=1", "branches[1].mu=20",
                    "branches[1].nu=0.5", "branches[2].mu=0", "branches[2].nu=0"};
  const Resolved job = Must(kBranches, own);
  EXPECT_EQ(job.recipe.loss.convention, Convention::kPerView);
  EXPECT_EQ(job.recipe.branches[0].mu, 10);
  EXPECT_EQ(job.recipe.branches[1].nu, 0.5);
  EXPECT_EQ(job.recipe.branches[2].mu, 0);
  EXPECT_NE(job.hash, Must(kBranches).hash);
  EXPECT_THAT(ExplainText(job), HasSubstr("branch photo: variance 10, covariance 1; branch sound: variance 20, "
                                          "covariance 0.5; branch facts: variance 0, covariance 0"));
}

TEST(Branches, SharedOnesPassTheFirstsNetwork) {
  const Resolved job = Must(kBranches, {"branches[2]={name: again, part: other, weights: shared}"});
  const Branch& again = job.recipe.branches[2];
  EXPECT_TRUE(again.shared);
  EXPECT_EQ(again.part, "other");
  EXPECT_EQ(again.encoder.name, "tiny");
  EXPECT_EQ(again.augmentation.size, 28) << "the first's";
  EXPECT_EQ(Networks(job.recipe).size(), 2u);
  EXPECT_EQ(EncoderFile(Networks(job.recipe)[1].name), "encoder-sound.safetensors");
  const Resolved plain = Must(kBranches, {"branches[2]={name: again, part: image, weights: shared, augmentation: "
                                          "{preset: none}}"});
  EXPECT_EQ(plain.recipe.branches[2].augmentation.preset, "none");
  EXPECT_EQ(plain.recipe.branches[2].augmentation.size, 28);
}

TEST(Branches, OfOneImageAreAllowedInIdx) {
  const Resolved job = Must(kBranches, {"data.format=idx",
                                        "branches=[{name: a, encoder: {name: tiny}, expander: [8]}, "
                                        "{name: b, encoder: {name: resnet18}, expander: [8]}]"});
  for (const Branch& branch : job.recipe.branches) EXPECT_EQ(branch.part, "image");
}

TEST(Branches, TakeNoNetworkFromThePreset) {
  const Resolved job = Must(std::string("preset: demo-cpu") + kBranches);
  EXPECT_EQ(job.recipe.branches.size(), 3u);
  EXPECT_TRUE(job.recipe.knn.enabled) << "the rest of it";
  const Resolved wave = Must(std::string("preset: demo-cpu") + kWave);
  EXPECT_EQ(wave.recipe.augmentation.preset, "wave");
}

TEST(Branches, ResolvedTwiceAreTheSameAndComeBackFromTheirRecipe) {
  for (const Sets& sets :
       std::vector<Sets>{{},
                         {"branches[2]={name: again, part: image, weights: shared}"},
                         {"loss={objective: byol}",
                          "branches=[{name: a, encoder: {name: tiny}, expander: [8]}, {name: b, part: a, "
                          "encoder: {name: resnet18}, expander: [8]}]"},
                         {"loss.convention=per_view", "branches[0].mu=1", "branches[0].nu=1", "branches[1].mu=1",
                          "branches[1].nu=1", "branches[2].mu=1", "branches[2].nu=0"}}) {
    SCOPED_TRACE(testing::PrintToString(sets));
    const Resolved job = Must(kBranches, sets);
    const auto again = Resolve(job.spec);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->hash, job.hash);
    EXPECT_EQ(again->spec.SerializeAsString(), job.spec.SerializeAsString());
    EXPECT_EQ(Serialize(Deserialize(Serialize(job.recipe))), Serialize(job.recipe));
  }
}

TEST(Branches, NameTheExperimentWithAllThatTheyAre) {
  std::set<std::string> hashes;
  const std::vector<Sets> all = {{},
                                 {"branches[0].name=picture"},
                                 {"branches[0].part=other"},
                                 {"branches[0].encoder={name: resnet18}"},
                                 {"branches[0].expander=[65, 32]"},
                                 {"branches[0].augmentation={size: 27}"},
                                 {"branches[0].augmentation={size: 28, preset: none}"},
                                 {"branches[1].channels=3"},
                                 {"branches[2].encoder.width=17"},
                                 {"branches[2]={name: facts, part: image, weights: shared}"}};
  for (const Sets& sets : all) hashes.insert(Must(kBranches, sets).hash);
  EXPECT_EQ(hashes.size(), all.size());
}

struct Mistake {
  Sets sets;
  std::vector<std::string> problems;  // the beginning of each
};

void ExpectMistakes(const std::string& job, const std::vector<Mistake>& rows) {
  for (const Mistake& row : rows) {
    SCOPED_TRACE(testing::PrintToString(row.sets));
    const auto found = ProblemsOf(job, row.sets);
    ASSERT_EQ(found.size(), row.problems.size()) << testing::PrintToString(found);
    for (const std::string& problem : row.problems) EXPECT_THAT(found, Contains(HasSubstr(": " + problem)));
  }
}

TEST(Branches, MistakesAreNamed) {
  ExpectMistakes(
      kBranches,
      {{{"branches[1].name=photo"}, {"branches[1].name: found \"photo\" twice; expected a name of its own"}},
       {{"branches[1].name=A"}, {"branches[1].name: found \"A\"; expected 1 to 63", "branches[1].part: found \"A\""}},
       {{"branches[1].part=labels"}, {"branches[1].part: found \"labels\"; expected another file's name"}},
       {{"branches[1].expander=[31]"},
        {"branches[1].expander: ends in a width of 31; expected 32, as the first branch's does"}},
       {{"branches[1].expander=[]"}, {"branches[1].expander: missing"}},
       {{"branches[1].encoder={stem: small}"}, {"branches[1].encoder.name: missing; expected an encoder"}},
       {{"branches[1].encoder.name=resnet1d"},
        {"branches[1].encoder.name: unknown name \"resnet1d\"; expected one of tiny, resnet18, resnet34, resnet50, "
         "resnet101, "
         "resnet50x2, vit_ti16, vit_s16, resnet1d18, mlp"}},
       {{"branches[1].augmentation={}"}, {"branches[1].augmentation.size: missing; expected how many values"}},
       {{"branches[1].augmentation.size=7"}, {"branches[1].augmentation.size: found 7; expected 8 to 131072"}},
       {{"branches[1].augmentation.preset=cifar"},
        {"branches[1].augmentation.preset: unknown name \"cifar\"; expected one of wave, none"}},
       {{"branches[1].encoder.stem=standard", "branches[1].augmentation.size=31"},
        {"branches[1].encoder.stem: the standard stem shrinks 31-value views"}},
       {{"branches[2].channels=0"}, {"branches[2].channels: found 0; expected 1 to 262144"}},
       {{"branches[2]={name: facts, encoder: {name: mlp}, expander: [32]}"},
        {"branches[2].channels: missing; expected the number of values of a vector"}},
       {{"branches[2].augmentation={size: 5}"}, {"branches[2].augmentation.size: found 5, and a view of a vector"}},
       {{"branches[2].encoder.width=7"}, {"branches[2].encoder.width: found 7; expected 8 to 8192"}},
       {{"branches[0].weights=shared"}, {"branches[0].weights: found shared; expected own"}},
       {{"branches[2].weights=shared"},
        {"branches[2].encoder: stands beside weights: shared", "branches[2].expander: stands beside",
         "branches[2].channels: stands beside"}},
       {{"branches[2]={name: again, part: image, weights: shared, augmentation: {size: 27}}"},
        {"branches[2].augmentation.size: found 27; expected 28, as the first branch has"}},
       {{"branches=[{name: a, encoder: {name: tiny}, expander: [8]}]"}, {"branches: found 1; expected 2 to 16"}},
       {{"encoder={name: tiny}", "expander=[8]", "views=2", "augmentation={size: 28}", "data.channels=1",
         "data.part=image", "loss.per_view=[]"},
        {"encoder: stands beside branches", "expander: stands beside branches", "views: stands beside branches",
         "augmentation: stands beside branches", "data.channels: stands beside branches",
         "data.part: stands beside branches"}},
       {{"loss.per_view=[{variance: 1, covariance: 1}]"}, {"loss.per_view: stands beside branches, which have mu"}},
       {{"branches[0].mu=1"},
        {"branches[0].nu: missing", "branches[1].mu: missing", "branches[1].nu: missing", "branches[2].mu: missing",
         "branches[2].nu: missing"}},
       {{"loss={convention: paper}", "branches[0].mu=1"}, {"loss.convention: weighs all views alike"}},
       {{"loss={objective: barlow_twins}"}, {"branches: found 3; expected 2, for which alone barlow_twins"}},
       {{"loss={objective: simsiam}",
         "branches=[{name: a, mu: 1, encoder: {name: tiny}, expander: [8]}, {name: b, "
         "nu: 1, encoder: {name: tiny}, expander: [8]}]"},
        {"branches[0].mu: simsiam has no such coefficient", "branches[1].nu: simsiam has no such coefficient"}},
       {{"data.format=idx"},
        {"branches[1].encoder.name: resnet1d18 reads waveforms, idx holds images",
         "branches[2].encoder.name: mlp reads vectors, idx holds images"}},
       {{"accumulate=2"}, {"accumulate: found 2 parts with batch norm in the expander"}}});
  // In a file, each stands where it is.
  EXPECT_THAT(ProblemsOf(std::string(kBranches) + "encoder: {name: tiny}\n"),
              ElementsAre(StartsWith("job:11:10: encoder: stands beside branches")));
  EXPECT_THAT(ProblemsOf(kBranches, {"branches[1].encoder.width=3"}),
              ElementsAre("job: branches[1].encoder.width: found 3; expected 8 to 512"));
}

TEST(Npy, OneNetworkReadsOnePart) {
  const Recipe wave = Must(kWave).recipe;
  EXPECT_EQ(wave.data.format, DataFormat::kNpy);
  EXPECT_EQ(wave.data.part, "wave") << "what the encoder reads";
  EXPECT_EQ(wave.data.channels, 1);
  EXPECT_EQ(wave.encoder.stem, Stem::kStandard) << "of so many values";
  EXPECT_THAT(SampleShape(recipe::Views(wave)[0]), ElementsAre(1, 1000));
  EXPECT_EQ(Must(kWave, {"augmentation.size=256"}).recipe.encoder.stem, Stem::kSmall);
  EXPECT_EQ(Must(kWave, {"data.part=ecg", "data.channels=12"}).recipe.data.part, "ecg");
  const Recipe vector = Must(kJob, {"data={root: r, format: npy, channels: 64}", "encoder={name: mlp}"}).recipe;
  EXPECT_EQ(vector.data.part, "vector");
  EXPECT_EQ(vector.encoder.width, 512);
  EXPECT_EQ(vector.augmentation.preset, "vector");
  EXPECT_THAT(SampleShape(recipe::Views(vector)[0]), ElementsAre(64));
  const Recipe image = Must(kJob, {"data={root: r, format: npy, channels: 3}"}).recipe;
  EXPECT_EQ(image.data.part, "image");
  EXPECT_THAT(SampleShape(recipe::Views(image)[0]), ElementsAre(3, 32, 32));
  for (const Recipe& r : {wave, vector, image}) EXPECT_EQ(Serialize(Deserialize(Serialize(r))), Serialize(r));
}

TEST(Npy, MistakesAreNamed) {
  ExpectMistakes(kWave, {{{"data.part=../x"}, {"data.part: found \"../x\"; expected 1 to 63"}},
                         {{"data.channels=1025"}, {"data.channels: found 1025; expected 1 to 1024"}},
                         {{"augmentation.size=262145"}, {"augmentation.size: found 262145; expected 8 to 262144"}},
                         {{"data.format=idx", "encoder={name: tiny}", "augmentation={}", "data.part=wave"},
                          {"data.part: found \"wave\"; expected image, the only part of a sample in idx"}},
                         {{"encoder={name: mlp}", "augmentation={}"}, {"data.channels: missing"}}});
}

TEST(ExplainBranches, SaysWhatEachIs) {
  const Resolved job = Must(kBranches, {"branches[2]={name: again, part: image, weights: shared}"});
  EXPECT_THAT(ExplainText(job),
              AllOf(HasSubstr("3 of each sample, one for each branch, embedding of D = 32"),
                    HasSubstr("branch photo        image (1x28x28, cifar) through tiny, "),
                    HasSubstr("branch again        image (1x28x28, cifar) through the network of photo"),
                    HasSubstr("effective weights   invariance 25; per view: variance 8.33333, covariance 0.666667")));
  const Explanation e = Explain(job);
  ASSERT_EQ(e.networks.size(), 2u);
  // tiny: 9 (24 + 24 48 + 48 96 + 96 192) + 2 (24 + 48 + 96 + 192); expander 192 64 + 64 + 2 64 + 64 32.
  EXPECT_EQ(e.networks[0].encoder_parameters, 9 * (24 + 24 * 48 + 48 * 96 + 96 * 192) + 2 * (24 + 48 + 96 + 192));
  EXPECT_EQ(e.networks[0].expander_parameters, 192 * 64 + 64 + 2 * 64 + 64 * 32);
  EXPECT_EQ(e.networks[1].expander_parameters, 384 * 32);
  EXPECT_EQ(e.encoder_parameters, e.networks[0].encoder_parameters + e.networks[1].encoder_parameters);
  EXPECT_EQ(e.state_bytes, 16 * (e.encoder_parameters + e.expander_parameters)) << "adamw";
  const auto json = ExplainJson(job);
  EXPECT_EQ(json.at("views"), 3);
  EXPECT_EQ(json.at("networks").size(), 2u);
  EXPECT_EQ(json.at("networks")[1].at("branch"), "sound");
  EXPECT_THAT(ExplainText(Must(kJob)), Not(HasSubstr("branch")));
}

}  // namespace
}  // namespace vicreg::recipe
