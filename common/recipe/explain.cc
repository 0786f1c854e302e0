#include "common/recipe/explain.h"

#include <algorithm>
#include <cstdio>

#include "common/recipe/networks.h"
#include "common/recipe/recipe_json.h"

namespace vicreg::recipe {
namespace {

std::string Bytes(std::int64_t bytes) {
  char text[32];
  const double value = static_cast<double>(bytes);
  if (value < 1e6) {
    std::snprintf(text, sizeof text, "%.1f KB", value / 1e3);
  } else if (value < 1e9) {
    std::snprintf(text, sizeof text, "%.1f MB", value / 1e6);
  } else {
    std::snprintf(text, sizeof text, "%.2f GB", value / 1e9);
  }
  return text;
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string Text(const Length& length) {
  return length.epochs > 0 ? Number(length.epochs) + " epochs (whole batches of the samples found)"
                           : std::to_string(length.steps) + " steps";
}

}  // namespace

Explanation Explain(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const std::int64_t world = resolved.spec.world_size().min();
  Explanation e;
  e.encoder_parameters = EncoderParameters(r.encoder, r.data.channels, r.augmentation.size);
  e.representation_width = RepresentationWidth(r.encoder);
  e.expander_parameters = ExpanderParameters(Views(r).front(), r.expander_norm);
  e.embedding_width = r.expander.back();
  const std::int64_t n = r.batch_size, d = e.embedding_width;
  e.form = r.loss.form != LossForm::kAuto ? r.loss.form : d <= n ? LossForm::kCovariance : LossForm::kGram;
  e.rows_per_rank = (n + world - 1) / world;
  // Two views, 4 bytes: gathered centred rows N*D, or an all-reduce of D*D (sent and received: 2(W-1)/W of it).
  e.loss_bytes = world == 1                  ? 0
                 : e.form == LossForm::kGram ? 2 * 4 * n * d * (world - 1) / world
                                             : 2 * 4 * 2 * d * d * (world - 1) / world;
  const std::int64_t parameters = e.encoder_parameters + e.expander_parameters;
  e.gradient_bytes = world == 1 ? 0 : 2 * 4 * parameters * (world - 1) / world;
  e.state_bytes = parameters * 4 * (r.optimizer.kind == OptimizerKind::kAdamW ? 4 : 3);
  e.loss_memory_bytes =
      2 * 4 *
      (e.form == LossForm::kGram ? n * d + 4 * e.rows_per_rank * d + e.rows_per_rank * std::min<std::int64_t>(n, 1024)
                                 : d * d + 4 * e.rows_per_rank * d);
  return e;
}

std::string ExplainText(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const Explanation e = Explain(resolved);
  const v1::LossSpec& loss = resolved.spec.loss();
  std::string text;
  const auto line = [&](const std::string& name, const std::string& value) {
    text += name + std::string(name.size() < 22 ? 22 - name.size() : 1, ' ') + value + "\n";
  };
  line("job", resolved.spec.name());
  line("experiment",
       resolved.hash.substr(0, 16) + " (seed " + std::to_string(r.seed) + "; the same for any world size)");
  line("ranks", std::to_string(resolved.spec.world_size().min()) + ", at most " + std::to_string(e.rows_per_rank) +
                    " of " + std::to_string(r.batch_size) + " rows each");
  line("encoder", resolved.spec.encoder().name() + ", " + std::to_string(e.encoder_parameters) +
                      " parameters, representation of " + std::to_string(e.representation_width));
  line("expander",
       std::to_string(e.expander_parameters) + " parameters, embedding of D = " + std::to_string(e.embedding_width) +
           (r.expander_norm == ExpanderNorm::kNone ? ", no norm between layers" : "") +
           (r.embedding_norm == EmbeddingNorm::kRaw ? "" : std::string(", normalised: ") + Name(r.embedding_norm)));
  line("loss", std::string("vicreg, convention ") + Name(r.loss.convention) + ", lambda " + Number(loss.lambda()) +
                   ", mu " + Number(loss.mu()) + ", nu " + Number(loss.nu()));
  line("  effective weights", "invariance " + Number(r.loss.lambda_) + "; per view: variance " +
                                  Number(r.loss.mu_per_view) + ", covariance " + Number(r.loss.nu_per_view));
  line("  form", std::string(Name(e.form)) + (r.loss.form == LossForm::kAuto ? " (auto: D " : " (asked for: D ") +
                     (e.embedding_width <= r.batch_size ? "<= N)" : "> N)"));
  line("steps", Text(r.length) + ", warm-up " + Text(r.schedule.warmup));
  line("optimizer", std::string(Name(r.optimizer.kind)) + ", learning-rate peak " + Number(r.optimizer.peak_lr) +
                        ", cosine to " + Number(r.schedule.final_fraction * r.optimizer.peak_lr) + ", weight decay " +
                        Number(r.optimizer.weight_decay) +
                        (r.optimizer.kind == OptimizerKind::kLarc
                             ? ", eta " + Number(r.optimizer.eta) + (r.optimizer.clip ? ", clipped" : ", not clipped")
                             : ""));
  line("precision",
       r.precision == Precision::kFp32
           ? "fp32"
           : std::string(Name(r.precision)) + " in encoder and expander; statistics, loss and parameters fp32");
  line("per step and rank",
       Bytes(e.loss_bytes) + " gathered or reduced for the loss, " + Bytes(e.gradient_bytes) + " for gradients (fp32)");
  line("memory per rank", Bytes(e.state_bytes) + " parameters, gradients, optimizer; " + Bytes(e.loss_memory_bytes) +
                              " loss; activations come on top and usually dominate");
  line("checkpoints", "every " + Text(r.checkpoint_every) + ", " + std::to_string(r.checkpoint_keep) + " kept");
  line("kNN", r.knn.enabled ? "every " + Text(r.knn.every) + ", k " + std::to_string(r.knn.k) + ", temperature " +
                                  Number(r.knn.temperature)
                            : "off");
  for (const std::string& warning : resolved.warnings) text += "warning: " + warning + "\n";
  return text;
}

nlohmann::ordered_json ExplainJson(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const Explanation e = Explain(resolved);
  return {{"name", resolved.spec.name()},
          {"recipe_hash", resolved.hash},
          {"effective_weights",
           {{"lambda", r.loss.lambda_}, {"mu_per_view", r.loss.mu_per_view}, {"nu_per_view", r.loss.nu_per_view}}},
          {"encoder_parameters", e.encoder_parameters},
          {"expander_parameters", e.expander_parameters},
          {"representation_width", e.representation_width},
          {"embedding_width", e.embedding_width},
          {"form", Name(e.form)},
          {"rows_per_rank", e.rows_per_rank},
          {"loss_bytes_per_step", e.loss_bytes},
          {"gradient_bytes_per_step", e.gradient_bytes},
          {"state_bytes", e.state_bytes},
          {"loss_memory_bytes", e.loss_memory_bytes},
          {"steps", r.length.steps},
          {"epochs", r.length.epochs},
          {"learning_rate_peak", r.optimizer.peak_lr},
          {"precision", Name(r.precision)},
          {"warnings", resolved.warnings},
          {"spec", spec::ToJson(resolved.spec)}};
}

}  // namespace vicreg::recipe
