#pragma once

// Nearest-neighbour accuracy (Wu et al., 2018): cosine similarity, each of the k nearest votes exp(similarity / T) for
// its label.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/train/data/samples.h"
#include "worker/train/distributed/group.h"
#include "worker/train/model/network.h"

namespace vicreg::train {

// bank [M, F], queries [Q, F] (any scale, one device; normalised here), labels in 0..255. Exact; ties go to the lower
// bank index, then to the lower label. Share of queries whose winner is their label.
double KnnAccuracy(const at::Tensor& bank, const std::vector<std::uint8_t>& bank_labels, const at::Tensor& queries,
                   const std::vector<std::uint8_t>& query_labels, int k, double temperature);

// [end - begin, ...]: samples as evaluation sees them (View::Whole), in host memory.
at::Tensor EvaluationSamples(const View& view, std::uint32_t begin, std::uint32_t end, int shift = 0);

// Eval-mode representations of view `view` of all samples, [count, F], on the network's device; the ranks share the
// work and each gets all of it.
at::Tensor Represent(const Network& network, const SampleSet& samples, int view, Group& group, int shift = 0);

}  // namespace vicreg::train
