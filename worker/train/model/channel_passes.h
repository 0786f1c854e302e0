#pragma once

// What batch norm does to this rank's rows, one pass over memory each. Batch norm is bound by memory: ATen's operations
// one after the other would read and write everything several times over.
//
// x: [V * n, C], [V * n, C, L] or [V * n, C, H, W], V views on top of each other, its channels innermost in memory
// (ChannelsInnermost). Results have x's shape, type and layout. Per channel and view: [V, C] fp64, on x's device.
// fp32, fp64 and bf16 on a CPU in compiled loops, rounded once from fp32 (fp64 for fp64), the same bits for any number
// of threads; everything else through ATen.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vicreg::train {

enum class Activation { kNone, kRelu };

// x itself where it is so already: channels_last, and its like for waveforms.
at::Tensor ChannelsInnermost(const at::Tensor& x);

// [2, V, C]: means, and sums of squared differences from them; 0 where there are no rows.
at::Tensor ChannelMoments(const at::Tensor& x, int64_t views);

// act(x * scale + shift), where NaN stays NaN.
struct ChannelAffine {
  at::Tensor scale, shift;
  Activation activation = Activation::kNone;
};
at::Tensor Apply(const ChannelAffine& affine, const at::Tensor& x);

// For g = dy, or 0 where the activation of `forward` let nothing through: [2, V, C], sums of g and of g * (x - mean).
at::Tensor GradientSums(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& mean,
                        const ChannelAffine& forward);

// a * g + b * (x - mean) + c.
struct ChannelGradient {
  at::Tensor a, b, c;
};
at::Tensor InputGradient(const ChannelGradient& gradient, const at::Tensor& dy, const at::Tensor& x,
                         const at::Tensor& mean, const ChannelAffine& forward);

}  // namespace vicreg::train
