#include "common/recipe/explain.h"

#include <algorithm>
#include <cstdio>
#include <functional>

#include "common/recipe/networks.h"
#include "common/recipe/recipe_json.h"

namespace vicreg::recipe {
namespace {

using Json = nlohmann::ordered_json;

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

bool Regularised(const Loss& loss) { return loss.regularize.variance != 0 || loss.regularize.covariance != 0; }

std::string RegularisationText(const Regularize& terms) {
  return "variance " + Number(terms.variance) + ", covariance " + Number(terms.covariance) + " of " +
         (terms.on == RegularizeOn::kRaw ? "embeddings as they are" : "embeddings scaled to length sqrt(D)");
}

// "variance 12.5, covariance 1", once where all views have the same.
std::string WeightsText(const std::vector<Branch>& views) {
  const auto same = [&](const Branch& view) { return view.mu == views[0].mu && view.nu == views[0].nu; };
  const auto text = [](const Branch& view) {
    return "variance " + Number(view.mu) + ", covariance " + Number(view.nu);
  };
  if (std::all_of(views.begin(), views.end(), same)) return "per view: " + text(views[0]);
  std::string all;
  for (std::size_t i = 0; i < views.size(); ++i) {
    const std::string name = views[i].name.empty() ? "view " + std::to_string(i + 1) : "branch " + views[i].name;
    all += (i == 0 ? "" : "; ") + name + ": " + text(views[i]);
  }
  return all;
}

using Line = std::function<void(const std::string&, const std::string&)>;

// "image (1x28x28)": what a view of it is.
std::string SampleText(const Branch& view) {
  std::string shape;
  for (const std::int64_t side : SampleShape(view)) {
    if (!shape.empty()) shape += 'x';
    shape += std::to_string(side);
  }
  return view.part + " (" + shape + ", " + view.augmentation.preset + ")";
}

// What samples pass.
void NetworkLines(const Resolved& resolved, const Explanation& e, const Line& line) {
  const Recipe& r = resolved.recipe;
  const std::string norms =
      std::string(r.expander_norm == ExpanderNorm::kNone ? ", no norm between layers" : "") +
      (r.embedding_norm == EmbeddingNorm::kRaw ? "" : std::string(", normalised: ") + Name(r.embedding_norm));
  const std::string width = ", embedding of D = " + std::to_string(e.embedding_width);
  const std::vector<Branch> views = Views(r);
  if (r.branches.empty()) {
    line("encoder", resolved.spec.encoder().name() + ", " + std::to_string(e.encoder_parameters) +
                        " parameters, representation of " + std::to_string(e.networks[0].representation_width));
    line("views", std::to_string(r.views) + " of each sample, one network for all; of " + SampleText(views[0]));
    line("expander", std::to_string(e.expander_parameters) + " parameters" + width + norms);
    return;
  }
  line("views", std::to_string(views.size()) + " of each sample, one for each branch" + width + norms);
  for (std::size_t i = 0, own = 0; i < views.size(); ++i) {
    std::string text = SampleText(views[i]) + " through ";
    if (views[i].shared) {
      text += "the network of " + views[0].name;
    } else {
      const NetworkExplanation& n = e.networks[own++];
      text += resolved.spec.branches(static_cast<int>(i)).encoder().name() + ", " +
              std::to_string(n.encoder_parameters) + " parameters, representation of " +
              std::to_string(n.representation_width) + "; expander, " + std::to_string(n.expander_parameters) +
              " parameters";
    }
    line("  branch " + views[i].name, text);
  }
}

// What is minimised, and its weights as applied.
void LossLines(const Resolved& resolved, const Explanation& e, const Line& line) {
  const Loss& loss = resolved.recipe.loss;
  const v1::LossSpec& given = resolved.spec.loss();
  const std::string name = Name(loss.objective);
  if (loss.objective == Objective::kVicreg) {
    line("loss",
         name + ", convention " + Name(loss.convention) + ", lambda " + Number(given.lambda()) +
             (loss.convention == Convention::kPerView ? ""
                                                      : ", mu " + Number(given.mu()) + ", nu " + Number(given.nu())));
    line("  effective weights", "invariance " + Number(loss.lambda_) + "; " + WeightsText(Views(resolved.recipe)));
    return;
  }
  line("loss", loss.objective == Objective::kBarlowTwins ? name + ", redundancy " + Number(loss.redundancy) : name);
  if (loss.objective != Objective::kBarlowTwins) {
    line("  predictor", loss.predictor == 0
                            ? "none: embeddings are compared as they are"
                            : std::to_string(e.predictor_parameters) + " parameters, " +
                                  std::to_string(e.embedding_width) + " to " + std::to_string(loss.predictor) + " to " +
                                  std::to_string(e.embedding_width));
  }
  if (loss.momentum) {
    line("  momentum target", "moving average of " + std::to_string(e.encoder_parameters + e.expander_parameters) +
                                  " parameters, factor " + Number(*loss.momentum) +
                                  " at first, by half a cosine to 1 at the end");
  }
  line("  regularisation", Regularised(loss) ? "per view: " + RegularisationText(loss.regularize) : "none");
}

Json LossJson(const Recipe& r) {
  const Loss& loss = r.loss;
  Json json;
  if (loss.objective == Objective::kVicreg) {
    json["lambda"] = loss.lambda_;
    if (loss.convention != Convention::kPerView && r.branches.empty()) {
      json["mu_per_view"] = loss.mu_per_view;
      json["nu_per_view"] = loss.nu_per_view;
      return json;
    }
    for (const Branch& view : Views(r)) {
      Json weights = {{"variance", view.mu}, {"covariance", view.nu}};
      if (!view.name.empty()) weights["branch"] = view.name;
      json["views"].push_back(weights);
    }
    return json;
  }
  if (loss.objective == Objective::kBarlowTwins) json["redundancy"] = loss.redundancy;
  json["variance_per_view"] = loss.regularize.variance;
  json["covariance_per_view"] = loss.regularize.covariance;
  return json;
}

}  // namespace

Explanation Explain(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const std::int64_t world = resolved.spec.world_size().min();
  Explanation e;
  for (const Branch& network : Networks(r)) {
    e.networks.push_back({network.name, EncoderParameters(network.encoder, network.channels, network.augmentation.size),
                          ExpanderParameters(network, r.expander_norm), RepresentationWidth(network.encoder)});
    e.encoder_parameters += e.networks.back().encoder_parameters;
    e.expander_parameters += e.networks.back().expander_parameters;
  }
  e.embedding_width = Views(r).front().expander.back();
  const std::int64_t n = r.batch_size, d = e.embedding_width;
  e.form = r.loss.form != LossForm::kAuto ? r.loss.form : d <= n ? LossForm::kCovariance : LossForm::kGram;
  e.rows_per_rank = (n + world - 1) / world;
  // 4 bytes: gathered centred rows N*D of each view, or all-reduces of D*D (sent and received: 2(W-1)/W of it), one for
  // each view or for the pair that Barlow Twins correlates; beside which its regularisation is another such pass.
  const std::int64_t views = static_cast<std::int64_t>(Views(r).size());
  const bool pair = r.loss.objective == Objective::kBarlowTwins;
  const std::int64_t gathers = pair && Regularised(r.loss) ? 2 : 1, matrices = !pair                 ? views
                                                                               : Regularised(r.loss) ? 3
                                                                                                     : 1;
  e.loss_bytes = world == 1                  ? 0
                 : e.form == LossForm::kGram ? gathers * views * 4 * n * d * (world - 1) / world
                                             : matrices * 4 * 2 * d * d * (world - 1) / world;
  e.predictor_parameters = PredictorParameters(r.loss.predictor, d, r.expander_norm);
  const std::int64_t followed = e.encoder_parameters + e.expander_parameters,
                     parameters = followed + e.predictor_parameters;
  e.gradient_bytes = world == 1 ? 0 : 8 * parameters * (world - 1) / world;
  e.state_bytes =
      parameters * 4 * (r.optimizer.kind == OptimizerKind::kAdamW ? 4 : 3) + (r.loss.momentum ? 4 * followed : 0);
  e.loss_memory_bytes =
      views * 4 *
      (e.form == LossForm::kGram ? n * d + 4 * e.rows_per_rank * d + e.rows_per_rank * std::min<std::int64_t>(n, 1024)
                                 : d * d + 4 * e.rows_per_rank * d);
  return e;
}

std::string ExplainText(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const Explanation e = Explain(resolved);
  std::string text;
  const auto line = [&](const std::string& name, const std::string& value) {
    text += name + std::string(name.size() < 22 ? 22 - name.size() : 1, ' ') + value + "\n";
  };
  line("job", resolved.spec.name());
  line("experiment",
       resolved.hash.substr(0, 16) + " (seed " + std::to_string(r.seed) + "; the same for any world size)");
  const auto& world = resolved.spec.world_size();
  line("ranks", std::to_string(world.min()) + (world.max() > world.min() ? " to " + std::to_string(world.max()) : "") +
                    ", at most " + std::to_string(e.rows_per_rank) + " of " + std::to_string(r.batch_size) +
                    " rows each");
  NetworkLines(resolved, e, line);
  LossLines(resolved, e, line);
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
                              " loss; activations " +
                              (r.accumulate == 1 ? "" : "of one of " + std::to_string(r.accumulate) + " parts ") +
                              "come on top and usually dominate");
  line("checkpoints", "every " + Text(r.checkpoint_every) + ", " + std::to_string(r.checkpoint_keep) + " kept");
  line("kNN", r.knn.enabled ? "every " + Text(r.knn.every) + ", k " + std::to_string(r.knn.k) + ", temperature " +
                                  Number(r.knn.temperature) + (r.branches.empty() ? "" : ", of each branch")
                            : "off");
  for (const std::string& warning : resolved.warnings) text += "warning: " + warning + "\n";
  return text;
}

nlohmann::ordered_json ExplainJson(const Resolved& resolved) {
  const Recipe& r = resolved.recipe;
  const Explanation e = Explain(resolved);
  Json networks = Json::array();
  for (const NetworkExplanation& n : e.networks) {
    networks.push_back({{"branch", n.branch},
                        {"encoder_parameters", n.encoder_parameters},
                        {"expander_parameters", n.expander_parameters},
                        {"representation_width", n.representation_width}});
  }
  return {{"name", resolved.spec.name()},
          {"recipe_hash", resolved.hash},
          {"objective", Name(r.loss.objective)},
          {"effective_weights", LossJson(r)},
          {"views", Views(r).size()},
          {"networks", networks},
          {"momentum", r.loss.momentum ? Json(*r.loss.momentum) : Json()},
          {"encoder_parameters", e.encoder_parameters},
          {"expander_parameters", e.expander_parameters},
          {"predictor_parameters", e.predictor_parameters},
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
