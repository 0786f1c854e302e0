#pragma once

// The kinds of View (samples.h): of images, waveforms and vectors.

#include <cstdint>
#include <memory>

#include "worker/train/data/npy.h"
#include "worker/train/data/samples.h"

namespace vicreg::train {

// Of images of one size, wherever their pixels lie: `owner` keeps `pixels`, sample after sample, channels first.
std::unique_ptr<View> MakeImageView(std::shared_ptr<const void> owner, const std::uint8_t* pixels, int height,
                                    int width, const ViewOptions& options);
// `size` values of each of `channels` channels; rows of `array` are at least as long. random: as the preset "wave".
std::unique_ptr<View> MakeWaveView(std::shared_ptr<const NpyArray> array, int channels, std::int64_t size, bool random,
                                   Normalisation normalisation);
// Whole rows. random: as the preset "vector".
std::unique_ptr<View> MakeVectorView(std::shared_ptr<const NpyArray> array, bool random, Normalisation normalisation);

}  // namespace vicreg::train
