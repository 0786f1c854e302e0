#pragma once

// One maker for each family of encoders; MakeEncoder (network.h) chooses. Names beneath `prefix`.

#include <memory>
#include <string>

#include "common/recipe/networks.h"
#include "worker/train/model/network.h"

namespace vicreg::train {

std::unique_ptr<Encoder> MakeTiny(int channels, const std::string& prefix, Parameters& parameters);

// [n, channels, H, W], or [n, channels, L] when the architecture reads waveforms: every kernel then has one dimension.
std::unique_ptr<Encoder> MakeResNet(const recipe::Architecture& architecture, const recipe::Encoder& encoder,
                                    int channels, const std::string& prefix, Parameters& parameters);

// [n, channels, size, size] and no other size: the positions are learned. Throws std::invalid_argument when size is no
// multiple of the patch.
std::unique_ptr<Encoder> MakeVit(const recipe::Architecture& architecture, int channels, int size,
                                 const std::string& prefix, Parameters& parameters);

// [n, features].
std::unique_ptr<Encoder> MakeMlp(const recipe::Encoder& encoder, int features, const std::string& prefix,
                                 Parameters& parameters);

}  // namespace vicreg::train
