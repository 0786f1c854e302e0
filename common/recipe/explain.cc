#include "common/recipe/explain.h"

#include <algorithm>
#include <cstdio>

#include "common/recipe/recipe_json.h"

namespace vicreg::recipe {
namespace {

std::int64_t Conv(std::int64_t in, std::int64_t out, std::int64_t side) { return in * out * side * side; }
std::int64_t Norm(std::int64_t channels) { return 2 * channels; }

// torchvision's resnet18 without fc: stages of two basic blocks at width x {1, 2, 4, 8}.
std::int64_t ResNet18(const Encoder& encoder, int channels) {
  std::int64_t count = Conv(channels, encoder.width, encoder.stem == Stem::kSmall ? 3 : 7) + Norm(encoder.width);
  std::int64_t in = encoder.width;
  for (int stage = 0; stage < 4; ++stage) {
    const std::int64_t out = encoder.width << stage;
    count += Conv(in, out, 3) + 3 * Conv(out, out, 3) + 4 * Norm(out);
    if (in != out) count += Conv(in, out, 1) + Norm(out);
    in = out;
  }
  return count;
}

std::int64_t Tiny(int channels) {
  std::int64_t count = 0, in = channels;
  for (const std::int64_t out : {24, 48, 96, 192}) {
    count += Conv(in, out, 3) + Norm(out);
    in = out;
  }
  return count;
}

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
  return length.epochs > 0 ? Number(length.epochs) + " epochs (whole batches of the samples found)" : std::to_string(length.steps) + " steps";
}

}  // namespace

Explanation Explain(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const std::int64_t world = resolved.spec.world_size().min();
  Explanation e;
  e.encoder_parameters = r.encoder.name == "tiny" ? Tiny(r.data.channels) : ResNet18(r.encoder, r.data.channels);
  e.representation_width = r.encoder.name == "tiny" ? 192 : r.encoder.width * 8;
  std::int64_t in = e.representation_width;
  for (std::size_t i = 0; i < r.expander.size(); ++i) {
    const bool last = i + 1 == r.expander.size();
    e.expander_parameters += in * r.expander[i] + (last ? 0 : r.expander[i] + Norm(r.expander[i]));
    in = r.expander[i];
  }
  e.embedding_width = in;
  const std::int64_t n = r.batch_size, d = e.embedding_width;
  e.form = r.loss.form != LossForm::kAuto ? r.loss.form : d <= n ? LossForm::kCovariance : LossForm::kGram;
  e.rows_per_rank = (n + world - 1) / world;
  // Two views, 4 bytes: gathered centred rows N*D, or an all-reduce of D*D (sent and received: 2(W-1)/W of it).
  e.loss_bytes = world == 1 ? 0 : e.form == LossForm::kGram ? 2 * 4 * n * d * (world - 1) / world : 2 * 4 * 2 * d * d * (world - 1) / world;
  const std::int64_t parameters = e.encoder_parameters + e.expander_parameters;
  e.gradient_bytes = world == 1 ? 0 : 2 * 4 * parameters * (world - 1) / world;
  e.state_bytes = parameters * 4 * (r.optimizer.kind == OptimizerKind::kAdamW ? 4 : 3);
  e.loss_memory_bytes = 2 * 4 * (e.form == LossForm::kGram ? n * d + 4 * e.rows_per_rank * d + e.rows_per_rank * std::min<std::int64_t>(n, 1024)
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
  line("experiment", resolved.hash.substr(0, 16) + " (seed " + std::to_string(r.seed) + "; the same for any world size)");
  line("ranks", std::to_string(resolved.spec.world_size().min()) + ", at most " + std::to_string(e.rows_per_rank) + " of " +
                    std::to_string(r.batch_size) + " rows each");
  line("encoder", r.encoder.name + ", " + std::to_string(e.encoder_parameters) + " parameters, representation of " +
                      std::to_string(e.representation_width));
  line("expander", std::to_string(e.expander_parameters) + " parameters, embedding of D = " + std::to_string(e.embedding_width));
  line("loss", std::string("vicreg, convention ") + Name(r.loss.convention) + ", lambda " + Number(loss.lambda()) + ", mu " + Number(loss.mu()) +
                   ", nu " + Number(loss.nu()));
  line("  effective weights", "invariance " + Number(r.loss.lambda_) + "; per view: variance " + Number(r.loss.mu_per_view) + ", covariance " +
                                  Number(r.loss.nu_per_view));
  line("  form", std::string(Name(e.form)) + (r.loss.form == LossForm::kAuto ? " (auto: D " : " (asked for: D ") +
                     (e.embedding_width <= r.batch_size ? "<= N)" : "> N)"));
  line("steps", Text(r.length) + ", warm-up " + Text(r.schedule.warmup));
  line("optimizer", std::string(Name(r.optimizer.kind)) + ", learning-rate peak " + Number(r.optimizer.peak_lr) + ", cosine to " +
                        Number(r.schedule.final_fraction * r.optimizer.peak_lr) + ", weight decay " + Number(r.optimizer.weight_decay));
  line("per step and rank", Bytes(e.loss_bytes) + " gathered or reduced for the loss, " + Bytes(e.gradient_bytes) + " for gradients (fp32)");
  line("memory per rank", Bytes(e.state_bytes) + " parameters, gradients, optimizer; " + Bytes(e.loss_memory_bytes) +
                              " loss; activations come on top and usually dominate");
  line("checkpoints", "every " + Text(r.checkpoint_every) + ", " + std::to_string(r.checkpoint_keep) + " kept");
  line("kNN", r.knn.enabled ? "every " + Text(r.knn.every) + ", k " + std::to_string(r.knn.k) + ", temperature " + Number(r.knn.temperature) : "off");
  for (const std::string& warning : resolved.warnings) text += "warning: " + warning + "\n";
  return text;
}

nlohmann::ordered_json ExplainJson(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const Explanation e = Explain(resolved);
  return {{"name", resolved.spec.name()},
          {"recipe_hash", resolved.hash},
          {"effective_weights", {{"lambda", r.loss.lambda_}, {"mu_per_view", r.loss.mu_per_view}, {"nu_per_view", r.loss.nu_per_view}}},
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
          {"warnings", resolved.warnings},
          {"spec", spec::ToJson(resolved.spec)}};
}

}  // namespace vicreg::recipe
