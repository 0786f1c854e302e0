#include "worker/train/model/channel_passes.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>
#include <vector>

namespace vicreg::train {
namespace {

constexpr int64_t kBlock = 64;     // rows summed in the elements' own precision before fp64 takes over
constexpr int64_t kColumns = 512;  // at a time: running sums stay in the first cache
constexpr int64_t kChunks = 64;    // of a view, at most: what threads share

// [V * n, C, ...] as its rows of channels, the same memory.
at::Tensor Rows(const at::Tensor& x) {
  const int64_t c = x.size(1), rows = c > 0 ? x.numel() / c : 0;
  if (x.dim() == 3) return x.transpose(1, 2).view({rows, c});
  return x.dim() == 4 ? x.permute({0, 2, 3, 1}).view({rows, c}) : x.view({rows, c});
}

// Of each view, cut the same way for any number of threads.
struct Chunks {
  Chunks(const at::Tensor& x, int64_t v) : views(v), channels(x.size(1)) {
    rows = channels > 0 ? x.numel() / (channels * views) : 0;
    per_view = std::clamp<int64_t>(rows / kBlock, 1, kChunks);
  }
  // work(view, chunk, first row of x, rows)
  template <typename Work>
  void ForEach(const Work& work) const {
    if (rows == 0) return;
    at::parallel_for(0, views * per_view, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t chunk = i % per_view, from = chunk * rows / per_view, to = (chunk + 1) * rows / per_view;
        work(i / per_view, chunk, i / per_view * rows + from, to - from);
      }
    });
  }
  int64_t RowsOf(int64_t chunk) const { return (chunk + 1) * rows / per_view - chunk * rows / per_view; }

  const int64_t views, channels;
  int64_t rows = 0;  // of one view
  int64_t per_view = 1;
};

// What sums and results are computed in.
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

bool Compiled(const at::Tensor& x) {
  return x.is_cpu() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble || x.scalar_type() == at::kBFloat16);
}

// run(element)
template <typename Run>
void ForElementOf(const at::Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case at::kDouble:
      return run(double{});
    case at::kBFloat16:
      return run(at::BFloat16{});
    default:
      return run(float{});
  }
}

// [V, C] as the loops read it.
template <typename W>
at::Tensor Loaded(const at::Tensor& values) {
  return values.to(at::kCPU, c10::CppTypeToScalarType<W>::value).contiguous();
}

// Chan, Golub & LeVeque's update of (count, mean, m2) by another such group.
void Merge(double& mean, double& m2, double count, double other_mean, double other_m2, double other_count) {
  const double delta = other_mean - mean, share = other_count / (count + other_count);
  mean += delta * share;
  m2 += other_m2 + delta * delta * count * share;
}

// mean and m2 of `columns` columns over `rows` rows, `stride` apart. Squares are taken about a value close to the mean:
// a sum of squares less the square of a sum would lose what lies far from zero.
template <typename T>
void Moments(const T* x, int64_t rows, int64_t stride, int64_t columns, double* mean, double* m2) {
  using W = Wide<T>;
  W pivot[kColumns], sum[kColumns], square[kColumns];
  std::fill(mean, mean + columns, 0);
  std::fill(m2, m2 + columns, 0);
  for (int64_t first = 0; first < rows; first += kBlock) {
    const int64_t n = std::min(kBlock, rows - first);
    const T* const block = x + first * stride;
    std::fill(sum, sum + columns, W(0));
    std::fill(square, square + columns, W(0));
    if (first == 0) {
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t c = 0; c < columns; ++c) sum[c] += static_cast<W>(block[r * stride + c]);
      }
      for (int64_t c = 0; c < columns; ++c) pivot[c] = sum[c] / static_cast<W>(n);
      std::fill(sum, sum + columns, W(0));
    } else {
      for (int64_t c = 0; c < columns; ++c) pivot[c] = static_cast<W>(mean[c]);
    }
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const W d = static_cast<W>(block[r * stride + c]) - pivot[c];
        sum[c] += d;
        square[c] += d * d;
      }
    }
    const double count = static_cast<double>(n);
    for (int64_t c = 0; c < columns; ++c) {
      const double s = sum[c], of_block = static_cast<double>(pivot[c]) + s / count;
      Merge(mean[c], m2[c], static_cast<double>(first), of_block, static_cast<double>(square[c]) - s * s / count,
            count);
    }
  }
}

template <typename T>
at::Tensor MomentsOf(const at::Tensor& x, const Chunks& chunks) {
  const int64_t channels = chunks.channels;
  // [V, chunk, 2, C], merged in their order.
  const at::Tensor parts = at::empty({chunks.views, chunks.per_view, 2, channels}, at::kDouble);
  double* const part = parts.mutable_data_ptr<double>();
  const T* const data = x.const_data_ptr<T>();
  chunks.ForEach([&](int64_t view, int64_t chunk, int64_t first, int64_t rows) {
    double* const own = part + (view * chunks.per_view + chunk) * 2 * channels;
    for (int64_t c = 0; c < channels; c += kColumns) {
      Moments(data + first * channels + c, rows, channels, std::min(kColumns, channels - c), own + c,
              own + channels + c);
    }
  });
  at::Tensor out = at::zeros({2, chunks.views, channels}, at::kDouble);
  double* const merged = out.mutable_data_ptr<double>();
  for (int64_t view = 0; view < chunks.views && chunks.rows > 0; ++view) {
    double *mean = merged + view * channels, *m2 = mean + chunks.views * channels;
    int64_t count = 0;
    for (int64_t chunk = 0; chunk < chunks.per_view; ++chunk) {
      const double* const own = part + (view * chunks.per_view + chunk) * 2 * channels;
      const auto n = static_cast<double>(chunks.RowsOf(chunk));
      for (int64_t c = 0; c < channels; ++c)
        Merge(mean[c], m2[c], static_cast<double>(count), own[c], own[channels + c], n);
      count += chunks.RowsOf(chunk);
    }
  }
  return out;
}

// A comparison with NaN is false: it stays.
template <Activation activation, typename W>
W Activate(W y) {
  return activation == Activation::kRelu && y < 0 ? W(0) : y;
}

// dy, or 0 where act(y) was constant.
template <Activation activation, typename W>
W Through(W dy, W y) {
  return activation == Activation::kRelu && y <= 0 ? W(0) : dy;
}

template <Activation activation, typename T>
void ApplyTo(const T* __restrict x, T* __restrict out, int64_t rows, int64_t columns, const Wide<T>* __restrict scale,
             const Wide<T>* __restrict shift) {
  for (int64_t r = 0; r < rows; ++r, x += columns, out += columns) {
    for (int64_t c = 0; c < columns; ++c)
      out[c] = static_cast<T>(Activate<activation>(static_cast<Wide<T>>(x[c]) * scale[c] + shift[c]));
  }
}

template <Activation activation, typename T>
void Sums(const T* dy, const T* x, int64_t rows, int64_t stride, int64_t columns, const Wide<T>* mean,
          const Wide<T>* scale, const Wide<T>* shift, double* sum, double* product) {
  using W = Wide<T>;
  W of_g[kColumns], of_gx[kColumns];
  std::fill(sum, sum + columns, 0);
  std::fill(product, product + columns, 0);
  for (int64_t first = 0; first < rows; first += kBlock) {
    const int64_t n = std::min(kBlock, rows - first);
    std::fill(of_g, of_g + columns, W(0));
    std::fill(of_gx, of_gx + columns, W(0));
    for (int64_t r = first; r < first + n; ++r) {
      const T *const dys = dy + r * stride, *const xs = x + r * stride;
      for (int64_t c = 0; c < columns; ++c) {
        const W value = static_cast<W>(xs[c]);
        const W g = Through<activation>(static_cast<W>(dys[c]), value * scale[c] + shift[c]);
        of_g[c] += g;
        of_gx[c] += g * (value - mean[c]);
      }
    }
    for (int64_t c = 0; c < columns; ++c) {
      sum[c] += static_cast<double>(of_g[c]);
      product[c] += static_cast<double>(of_gx[c]);
    }
  }
}

template <Activation activation, typename T>
void GradientTo(const T* __restrict dy, const T* __restrict x, T* __restrict dx, int64_t rows, int64_t columns,
                const Wide<T>* __restrict mean, const Wide<T>* __restrict scale, const Wide<T>* __restrict shift,
                const Wide<T>* __restrict a, const Wide<T>* __restrict b, const Wide<T>* __restrict k) {
  using W = Wide<T>;
  for (int64_t r = 0; r < rows; ++r, dy += columns, x += columns, dx += columns) {
    for (int64_t c = 0; c < columns; ++c) {
      const W value = static_cast<W>(x[c]);
      const W g = Through<activation>(static_cast<W>(dy[c]), value * scale[c] + shift[c]);
      dx[c] = static_cast<T>(a[c] * g + b[c] * (value - mean[c]) + k[c]);
    }
  }
}

// run(std::integral_constant of the activation)
template <typename Run>
void ForActivation(Activation activation, const Run& run) {
  if (activation == Activation::kRelu) return run(std::integral_constant<Activation, Activation::kRelu>());
  run(std::integral_constant<Activation, Activation::kNone>());
}

// The same through ATen, for devices and types without loops of ours. [V, n, C], computed in fp32 at least.
at::Tensor Wider(const at::Tensor& x, int64_t views) {
  const at::Tensor rows = Rows(x).view({views, -1, x.size(1)});
  return rows.scalar_type() == at::kDouble ? rows : rows.to(at::kFloat);
}
at::Tensor PerRow(const at::Tensor& values, const at::Tensor& rows) {
  return values.to(rows.scalar_type()).unsqueeze(1);
}
at::Tensor GradientThrough(const at::Tensor& dy, const at::Tensor& rows, const ChannelAffine& forward) {
  const at::Tensor g = Wider(dy, rows.size(0));
  if (forward.activation == Activation::kNone) return g;
  return g.masked_fill(at::addcmul(PerRow(forward.shift, rows), rows, PerRow(forward.scale, rows)) <= 0, 0);
}
at::Tensor Like(const at::Tensor& x, const at::Tensor& rows) {
  at::Tensor out = at::empty_like(x);
  Rows(out).view(rows.sizes()).copy_(rows);
  return out;
}

}  // namespace

at::Tensor ChannelsInnermost(const at::Tensor& x) {
  if (x.dim() == 4) return x.contiguous(at::MemoryFormat::ChannelsLast);
  return x.dim() == 3 ? x.transpose(1, 2).contiguous().transpose(1, 2) : x.contiguous();
}

at::Tensor ChannelMoments(const at::Tensor& x, int64_t views) {
  at::Tensor out = at::zeros({2, views, x.size(1)}, x.options().dtype(at::kDouble));
  if (x.numel() == 0) return out;
  if (!Compiled(x)) {
    const at::Tensor rows = Wider(x, views);
    const auto [variance, mean] = at::var_mean(rows, at::IntArrayRef{1}, /*correction=*/0);
    out[0].copy_(mean);
    out[1].copy_(variance).mul_(static_cast<double>(rows.size(1)));
    return out;
  }
  ForElementOf(x, [&](auto element) { out = MomentsOf<decltype(element)>(x, Chunks(x, views)); });
  return out;
}

at::Tensor Apply(const ChannelAffine& affine, const at::Tensor& x) {
  const int64_t views = affine.scale.size(0), channels = x.size(1);
  if (x.numel() == 0) return at::empty_like(x);
  if (!Compiled(x)) {
    const at::Tensor rows = Wider(x, views);
    const at::Tensor y = at::addcmul(PerRow(affine.shift, rows), rows, PerRow(affine.scale, rows));
    return Like(x, affine.activation == Activation::kRelu ? y.relu() : y);
  }
  at::Tensor out = at::empty_like(x);
  ForElementOf(x, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    const at::Tensor scale = Loaded<W>(affine.scale), shift = Loaded<W>(affine.shift);
    const T* const from = x.const_data_ptr<T>();
    T* const to = out.mutable_data_ptr<T>();
    ForActivation(affine.activation, [&](auto activation) {
      Chunks(x, views).ForEach([&](int64_t view, int64_t, int64_t first, int64_t rows) {
        ApplyTo<decltype(activation)::value>(from + first * channels, to + first * channels, rows, channels,
                                             scale.const_data_ptr<W>() + view * channels,
                                             shift.const_data_ptr<W>() + view * channels);
      });
    });
  });
  return out;
}

at::Tensor GradientSums(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& mean,
                        const ChannelAffine& forward) {
  const int64_t views = mean.size(0), channels = x.size(1);
  if (x.numel() == 0) return at::zeros({2, views, channels}, mean.options());
  if (!Compiled(x)) {
    const at::Tensor rows = Wider(x, views), g = GradientThrough(dy, rows, forward);
    return at::stack({g.sum(at::IntArrayRef{1}, false, at::kDouble),
                      (g * (rows - PerRow(mean, rows))).sum(at::IntArrayRef{1}, false, at::kDouble)});
  }
  const Chunks chunks(x, views);
  const at::Tensor parts = at::empty({views, chunks.per_view, 2, channels}, at::kDouble);
  double* const part = parts.mutable_data_ptr<double>();
  ForElementOf(x, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    const at::Tensor means = Loaded<W>(mean), scales = Loaded<W>(forward.scale), shifts = Loaded<W>(forward.shift);
    const T *const dys = dy.const_data_ptr<T>(), *const xs = x.const_data_ptr<T>();
    ForActivation(forward.activation, [&](auto activation) {
      chunks.ForEach([&](int64_t view, int64_t chunk, int64_t first, int64_t rows) {
        double* const own = part + (view * chunks.per_view + chunk) * 2 * channels;
        for (int64_t c = 0; c < channels; c += kColumns) {
          const int64_t at_x = first * channels + c, at_view = view * channels + c;
          Sums<decltype(activation)::value>(dys + at_x, xs + at_x, rows, channels, std::min(kColumns, channels - c),
                                            means.const_data_ptr<W>() + at_view, scales.const_data_ptr<W>() + at_view,
                                            shifts.const_data_ptr<W>() + at_view, own + c, own + channels + c);
        }
      });
    });
  });
  return parts.sum(1).transpose(0, 1).contiguous();
}

at::Tensor InputGradient(const ChannelGradient& gradient, const at::Tensor& dy, const at::Tensor& x,
                         const at::Tensor& mean, const ChannelAffine& forward) {
  const int64_t views = mean.size(0), channels = x.size(1);
  if (x.numel() == 0) return at::empty_like(x);
  if (!Compiled(x)) {
    const at::Tensor rows = Wider(x, views), g = GradientThrough(dy, rows, forward);
    at::Tensor dx = at::addcmul(PerRow(gradient.c, rows), g, PerRow(gradient.a, rows));
    return Like(x, dx.addcmul_(rows - PerRow(mean, rows), PerRow(gradient.b, rows)));
  }
  at::Tensor out = at::empty_like(x);
  ForElementOf(x, [&](auto element) {
    using T = decltype(element);
    using W = Wide<T>;
    const at::Tensor values =
        Loaded<W>(at::stack({mean, forward.scale, forward.shift, gradient.a, gradient.b, gradient.c}));  // [6, V, C]
    const T *const dys = dy.const_data_ptr<T>(), *const xs = x.const_data_ptr<T>();
    T* const to = out.mutable_data_ptr<T>();
    ForActivation(forward.activation, [&](auto activation) {
      Chunks(x, views).ForEach([&](int64_t view, int64_t, int64_t first, int64_t rows) {
        const auto value = [&](int64_t i) { return values.const_data_ptr<W>() + (i * views + view) * channels; };
        GradientTo<decltype(activation)::value>(dys + first * channels, xs + first * channels, to + first * channels,
                                                rows, channels, value(0), value(1), value(2), value(3), value(4),
                                                value(5));
      });
    });
  });
  return out;
}

}  // namespace vicreg::train
