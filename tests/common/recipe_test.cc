// Goal: every job that is accepted can be run as it was meant, every limit holds exactly at its border, and the hash
// names the experiment: what changes the trained weights changes it, what does not leaves it alone. Method: one valid
// job and overrides of single keys; borders from both sides; numbers computed by hand.

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <stdexcept>
#include <tuple>

#include "common/recipe/explain.h"
#include "common/recipe/recipe_json.h"
#include "common/recipe/resolve.h"
#include "tests/common/jobs.h"

namespace vicreg::recipe {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

std::string Repeat(const std::string& part, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += part;
  return text;
}

TEST(Preset, FillsEveryKeyThatTheFileLeavesOut) {
  const Recipe r = Must("{name: demo, preset: demo-cpu, data: {root: fashion-mnist}}").recipe;
  EXPECT_EQ(r.encoder.name, "tiny");
  EXPECT_THAT(r.expander, ElementsAre(1024, 1024, 1024));
  EXPECT_EQ(r.batch_size, 256);
  EXPECT_EQ(r.length.steps, 300);
  EXPECT_EQ(r.optimizer.kind, OptimizerKind::kAdamW);
  EXPECT_EQ(r.optimizer.peak_lr, 1e-3);
  EXPECT_EQ(r.optimizer.weight_decay, 1e-4);
  EXPECT_EQ(r.schedule.warmup.steps, 30);
  EXPECT_EQ(r.augmentation.preset, "cifar");
  EXPECT_EQ(r.augmentation.size, 28);
  EXPECT_EQ(r.checkpoint_every.steps, 100);
  EXPECT_TRUE(r.knn.enabled);
  EXPECT_EQ(r.knn.every.steps, 100);
  EXPECT_EQ(r.knn.k, 20);
  EXPECT_EQ(r.knn.temperature, 0.07);
}

TEST(Preset, KeysOfTheFileWin) {
  const std::string preset = "{name: demo, preset: demo-cpu, data: {root: r}}";
  EXPECT_THAT(Must(preset, {"expander=[8]"}).recipe.expander, ElementsAre(8))
      << "a list replaces, it is not appended to";
  EXPECT_EQ(Must(preset, {"optimizer.lr=0.5"}).recipe.optimizer.peak_lr, 0.5);
  EXPECT_EQ(Must(preset, {"loss.mu=0"}).recipe.loss.mu_per_view, 0);
  EXPECT_EQ(Must(preset, {"length=2 epochs"}).recipe.length.epochs, 2);
  EXPECT_EQ(Must(preset, {"length=2 epochs"}).recipe.length.steps, 0);
  EXPECT_EQ(Must(preset, {"checkpoint.every=2 epochs"}).recipe.checkpoint_every.epochs, 2);
  EXPECT_EQ(Must(preset, {"evaluation.knn.every=2 epochs"}).recipe.knn.every.epochs, 2);
  EXPECT_EQ(Must(preset, {"evaluation.knn.every=2 epochs"}).recipe.knn.k, 20);
}

TEST(Preset, AnotherOptimizerInheritsNoRate) {
  for (const std::string name : {"larc", "sgd"}) {
    EXPECT_THAT(ProblemsOf("{name: demo, preset: demo-cpu, data: {root: r}, optimizer: {name: " + name + "}}"),
                ElementsAre(HasSubstr("optimizer.base_lr: missing; " + name + " needs it")));
  }
}

TEST(Defaults, AreTheDocumentedOnes) {
  const Resolved got = Must(kJob);
  const char* want = R"(
name: job
project: default
queue: default
seed: 1
world_size: 1
placement: {topology: node}
device: cpu
data: {root: images, format: idx, split: train, channels: 1, part: image}
encoder: {name: tiny}
expander: [64, 32]
expander_norm: batch_norm
embedding_norm: raw
loss: {objective: vicreg, convention: authors, lambda: 25, mu: 25, nu: 1, form: auto}
batch_size: 256
length: {steps: 100}
optimizer: {name: adamw, lr: 1.0e-3, weight_decay: 1.0e-4}
schedule: {warmup: 10 steps, final: 0}
augmentation: {preset: cifar, size: 32}
precision: fp32
accumulate: 1
views: 2
checkpoint: {every: 100 steps, keep: 3}
restart: {charges: 3}
)";
  MessageDifferencer differencer;
  std::string difference;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(spec::ParseJobWithMarks(want).spec, got.spec)) << difference;
  EXPECT_FALSE(got.recipe.knn.enabled);
  EXPECT_EQ(Must(kJob, {"length=30 epochs"}).recipe.schedule.warmup.epochs, 3);
  EXPECT_EQ(Must(kJob, {"evaluation.knn.k=3"}).recipe.knn.every.epochs, 1);
  const Resolved resnet = Must(kJob, {"encoder={name: resnet18}", "optimizer={name: lars, base_lr: 0.2}"});
  EXPECT_EQ(resnet.recipe.encoder.stem, Stem::kSmall);
  EXPECT_EQ(resnet.recipe.encoder.width, 64);
  EXPECT_TRUE(resnet.recipe.encoder.zero_init_residual);
  EXPECT_EQ(resnet.recipe.optimizer.weight_decay, 1e-6);
  EXPECT_EQ(Must(kJob, {"encoder={name: resnet50}", "augmentation.size=64"}).recipe.encoder.stem, Stem::kSmall);
  EXPECT_EQ(Must(kJob, {"encoder={name: resnet50}", "augmentation.size=65"}).recipe.encoder.stem, Stem::kStandard);
  const Recipe larc = Must(kJob, {"optimizer={name: larc, base_lr: 0.3}"}).recipe;
  EXPECT_EQ(larc.optimizer.kind, OptimizerKind::kLarc);
  EXPECT_EQ(larc.optimizer.weight_decay, 1e-4);
  EXPECT_EQ(larc.optimizer.eta, 0.02);
  EXPECT_TRUE(larc.optimizer.clip);
  const Recipe sgd = Must(kJob, {"optimizer={name: sgd, base_lr: 0.05}"}).recipe;
  EXPECT_EQ(sgd.optimizer.kind, OptimizerKind::kSgd);
  EXPECT_EQ(sgd.optimizer.weight_decay, 1e-4);
}

TEST(Offers, AreCheckedWhereTheyAreKnown) {
  const auto problems = [](const Sets& sets, const Offered& offered) {
    return std::string(ResolveText(kJob, "job", sets, offered).status().message());
  };
  const Sets gpu = {"device=gpu", "data.root=elsewhere"};
  EXPECT_EQ(problems(gpu, std::nullopt), "");
  EXPECT_EQ(problems(gpu, Offers{{"elsewhere"}, true}), "");
  EXPECT_EQ(problems({"device=cpu", "data.root=elsewhere"}, Offers{{"elsewhere"}, false}), "");
  const std::string both = problems(gpu, Offers{{"images"}, false});
  EXPECT_THAT(both,
              HasSubstr("device: found gpu, and no worker offers GPU slots: write device: cpu, or start a worker"));
  EXPECT_THAT(both, HasSubstr("data.root: found \"elsewhere\", which no worker offers; expected one of: images"));
  const Sets label = {"placement.labels=[rack=r2]"};
  EXPECT_EQ(problems(label, Offers{{"images"}, false, {"rack=r1", "rack=r2"}}), "");
  EXPECT_THAT(problems(label, Offers{{"images"}, false, {"rack=r1"}}),
              HasSubstr("placement.labels: found rack=r2, which no worker has; there are: rack=r1"));
}

TEST(Limits, HoldExactlyAtTheirBorders) {
  const std::string a63(63, 'a'), a64(64, 'a'), a512(512, 'a'), a513(513, 'a');
  const Sets bad_names = {"", "a b", "A", "a_b", "a/b", "\xc3\xa4", a64};
  struct Row {
    const char* field;
    Sets with;  // overrides that make the border reachable
    Sets good, bad;
  };
  std::vector<Row> rows = {
      {"priority", {}, {"-1000", "0", "1000"}, {"-1001", "1001"}},
      {"preset", {}, {"demo-cpu", "\"\""}, {"demo", "demo-gpu"}},
      {"seed", {}, {"0", "18446744073709551615"}, {"-1", "18446744073709551616"}},
      {"world_size", {"batch_size=8192"}, {"1", "4096"}, {"-1", "0", "4097"}},
      {"world_size", {"batch_size=3"}, {"3"}, {"4"}},
      {"world_size", {}, {"{min: 2, max: 2}", "{min: 1, max: 256}"}, {"{min: 2, max: 1}", "{min: 2}", "{max: 2}"}},
      {"world_size", {"batch_size=3"}, {"{min: 1, max: 3}"}, {"{min: 1, max: 4}"}},
      {"placement.labels",
       {},
       {"[]", "[a=b]", "[\"A.b_c-9=" + a63 + "\", c=d]"},
       {"[a]", "[a=]", "[=b]", "[a=b=c]", "[\"a b=c\"]", "[\"a=" + a64 + "\"]",
        "[a=1, a=2, a=3, a=4, a=5, a=6, a=7, a=8, a=9, a=10, a=11, a=12, a=13, a=14, a=15, a=16, a=17]"}},
      {"placement.topology", {}, {"any", "rack", "node"}, {"zone"}},
      {"device", {}, {"cpu", "gpu"}, {"tpu"}},
      {"data.path",
       {},
       {"a", "a/b.c/D_e-9", "..a", a512},
       {"/a", "a/", "a//b", ".", "..", "a/../b", "a/..", "a b", "a\\b", a513}},
      {"data.limit", {}, {"0", "256", "1099511627776"}, {"-1", "255", "1099511627777"}},
      {"data.channels", {}, {"1"}, {"0", "2", "3", "-1"}},
      {"encoder.name",
       {},
       {"tiny", "resnet18", "resnet34", "resnet50", "resnet101", "resnet50x2", "vit_ti16", "vit_s16"},
       {"resnet152", "Tiny", "resnet1d18", "mlp"}},
      {"encoder.width", {"encoder.name=resnet18"}, {"8", "512"}, {"-8", "0", "7", "513"}},
      {"encoder.width", {"encoder.name=resnet50"}, {"8", "512"}, {"7", "513"}},
      {"encoder.width", {"encoder.name=resnet50x2"}, {}, {"0", "64", "128"}},
      {"encoder.width", {"encoder.name=vit_s16"}, {}, {"0", "384"}},
      {"encoder.zero_init_residual", {"encoder.name=resnet34"}, {"true", "false"}, {"0", "no"}},
      {"encoder.zero_init_residual", {}, {}, {"true", "false"}},
      {"encoder.zero_init_residual", {"encoder.name=vit_ti16"}, {}, {"true", "false"}},
      {"encoder.width", {}, {}, {"0", "64"}},
      {"encoder.stem", {"encoder.name=resnet18", "augmentation.size=32"}, {"small", "standard"}, {"large"}},
      {"encoder.stem", {"encoder.name=resnet18", "augmentation.size=31"}, {"small", "small_padding2"}, {"standard"}},
      {"encoder.stem", {"encoder.name=resnet101", "augmentation.size=64"}, {"small", "small_padding2", "standard"}, {}},
      {"encoder.stem", {"encoder.name=resnet101", "augmentation.size=65"}, {"standard"}, {"small", "small_padding2"}},
      {"encoder.stem", {}, {}, {"small", "standard"}},
      {"encoder.stem", {"encoder.name=vit_s16"}, {}, {"small", "standard"}},
      {"expander_norm", {}, {"batch_norm", "none"}, {"layer_norm"}},
      {"embedding_norm", {}, {"raw", "l2", "std"}, {"l1"}},
      {"expander", {}, {"[1]", "[" + Repeat("8,", 15) + "8]"}, {"[]", "[" + Repeat("8,", 16) + "8]"}},
      {"loss.lambda", {}, {"0", "1e12"}, {"-1e-9", "1.01e12"}},
      {"loss.mu", {}, {"0", "1e12"}, {"-1e-9", "1.01e12"}},
      {"loss.nu", {}, {"0", "1e12"}, {"-1e-9", "1.01e12"}},
      {"views", {}, {"2", "3", "16"}, {"-2", "0", "1", "17"}},
      {"batch_size", {}, {"2", "1048576"}, {"-2", "0", "1", "1048577"}},
      {"length", {}, {"1 steps", "1099511627776 steps"}, {"-1 steps", "0 steps", "1099511627777 steps"}},
      {"length", {}, {"0.001 epochs", "1000000 epochs"}, {"-1 epochs", "0 epochs", "1000001 epochs", "1e300 epochs"}},
      {"optimizer.name", {}, {"adamw"}, {"adam", "rmsprop"}},
      {"optimizer.name", {"optimizer={base_lr: 1}"}, {"lars", "larc", "sgd"}, {"sdg"}},
      {"optimizer.eta", {"optimizer={name: larc, base_lr: 1}"}, {"1e-300", "1e12"}, {"-1", "0", "1.01e12"}},
      {"optimizer.eta", {}, {}, {"0.02"}},
      {"optimizer.eta", {"optimizer={name: lars}"}, {}, {"0.001"}},
      {"optimizer.clip", {"optimizer={name: larc, base_lr: 1}"}, {"true", "false"}, {"1"}},
      {"optimizer.clip", {"optimizer={name: sgd, base_lr: 1}"}, {}, {"true", "false"}},
      {"optimizer.lr", {"optimizer={name: sgd, base_lr: 1}"}, {}, {"0.1"}},
      {"optimizer.lr", {}, {"1e-300", "1e12"}, {"-1", "0", "1.01e12"}},
      {"optimizer.lr", {"optimizer={name: lars, base_lr: 1}"}, {}, {"0.1"}},
      {"optimizer.base_lr", {"optimizer={name: lars}"}, {"1e-300", "1e12"}, {"-1", "0", "1.01e12"}},
      {"optimizer.base_lr", {}, {}, {"0.1"}},
      {"optimizer.weight_decay", {}, {"0", "1e12"}, {"-1e-9", "1.01e12"}},
      {"schedule.warmup", {}, {"0 steps", "100 steps", "1 epoch"}, {"-1 steps", "101 steps", "0 epochs"}},
      {"schedule.warmup", {"length=10 epochs"}, {"10 epochs", "1000 steps"}, {"-1 epochs", "10.5 epochs"}},
      {"schedule.final", {}, {"0", "1"}, {"-0.001", "1.001"}},
      {"augmentation.preset", {}, {"cifar", "none"}, {"imagenet"}},
      {"augmentation.size", {}, {"8", "512"}, {"-8", "0", "7", "513"}},
      {"augmentation.size", {"encoder.name=vit_ti16"}, {"16", "32", "512"}, {"8", "15", "28", "33", "0", "513"}},
      {"checkpoint.every", {}, {"1 step", "0.5 epochs"}, {"-1 steps", "0 steps", "0 epochs"}},
      {"checkpoint.keep", {}, {"2", "1000"}, {"-1", "0", "1", "1001"}},
      {"evaluation.knn.every", {}, {"1 step", "0.5 epochs"}, {"-1 steps", "0 steps", "0 epochs"}},
      {"evaluation.knn.k", {}, {"1", "1000"}, {"-1", "0", "1001"}},
      {"evaluation.knn.temperature", {}, {"1e-9", "1e12"}, {"-1", "0", "1.01e12"}},
      {"restart.charges", {}, {"0", "100"}, {"-1", "101"}},
      {"deadline", {}, {"60s", "1m", "365d"}, {"59s", "0h", "366d", "12", "soon", "1.5h"}},
  };
  for (const char* field : {"name", "project", "queue", "data.root"})
    rows.push_back({field, {}, {"a", "9-z", a63}, bad_names});
  for (const Row& r : rows) {
    for (const std::string& value : r.good) {
      Sets sets = r.with;
      sets.push_back(std::string(r.field) + "=" + value);
      EXPECT_THAT(ProblemsOf(kJob, sets), IsEmpty()) << sets.back();
    }
    for (const std::string& value : r.bad) {
      Sets sets = r.with;
      sets.push_back(std::string(r.field) + "=" + value);
      const auto problems = ProblemsOf(kJob, sets);
      EXPECT_THAT(problems, ElementsAre(StartsWith("job: " + std::string(r.field) + ": "))) << sets.back();
    }
  }
}

TEST(Limits, HoldForEachLayerOfTheExpander) {
  EXPECT_THAT(ProblemsOf(kJob, {"expander=[1, 65536]"}), IsEmpty());
  EXPECT_THAT(ProblemsOf(kJob, {"expander=[0, 8, 65537]"}),
              ElementsAre(StartsWith("job: expander[0]: found 0; expected 1 to 65536"),
                          StartsWith("job: expander[2]: found 65537")));
}

TEST(Limits, ZeroInTheFileIsNotTakenForAbsentEvenUnderAPreset) {
  const std::string preset = "{name: demo, preset: demo-cpu, data: {root: r}}";
  for (const std::string field :
       {"views", "batch_size", "augmentation.size", "checkpoint.keep", "evaluation.knn.k", "data.channels"}) {
    EXPECT_THAT(ProblemsOf(preset, {field + "=0"}), ElementsAre(StartsWith("job: " + field + ": found 0"))) << field;
  }
  EXPECT_THAT(ProblemsOf(preset, {"expander=[]"}), ElementsAre(StartsWith("job: expander: missing")));
}

TEST(Missing, KeysWithoutDefaultAreAskedFor) {
  EXPECT_THAT(
      ProblemsOf("{project: p}"),
      testing::UnorderedElementsAre(StartsWith("job: name: "), StartsWith("job: batch_size: found 0"),
                                    StartsWith("job: data.root: missing"), StartsWith("job: expander: missing"),
                                    StartsWith("job: length: missing"), StartsWith("job: optimizer.name: missing")));
  EXPECT_THAT(ProblemsOf(kJob, {"optimizer={name: adamw}"}), ElementsAre(StartsWith("job: optimizer.lr: missing")));
}

TEST(Problems, AreAllNamedAtOnceWithTheirPlaces) {
  const std::string text =
      "name: My Job\n"
      "data: {root: images, limt: 3}\n"
      "encoder:\n"
      "  name: tinny\n"
      "expander: [64, 0]\n"
      "batch_size: lots\n"
      "length: 0 steps\n"
      "optimizer: {name: lars}\n"
      "checkpoint:\n"
      "  keep: 1\n";
  EXPECT_THAT(
      ProblemsOf(text),
      ElementsAre(StartsWith("job:1:7: name: found \"My Job\""), StartsWith("job:2:22: data.limt: unknown key"),
                  HasSubstr("job:4:9: encoder.name: unknown name \"tinny\"; expected one of tiny, resnet18, resnet34, "
                            "resnet50, resnet101, resnet50x2, vit_ti16, "
                            "vit_s16; did you mean \"tiny\"?"),
                  StartsWith("job:5:16: expander[1]: found 0"), StartsWith("job:6:13: batch_size: found \"lots\""),
                  StartsWith("job:7:9: length: found 0"), StartsWith("job:8:12: optimizer.base_lr: missing"),
                  StartsWith("job:10:9: checkpoint.keep: found 1")));
}

TEST(Problems, OfAFileThatCannotBeReadAreNotFollowedByMissingKeys) {
  EXPECT_THAT(ProblemsOf("name: [\n"), SizeIs(1));
  EXPECT_THAT(ProblemsOf("just words"), SizeIs(1));
}

v1::JobSpec Spec() { return spec::ParseJobWithMarks(kJob).spec; }

TEST(Message, WithWhatThisBuildDoesNotKnowIsRefused) {
  ASSERT_TRUE(Resolve(Spec()).ok());
  v1::JobSpec newer = Spec();
  newer.mutable_loss()->set_convention(static_cast<v1::Convention>(99));
  newer.set_device(static_cast<v1::Device>(7));
  EXPECT_THAT(Lines(Resolve(newer).status()),
              ElementsAre(StartsWith("device: found value 7, which this build does not know"),
                          StartsWith("loss.convention: found value 99, which this build does not know")));
  v1::JobSpec extended = Spec();
  extended.mutable_optimizer()->GetReflection()->MutableUnknownFields(extended.mutable_optimizer())->AddVarint(1000, 1);
  EXPECT_THAT(Lines(Resolve(extended).status()), ElementsAre(StartsWith("optimizer: holds field number 1000")));
}

TEST(Message, WithNumbersThatNoFileCanHoldIsRefused) {
  for (const double value :
       {std::nan(""), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
    v1::JobSpec spec = Spec();
    spec.mutable_loss()->set_lambda(value);
    spec.mutable_loss()->set_mu(value);
    spec.mutable_loss()->set_nu(value);
    spec.mutable_length()->set_epochs(value);
    spec.mutable_optimizer()->set_lr(value);
    spec.mutable_optimizer()->set_weight_decay(value);
    spec.mutable_schedule()->set_final(value);
    spec.mutable_evaluation()->mutable_knn()->set_temperature(value);
    EXPECT_THAT(Lines(Resolve(spec).status()),
                testing::UnorderedElementsAre(
                    StartsWith("loss.lambda: "), StartsWith("loss.mu: "), StartsWith("loss.nu: "),
                    StartsWith("length: "), StartsWith("optimizer.lr: "), StartsWith("optimizer.weight_decay: "),
                    StartsWith("schedule.final: "), StartsWith("evaluation.knn.temperature: ")))
        << value;
  }
}

TEST(Message, ResolvedTwiceIsTheSame) {
  for (const Resolved& once :
       {Must(kJob), Must("{name: d, preset: demo-cpu, data: {root: r}, length: 3 epochs, seed: 0}"),
        Must(kJob,
             {"encoder={name: resnet18}", "optimizer={name: lars, base_lr: 0.2}", "loss.nu=0", "evaluation.knn={}"})}) {
    const auto twice = Resolve(once.spec);
    ASSERT_TRUE(twice.ok()) << twice.status();
    EXPECT_TRUE(MessageDifferencer::Equals(twice->spec, once.spec));
    EXPECT_EQ(twice->hash, once.hash);
    EXPECT_EQ(Serialize(twice->recipe), Serialize(once.recipe));
  }
}

TEST(Conventions, GiveTheirWeightsPerView) {
  const struct {
    const char* convention;
    double mu, nu;
  } rows[] = {{"authors", 15, 4}, {"paper", 30, 4}, {"vicregl", 15, 2}};
  for (const auto& r : rows) {
    const Loss loss =
        Must(kJob, {"loss={lambda: 20, mu: 30, nu: 4}", std::string("loss.convention=") + r.convention}).recipe.loss;
    EXPECT_STREQ(Name(loss.convention), r.convention);
    EXPECT_EQ(loss.lambda_, 20) << r.convention;
    EXPECT_EQ(loss.mu_per_view, r.mu) << r.convention;
    EXPECT_EQ(loss.nu_per_view, r.nu) << r.convention;
  }
}

TEST(LearningRate, OfLarsGrowsWithTheBatchAndOfAdamWDoesNot) {
  EXPECT_DOUBLE_EQ(Must(kJob, {"optimizer={name: lars, base_lr: 0.2}", "batch_size=256"}).recipe.optimizer.peak_lr,
                   0.2);
  EXPECT_DOUBLE_EQ(Must(kJob, {"optimizer={name: lars, base_lr: 0.2}", "batch_size=2048"}).recipe.optimizer.peak_lr,
                   1.6);
  EXPECT_DOUBLE_EQ(
      Must(kJob, {"optimizer={name: lars, base_lr: 0.2}", "batch_size=2048", "world_size=8"}).recipe.optimizer.peak_lr,
      1.6);
  EXPECT_DOUBLE_EQ(Must(kJob, {"batch_size=2048"}).recipe.optimizer.peak_lr, 1e-3);
}

// Appendix C.4 and table 13 of the paper (100 epochs), table 1 (1000 epochs).
TEST(LearningRate, OfLarsIsThePapersWhereTheFileGivesNone) {
  const struct {
    const char* batch;
    const char* length;
    double base_lr;  // 0: the key is asked for
  } rows[] = {
      {"128", "100 epochs", 0.8},  {"256", "100 epochs", 0.5},   {"512", "100 epochs", 0.4},
      {"1024", "100 epochs", 0.3}, {"2048", "100 epochs", 0.3},  {"4096", "100 epochs", 0.3},
      {"256", "1000 epochs", 0.5}, {"2048", "1000 epochs", 0.2}, {"2048", "999 epochs", 0.3},
      {"2048", "1000 steps", 0.3}, {"127", "100 epochs", 0},     {"257", "100 epochs", 0},
      {"8192", "100 epochs", 0},
  };
  for (const auto& r : rows) {
    const Sets sets = {"optimizer={name: lars}", std::string("batch_size=") + r.batch,
                       std::string("length=") + r.length};
    SCOPED_TRACE(testing::PrintToString(sets));
    if (r.base_lr == 0) {
      EXPECT_THAT(ProblemsOf(kJob, sets),
                  ElementsAre(HasSubstr("optimizer.base_lr: missing; the paper has rates for batches of 128, 256, "
                                        "512, 1024, 2048 and 4096 alone, found batch_size " +
                                        std::string(r.batch) + ": write base_lr")));
      continue;
    }
    const Resolved job = Must(kJob, sets);
    EXPECT_EQ(job.spec.optimizer().base_lr(), r.base_lr);
    EXPECT_DOUBLE_EQ(job.recipe.optimizer.peak_lr, r.base_lr * std::stoi(r.batch) / 256);
  }
  EXPECT_EQ(Must(kJob, {"optimizer={name: lars, base_lr: 0.1}"}).spec.optimizer().base_lr(), 0.1);
  EXPECT_EQ(Must("{name: d, preset: demo-cpu, data: {root: r}, optimizer: {name: lars}}").spec.optimizer().base_lr(),
            0.5)
      << "the table's, not the preset's";
}

TEST(Encoders, OfWhatTheFormatDoesNotHoldAreRefusedWithTheReason) {
  EXPECT_THAT(ProblemsOf(kJob, {"encoder.name=resnet1d18", "augmentation.size=64"}),
              ElementsAre("job: encoder.name: resnet1d18 reads waveforms, idx holds images; expected an encoder of "
                          "images, such as resnet18, or data.format: npy"));
  EXPECT_THAT(ProblemsOf(kJob, {"encoder.name=mlp"}),
              ElementsAre(StartsWith("job: encoder.name: mlp reads vectors, idx holds images")));
}

TEST(Encoders, AllAreInTheRecipeAsTheyAreNamed) {
  const Encoder wide = Must(kJob, {"encoder={name: resnet50x2, zero_init_residual: false}"}).recipe.encoder;
  EXPECT_EQ(wide.name, "resnet50");
  EXPECT_EQ(wide.width, 128);
  EXPECT_FALSE(wide.zero_init_residual);
  EXPECT_EQ(Must(kJob, {"encoder={name: resnet34, stem: small_padding2}"}).recipe.encoder.stem, Stem::kSmallPadding2);
  EXPECT_EQ(Must(kJob, {"encoder.name=vit_s16"}).recipe.encoder.name, "vit_s16");
}

TEST(InSteps, EpochsAreWholeBatchesOfTheSamples) {
  const struct {
    const char* rule;
    Length length;
    std::int64_t samples, batch, least, want;
  } rows[] = {
      {"steps stay steps", {30, 0}, 1000, 10, 1, 30},
      {"an exact epoch", {0, 1}, 1000, 10, 1, 100},
      {"the short batch is dropped", {0, 1}, 1009, 10, 1, 100},
      {"in every epoch", {0, 3}, 1009, 10, 1, 300},
      {"half an epoch", {0, 0.5}, 1000, 10, 1, 50},
      {"rounded to the nearest step", {0, 0.016}, 1000, 10, 1, 2},
      {"at least what is asked for", {0, 0.001}, 1000, 10, 1, 1},
      {"warm-up may be nothing", {0, 0.001}, 1000, 10, 0, 0},
      {"no steps of warm-up", {0, 0}, 1000, 10, 0, 0},
      {"fewer samples than a batch", {0, 2}, 5, 10, 1, 2},
  };
  for (const auto& r : rows) EXPECT_EQ(InSteps(r.length, r.samples, r.batch, r.least), r.want) << r.rule;
}

TEST(Hash, ChangesWithEveryPartOfTheExperiment) {
  const Resolved base = Must(kJob);
  const auto base_json = nlohmann::json::parse(Serialize(base.recipe)).flatten();
  std::set<std::string> hashes = {base.hash}, changed;
  const std::vector<Sets> experiments = {
      {"seed=2"},
      {"data.root=other"},
      {"data.path=sub"},
      {"data.split=test"},
      {"data.limit=512"},
      {"encoder={name: resnet18}"},
      {"encoder={name: resnet18, stem: standard}"},
      {"encoder={name: resnet18, width: 32}"},
      {"encoder={name: resnet18, stem: small_padding2}"},
      {"encoder={name: resnet18, zero_init_residual: false}"},
      {"encoder={name: resnet34}"},
      {"encoder={name: resnet50}"},
      {"encoder={name: resnet50x2}"},
      {"encoder={name: vit_ti16}"},
      {"encoder={name: vit_s16}"},
      {"expander_norm=none"},
      {"embedding_norm=l2"},
      {"embedding_norm=std"},
      {"expander=[64, 33]"},
      {"expander=[63, 32]"},
      {"expander=[64, 32, 32]"},
      {"loss.convention=paper"},
      {"loss.convention=vicregl"},
      {"loss.lambda=24"},
      {"loss.mu=24"},
      {"loss.nu=2"},
      {"loss.form=gram"},
      {"loss.form=covariance"},
      {"views=3"},
      {"views=4"},
      {"loss={per_view: [{variance: 12.5, covariance: 1}, {variance: 12.5, covariance: 1}]}"},
      {"loss={per_view: [{variance: 12.5, covariance: 1}, {variance: 12.5, covariance: 2}]}"},
      {"loss={per_view: [{variance: 12.5, covariance: 2}, {variance: 12.5, covariance: 1}]}"},
      {"views=3",
       "loss={per_view: [{variance: 1, covariance: 1}, {variance: 2, covariance: 1}, {variance: 3, "
       "covariance: 1}]}"},
      {"batch_size=128"},
      {"length=101 steps", "schedule.warmup=10 steps"},
      {"length=1 epoch", "schedule.warmup=10 steps"},
      {"optimizer={name: lars, base_lr: 1.0e-3}"},
      {"optimizer={name: lars}"},
      {"optimizer={name: sgd, base_lr: 1.0e-3}"},
      {"optimizer={name: larc, base_lr: 1.0e-3}"},
      {"optimizer={name: larc, base_lr: 1.0e-3, eta: 0.001}"},
      {"optimizer={name: larc, base_lr: 1.0e-3, clip: false}"},
      {"optimizer.lr=1.1e-3"},
      {"optimizer.weight_decay=0"},
      {"schedule.warmup=11 steps"},
      {"schedule.warmup=10 epochs"},
      {"schedule.final=0.1"},
      {"augmentation.preset=none"},
      {"augmentation.size=28"},
  };
  for (const Sets& sets : experiments) {
    const Resolved other = Must(kJob, sets);
    EXPECT_TRUE(hashes.insert(other.hash).second) << testing::PrintToString(sets);
    const auto json = nlohmann::json::parse(Serialize(other.recipe)).flatten();
    for (const auto& [key, value] : base_json.items()) {
      if (!json.contains(key) || json[key] != value) changed.insert(key);
    }
  }
  Recipe colour = base.recipe;
  colour.data.channels = 3;  // which no job file can ask for yet
  EXPECT_TRUE(hashes.insert(Hash(colour)).second);
  for (const auto& [key, value] : base_json.items()) {
    const bool apart =
        key == "/version" || key == "/data/channels" || key.rfind("/checkpoint", 0) == 0 || key.rfind("/knn", 0) == 0;
    EXPECT_TRUE(apart || changed.count(key) != 0) << "no experiment above changes " << key;
  }
}

TEST(Hash, StaysForWhatDoesNotChangeTheWeights) {
  const std::string hash = Must(kJob).hash;
  for (const Sets& sets : std::vector<Sets>{{"name=other"},
                                            {"project=other"},
                                            {"queue=other"},
                                            {"priority=9"},
                                            {"world_size=3"},
                                            {"device=cpu"},
                                            {"restart.charges=9"},
                                            {"checkpoint.keep=9"},
                                            {"checkpoint.every=7 steps"},
                                            {"evaluation.knn={}"},
                                            {"evaluation.knn={every: 3 steps}"},
                                            {"evaluation.knn={k: 3, temperature: 0.5}"},
                                            {"seed=1"},
                                            {"loss={lambda: 25, mu: 25, nu: 1}"},
                                            {"schedule.warmup=10 steps"}}) {
    EXPECT_EQ(Must(kJob, sets).hash, hash) << testing::PrintToString(sets);
  }
  EXPECT_EQ(Must("{name: a, preset: demo-cpu, data: {root: r}}").hash,
            Must("{name: b, data: {root: r}, encoder: {name: tiny}, expander: [1024, 1024, 1024], batch_size: 256, "
                 "length: 300 steps,"
                 " optimizer: {name: adamw, lr: 0.001}, augmentation: {size: 28}}")
                .hash);
  EXPECT_EQ(Must(kJob, {"encoder={name: resnet50x2}"}).hash, Must(kJob, {"encoder={name: resnet50, width: 128}"}).hash);
  EXPECT_EQ(Must(kJob, {"optimizer={name: lars}"}).hash, Must(kJob, {"optimizer={name: lars, base_lr: 0.5}"}).hash);
  EXPECT_EQ(Must(kJob, {"encoder={name: resnet18}"}).hash,
            Must(kJob, {"encoder={name: resnet18, stem: small, width: 64, zero_init_residual: true}"}).hash);
  EXPECT_EQ(Must(kJob, {"expander_norm=batch_norm", "embedding_norm=raw"}).hash, hash);
}

TEST(RecipeJson, IsTheFormThatIsHashed) {
  // Changing it renames every experiment there is.
  EXPECT_EQ(
      Serialize(Recipe{.expander = {8, 4}}),
      R"({"version":1,"seed":1,"data":{"root":"","path":"","split":"train","limit":0,"channels":1},)"
      R"("encoder":{"name":"tiny","stem":"small","width":64},"expander":[8,4],)"
      R"("loss":{"convention":"authors","lambda":25.0,"mu_per_view":12.5,"nu_per_view":1.0,"form":"auto"},)"
      R"("batch_size":256,"length":{"steps":300},"optimizer":{"name":"adamw","peak_lr":0.001,"weight_decay":0.0001},)"
      R"("schedule":{"warmup":{"steps":0},"final":0.0},"augmentation":{"preset":"cifar","size":28},)"
      R"("checkpoint":{"every":{"steps":100},"keep":3},"knn":{"enabled":false,"every":{"epochs":1.0},"k":20,"temperature":0.07}})");
}

// A build that reads earlier versions alone would not notice these and train something else.
TEST(RecipeJson, IsOfALaterVersionOnlyWithWhatAnEarlierCannotSay) {
  Recipe recipe{.expander = {8}};
  const auto version = [&](const auto& change) {
    Recipe changed = recipe;
    change(changed);
    return nlohmann::json::parse(Serialize(changed))["version"].get<int>();
  };
  EXPECT_EQ(version([](Recipe& r) { r.encoder.zero_init_residual = false; }), 2);
  EXPECT_EQ(version([](Recipe& r) { r.expander_norm = ExpanderNorm::kNone; }), 2);
  EXPECT_EQ(version([](Recipe& r) { r.embedding_norm = EmbeddingNorm::kL2; }), 2);
  EXPECT_EQ(version([](Recipe& r) { r.views = 3; }), 4);
  EXPECT_EQ(version([](Recipe& r) { r.loss.per_view.resize(2); }), 4);
  EXPECT_EQ(version([](Recipe& r) { r.branches.resize(2); }), 4);
  EXPECT_EQ(version([](Recipe& r) { r.data.format = DataFormat::kNpy; }), 4);
  EXPECT_EQ(version([](Recipe& r) { r.loss.objective = Objective::kBarlowTwins; }), 5);
  EXPECT_EQ(version([](Recipe& r) { r.accumulate = 2; }), 1) << "the same weights, whoever does not know it";
  // Names that version 1 does not know are refused by name.
  EXPECT_EQ(version([](Recipe& r) { r.encoder.name = "resnet50"; }), 1);
  EXPECT_EQ(version([](Recipe& r) { r.encoder.stem = Stem::kSmallPadding2; }), 1);
  EXPECT_EQ(version([](Recipe& r) { r.optimizer.kind = OptimizerKind::kLarc; }), 1);
}

auto Fields(const Branch& b) {
  return std::tuple(b.name, b.part, b.shared, b.encoder.name, b.encoder.stem, b.encoder.width,
                    b.encoder.zero_init_residual, b.expander, b.channels, b.mu, b.nu, b.augmentation.preset,
                    b.augmentation.size);
}

auto Fields(const Recipe& r) {
  const auto length = [](const Length& l) { return std::tuple(l.steps, l.epochs); };
  std::vector<std::pair<double, double>> weights;
  for (const ViewWeights& view : r.loss.per_view) weights.emplace_back(view.mu, view.nu);
  return std::tuple(
      std::tuple(r.seed, r.data.root, r.data.path, r.data.split, r.data.limit, r.data.channels, r.encoder.name,
                 r.encoder.stem, r.encoder.width, r.encoder.zero_init_residual, r.expander, r.expander_norm,
                 r.embedding_norm, r.data.format, r.data.part, r.views),
      std::tuple(r.loss.objective, r.loss.redundancy, r.loss.predictor, r.loss.momentum, r.loss.regularize.variance,
                 r.loss.regularize.covariance, r.loss.regularize.on, r.accumulate),
      std::tuple(weights, r.loss.convention, r.loss.lambda_, r.loss.mu_per_view, r.loss.nu_per_view, r.loss.form,
                 r.batch_size, length(r.length)),
      std::tuple(r.optimizer.kind, r.optimizer.peak_lr, r.optimizer.weight_decay, r.optimizer.eta, r.optimizer.clip,
                 length(r.schedule.warmup), r.schedule.final_fraction),
      std::tuple(r.augmentation.preset, r.augmentation.size, length(r.checkpoint_every), r.checkpoint_keep),
      std::tuple(r.knn.enabled, length(r.knn.every), r.knn.k, r.knn.temperature));
}

TEST(RecipeJson, ComesBackEqualToTheLastBit) {
  constexpr unsigned kSeed = 7;
  std::mt19937_64 random(kSeed);
  const auto any = [&] {
    return std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 120) - 100);
  };
  const auto pick = [&](auto... all) { return std::array{all...}[random() % sizeof...(all)]; };
  const auto length = [&] {
    return random() % 2 == 0 ? Length{static_cast<std::int64_t>(random() >> 24), 0} : Length{0, any() + 1e-9};
  };
  for (int round = 0; round < 1000; ++round) {
    Recipe r;
    r.seed = random();
    r.data = {"root" + std::to_string(round), pick("", "a/b"), pick("train", "test"),
              static_cast<std::int64_t>(random() >> 20), pick(1, 3)};
    r.encoder = {pick("tiny", "resnet18", "resnet101", "vit_s16"),
                 pick(Stem::kSmall, Stem::kStandard, Stem::kSmallPadding2), static_cast<int>(random() % 512),
                 pick(true, false)};
    r.expander_norm = pick(ExpanderNorm::kBatchNorm, ExpanderNorm::kNone);
    r.embedding_norm = pick(EmbeddingNorm::kRaw, EmbeddingNorm::kL2, EmbeddingNorm::kStd);
    for (std::size_t i = random() % 17; i > 0; --i) r.expander.push_back(static_cast<std::int64_t>(random() % 65536));
    r.loss.objective = pick(Objective::kVicreg, Objective::kBarlowTwins, Objective::kSimSiam, Objective::kByol);
    r.loss.form = pick(LossForm::kAuto, LossForm::kGram, LossForm::kCovariance);
    bool each = false;  // view has weights of its own
    if (r.loss.objective == Objective::kVicreg) {
      r.loss.convention = pick(Convention::kAuthors, Convention::kPaper, Convention::kVicregl, Convention::kPerView);
      r.loss.lambda_ = any();
      r.loss.mu_per_view = any();
      r.loss.nu_per_view = any();
      if (r.loss.convention == Convention::kPerView && random() % 2 == 0) {
        r.loss.mu_per_view = Loss().mu_per_view;
        r.loss.nu_per_view = Loss().nu_per_view;
        each = true;
      }
    } else if (random() % 2 == 0) {
      r.loss.regularize = {any() + 1e-9, any(), pick(RegularizeOn::kRaw, RegularizeOn::kL2)};
    }
    if (r.loss.objective == Objective::kBarlowTwins) r.loss.redundancy = any();
    if (r.loss.objective == Objective::kSimSiam || r.loss.objective == Objective::kByol)
      r.loss.predictor = static_cast<std::int64_t>(random() % 65537);
    if (r.loss.objective == Objective::kByol) r.loss.momentum = any();
    r.accumulate = pick(1, 3);
    r.batch_size = static_cast<std::int64_t>(random() >> 40);
    r.length = length();
    r.optimizer = {pick(OptimizerKind::kAdamW, OptimizerKind::kLars, OptimizerKind::kLarc, OptimizerKind::kSgd), any(),
                   any()};
    if (r.optimizer.kind == OptimizerKind::kLarc) {
      r.optimizer.eta = any();
      r.optimizer.clip = pick(true, false);
    }
    r.schedule = {length(), any()};
    r.augmentation = {pick("cifar", "none"), static_cast<int>(random() % 512)};
    r.checkpoint_every = length();
    r.checkpoint_keep = static_cast<int>(random() % 1000);
    r.knn = {random() % 2 == 0, length(), static_cast<int>(random() % 1000), any()};
    r.views = pick(2, 2, 8);
    if (r.views == 8) {
      r.data.format = DataFormat::kNpy;
      r.data.part = "wave";
    }
    for (int i = 0; each && i < r.views; ++i) r.loss.per_view.push_back({any(), any()});
    const std::size_t branches = round % 3 == 0 ? 2 + random() % 7 : 0;
    for (std::size_t i = 0; i < branches; ++i) {
      r.branches.push_back({"b" + std::to_string(i), pick("image", "wave"), i > 0 && random() % 2 == 0, r.encoder,
                            r.expander, pick(1, 3), any(), any(), r.augmentation});
      if (r.branches.back().shared) r.branches.back().channels = r.branches.front().channels;
    }
    if (branches > 0) {  // what then says nothing
      const Recipe blank;
      r.encoder = blank.encoder;
      r.expander = blank.expander;
      r.views = blank.views;
      r.augmentation = blank.augmentation;
      r.data.channels = blank.data.channels;
      r.data.part = blank.data.part;
      r.loss.mu_per_view = blank.loss.mu_per_view;
      r.loss.nu_per_view = blank.loss.nu_per_view;
      r.loss.per_view.clear();
    }
    const std::string json = Serialize(r);
    const Recipe back = Deserialize(json);
    ASSERT_EQ(back.branches.size(), r.branches.size());
    for (std::size_t i = 0; i < branches; ++i) ASSERT_EQ(Fields(back.branches[i]), Fields(r.branches[i])) << json;
    ASSERT_EQ(Fields(back), Fields(r)) << "seed " << kSeed << ", round " << round << ": " << json;
  }
}

TEST(RecipeJson, NamesWhatIsMissingOrWrong) {
  const auto error = [](const nlohmann::ordered_json& json) -> std::string {
    try {
      Deserialize(json.dump());
      return "";
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
  };
  const auto whole = nlohmann::ordered_json::parse(Serialize(Recipe{.expander = {8}}));
  ASSERT_EQ(error(whole), "");
  const auto flat = whole.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    const nlohmann::ordered_json::json_pointer at(pointer);
    if (at.back() == "0") continue;  // an item of the expander
    auto json = whole;
    json[at.parent_pointer()].erase(at.back());
    EXPECT_THAT(error(json), HasSubstr("'" + (at.back() == "epochs" ? "steps" : at.back()) + "' not found"));
    json = whole;
    json[at] = nlohmann::ordered_json::array({1});
    EXPECT_NE(error(json), "") << pointer << " that is a list";
  }
  auto newer = whole;
  for (const int version : {-1, 0, 6}) {
    newer["version"] = version;
    EXPECT_THAT(error(newer), HasSubstr("recipe version " + std::to_string(version) + "; this build reads 1 to 5"));
  }
  for (const char* pointer : {"/loss/convention", "/loss/form", "/optimizer/name", "/encoder/stem"}) {
    auto json = whole;
    json[nlohmann::ordered_json::json_pointer(pointer)] = "novel";
    EXPECT_THAT(error(json), HasSubstr("unknown name \"novel\"")) << pointer;
  }
  auto unweighed = nlohmann::ordered_json::parse(
      Serialize(Recipe{.expander = {8}, .views = 3, .loss = {.per_view = std::vector<ViewWeights>(3)}}));
  ASSERT_EQ(error(unweighed), "");
  unweighed["views"] = 2;
  EXPECT_THAT(error(unweighed), HasSubstr("weights of 3 views for 2"));
  auto clipless = whole;
  clipless["optimizer"]["name"] = "larc";
  EXPECT_THAT(error(clipless), HasSubstr("'eta' not found"));
  for (const char* key : {"expander_norm", "embedding_norm"}) {
    auto json = whole;
    json[key] = "novel";
    EXPECT_THAT(error(json), HasSubstr("unknown name \"novel\"")) << key;
  }
  EXPECT_THROW(Deserialize("{\"version\": 1"), std::invalid_argument);
  EXPECT_THROW(Deserialize(""), std::invalid_argument);
}

TEST(Explain, ParameterCountsAreThoseOfHandArithmetic) {
  // tiny: 3x3 convolutions without bias, each with a scale and a shift per channel.
  const std::int64_t tiny =
      (9 * 1 * 24 + 2 * 24) + (9 * 24 * 48 + 2 * 48) + (9 * 48 * 96 + 2 * 96) + (9 * 96 * 192 + 2 * 192);
  ASSERT_EQ(tiny, 218664);
  Resolved job = Must(kJob);
  EXPECT_EQ(Explain(job).encoder_parameters, tiny);
  EXPECT_EQ(Explain(job).networks[0].representation_width, 192);
  EXPECT_EQ(Explain(job).embedding_width, 32);
  // 192 -> 64 with bias and BN, then 64 -> 32 without either.
  EXPECT_EQ(Explain(job).expander_parameters, 192 * 64 + 64 + 2 * 64 + 64 * 32);
  job.recipe.data.channels = 3;
  EXPECT_EQ(Explain(job).encoder_parameters, tiny + 9 * 2 * 24);

  job = Must(kJob, {"encoder={name: resnet18, stem: standard}"});
  job.recipe.data.channels = 3;
  EXPECT_EQ(Explain(job).encoder_parameters, 11689512 - 512 * 1000 - 1000)
      << "torchvision's resnet18 less its fc layer";
  EXPECT_EQ(Explain(job).networks[0].representation_width, 512);
  job = Must(kJob, {"encoder={name: resnet18, width: 8}"});
  const std::int64_t stem = 72 + 16, first = 4 * 576 + 64, second = 1152 + 3 * 2304 + 128 + 160,
                     third = 4608 + 3 * 9216 + 256 + 576, fourth = 18432 + 3 * 36864 + 512 + 2176;
  EXPECT_EQ(Explain(job).encoder_parameters, stem + first + second + third + fourth);
  EXPECT_EQ(Explain(job).networks[0].representation_width, 64);
}

// Published sizes less the head of 1000 classes: torchvision's tables for ResNets, DeiT's (Touvron et al.) for ViTs.
TEST(Explain, ParameterCountsAreThePublishedOnes) {
  const struct {
    const char* encoder;
    std::int64_t with_head, width;
  } rows[] = {
      {"{name: resnet18}", 11'689'512, 512},  {"{name: resnet34}", 21'797'672, 512},
      {"{name: resnet50}", 25'557'032, 2048}, {"{name: resnet101}", 44'549'160, 2048},
      {"{name: vit_ti16}", 5'717'416, 192},   {"{name: vit_s16}", 22'050'664, 384},
  };
  for (const auto& r : rows) {
    Resolved job = Must(kJob, {"augmentation.size=224", std::string("encoder=") + r.encoder});
    job.recipe.data.channels = 3;
    EXPECT_EQ(Explain(job).encoder_parameters, r.with_head - 1000 * r.width - 1000) << r.encoder;
    EXPECT_EQ(Explain(job).networks[0].representation_width, r.width) << r.encoder;
  }
  // Doubling multiplies a convolution by four, the stem's and a batch norm by two: of 23,508,032 the norms are 53,120
  // and the stem 9,408.
  Resolved wide = Must(kJob, {"encoder={name: resnet50x2, stem: standard}"});
  wide.recipe.data.channels = 3;
  EXPECT_EQ(Explain(wide).encoder_parameters, 4 * (23'508'032 - 53'120 - 9'408) + 2 * (53'120 + 9'408));
  EXPECT_EQ(Explain(wide).networks[0].representation_width, 4096);
  // Positions of a 32-pixel view: 4 patches and the class token, where 224 pixels have 196.
  EXPECT_EQ(Explain(Must(kJob, {"encoder={name: vit_ti16}"})).encoder_parameters,
            5'717'416 - 193'000 - 192 * 192 - 2 * 256 * 192)
      << "192 fewer positions, two channels fewer";
  const Explanation plain = Explain(Must(kJob, {"expander_norm=none"}));
  EXPECT_EQ(plain.expander_parameters, 192 * 64 + 64 + 64 * 32);
}

TEST(Explain, BytesAreThoseOfHandArithmetic) {
  const auto explain = [](int ranks, const std::string& expander, const char* form) {
    return Explain(
        Must(kJob, {"world_size=" + std::to_string(ranks), "expander=" + expander, std::string("loss.form=") + form}));
  };
  // N = 256. Gram: both views' other rows arrive, 4 bytes a value.
  const Explanation gram = explain(2, "[1024, 1024, 1024]", "auto");
  EXPECT_EQ(gram.form, LossForm::kGram);
  EXPECT_EQ(gram.rows_per_rank, 128);
  EXPECT_EQ(gram.loss_bytes, 2 * 4 * 128 * 1024);
  EXPECT_EQ(gram.loss_memory_bytes, 2 * 4 * (256 * 1024 + 4 * 128 * 1024 + 128 * 256));
  const std::int64_t parameters = gram.encoder_parameters + gram.expander_parameters;
  EXPECT_EQ(parameters, 218664 + 2299904);
  EXPECT_EQ(gram.gradient_bytes, 4 * parameters) << "all-reduce over two ranks: half out, half back";
  EXPECT_EQ(gram.state_bytes, 4 * 4 * parameters) << "value, gradient, two moments";
  // Covariance: an all-reduce of D x D per view moves 2 (W - 1) / W of it.
  const Explanation covariance = explain(4, "[128]", "auto");
  EXPECT_EQ(covariance.form, LossForm::kCovariance);
  EXPECT_EQ(covariance.loss_bytes, 2 * 4 * (2 * 128 * 128 * 3 / 4));
  EXPECT_EQ(covariance.loss_memory_bytes, 2 * 4 * (128 * 128 + 4 * 64 * 128));

  EXPECT_EQ(explain(1, "[256]", "auto").form, LossForm::kCovariance) << "D = N";
  EXPECT_EQ(explain(1, "[257]", "auto").form, LossForm::kGram) << "D = N + 1";
  EXPECT_EQ(explain(1, "[128]", "gram").form, LossForm::kGram) << "asked for";
  EXPECT_EQ(explain(3, "[128]", "auto").rows_per_rank, 86) << "the largest rank of 86 + 85 + 85";
  EXPECT_EQ(explain(1, "[128]", "auto").loss_bytes, 0);
  EXPECT_EQ(explain(1, "[128]", "auto").gradient_bytes, 0);
  const Explanation lars = Explain(Must(kJob, {"optimizer={name: lars, base_lr: 0.2}"}));
  EXPECT_EQ(lars.state_bytes, 3 * 4 * (lars.encoder_parameters + lars.expander_parameters))
      << "value, gradient, momentum";
  for (const char* name : {"larc", "sgd"}) {
    EXPECT_EQ(Explain(Must(kJob, {std::string("optimizer={base_lr: 1, name: ") + name + "}"})).state_bytes,
              3 * 4 * (218664 + 192 * 64 + 3 * 64 + 64 * 32));
  }
}

TEST(Explain, NumbersOfTheLargestJobStayPositive) {
  const Explanation e =
      Explain(Must(kJob, {"world_size=4096", "batch_size=1048576", "expander=[" + Repeat("65536,", 15) + "65536]",
                          "encoder={name: resnet18, width: 512}"}));
  for (const std::int64_t value :
       {e.expander_parameters, e.loss_bytes, e.gradient_bytes, e.state_bytes, e.loss_memory_bytes})
    EXPECT_GT(value, 0);
}

TEST(Precision, NamesTheExperimentAndFp16NeedsAGpu) {
  EXPECT_NE(Must(kJob, {"precision=bf16"}).hash, Must(kJob).hash);
  EXPECT_EQ(Deserialize(Serialize(Must(kJob, {"precision=bf16"}).recipe)).precision, Precision::kBf16);
  const auto refused = ResolveText(kJob, "job.yaml", {"precision=fp16"});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("found fp16 on CPU slots; expected fp32 or bf16"));
}

TEST(Explain, TextAndJsonSayTheSame) {
  const Resolved job = Must(kJob, {"world_size=3", "loss.convention=vicregl", "length=10 epochs"});
  const std::string text = ExplainText(job);
  for (const char* part : {"3, at most 86 of 256 rows each", "tiny, 218664 parameters, representation of 192",
                           "embedding of D = 32", "convention vicregl", "per view: variance 12.5, covariance 0.5",
                           "covariance (auto: D <= N)", "10 epochs", "warning: batch_size 256 does not divide by 3"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_THAT(text, HasSubstr(job.hash.substr(0, 16)));
  const auto json = ExplainJson(job);
  EXPECT_EQ(json["recipe_hash"], job.hash);
  EXPECT_EQ(json["encoder_parameters"], 218664);
  EXPECT_EQ(json["form"], "covariance");
  EXPECT_EQ(json["effective_weights"]["nu_per_view"], 0.5);
  EXPECT_EQ(json["warnings"].size(), job.warnings.size());
  EXPECT_TRUE(MessageDifferencer::Equals(spec::ParseJobWithMarks(json["spec"].dump()).spec, job.spec));
}

TEST(Explain, TextNamesWhatWasAskedFor) {
  const std::string text =
      ExplainText(Must(kJob, {"encoder={name: resnet50x2}", "expander_norm=none", "embedding_norm=l2", "precision=bf16",
                              "optimizer={name: larc, base_lr: 0.3, clip: false}"}));
  for (const char* part : {"resnet50x2, 93", "representation of 4096", "no norm between layers, normalised: l2",
                           "larc, learning-rate peak 0.3", "eta 0.02, not clipped", "bf16 in encoder and expander"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(Warnings, AreGivenForWhatIsAllowedButUnwise) {
  const struct {
    Sets sets;
    const char* want;  // nullptr: none
  } rows[] = {
      {{}, nullptr},
      {{"loss.nu=24.9"}, nullptr},
      {{"loss.nu=25"}, "nu >= mu"},
      {{"loss.nu=26"}, "nu >= mu"},
      {{"loss.lambda=10"}, "lambda != mu"},
      {{"loss={lambda: 10, mu: 10}"}, nullptr},
      {{"loss.nu=0"}, "a loss coefficient is 0"},
      {{"batch_size=127"}, "batch_size 127 is small"},
      {{"batch_size=128"}, nullptr},
      {{"world_size=3"}, "does not divide by 3 ranks"},
      {{"world_size=4"}, nullptr},
  };
  for (const auto& r : rows) {
    const auto warnings = Must(kJob, r.sets).warnings;
    if (r.want == nullptr) {
      EXPECT_THAT(warnings, IsEmpty()) << testing::PrintToString(r.sets);
    } else {
      EXPECT_THAT(warnings, ElementsAre(HasSubstr(r.want))) << testing::PrintToString(r.sets);
    }
  }
}

}  // namespace
}  // namespace vicreg::recipe
