#include "common/recipe/recipe.h"

#include <algorithm>
#include <cmath>

namespace vicreg::recipe {

std::int64_t InSteps(const Length& length, std::int64_t samples, std::int64_t batch_size, std::int64_t least) {
  if (length.epochs <= 0) return std::max(length.steps, least);
  const std::int64_t per_epoch = std::max<std::int64_t>(samples / batch_size, 1);
  return std::max<std::int64_t>(std::llround(length.epochs * static_cast<double>(per_epoch)), least);
}

std::vector<Branch> Views(const Recipe& r) {
  if (!r.branches.empty()) return r.branches;
  const Branch first{"",
                     r.data.part,
                     false,
                     r.encoder,
                     r.expander,
                     r.data.channels,
                     r.loss.mu_per_view,
                     r.loss.nu_per_view,
                     r.augmentation};
  std::vector<Branch> views(static_cast<std::size_t>(r.views), first);
  for (std::size_t i = 1; i < views.size(); ++i) views[i].shared = true;
  for (std::size_t i = 0; i < std::min(views.size(), r.loss.per_view.size()); ++i) {
    views[i].mu = r.loss.per_view[i].mu;
    views[i].nu = r.loss.per_view[i].nu;
  }
  return views;
}

std::vector<Branch> Networks(const Recipe& recipe) {
  std::vector<Branch> networks = Views(recipe);
  networks.erase(std::remove_if(networks.begin(), networks.end(), [](const Branch& view) { return view.shared; }),
                 networks.end());
  return networks;
}

ViewWeights WeightsPerView(Convention convention, double mu, double nu, int views) {
  const double v = views;
  switch (convention) {
    case Convention::kAuthors:
      return {mu / v, 2 * nu / v};
    case Convention::kPaper:
      return {2 * mu / v, 2 * nu / v};
    case Convention::kVicregl:
      return {mu / v, nu / v};
    case Convention::kPerView:
      break;
  }
  return {mu, nu};
}

std::string EncoderFile(const std::string& branch) {
  return branch.empty() ? "encoder.safetensors" : "encoder-" + branch + ".safetensors";
}

}  // namespace vicreg::recipe
