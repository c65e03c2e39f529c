// What all kernels share: number formats, surrogate derivatives, fixed blocks of work.
//
// Everything is computed in float32. Results do not depend on the number of threads: work is cut
// into blocks whose size depends on the shapes alone, and sums of blocks are added up in order.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace spikingmoe {

using bf16 = uint16_t;  // the upper half of a float32

enum Format : int { FLOAT32 = 0, BFLOAT16 = 1 };
enum Surrogate : int { ATAN = 0, FAST_SIGMOID = 1, SIGMOID = 2 };

inline float widen(float x) { return x; }
inline float widen(bf16 x) {
    uint32_t bits = static_cast<uint32_t>(x) << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}
template <typename To> inline To narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline bf16 narrow<bf16>(float x) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<bf16>(x != x ? 0x7fc0 : rounded);
}

// d spike / d u at `u` above the threshold, as in snntorch.surrogate with the constants of
// spikingmoe.functional.surrogate: alpha = 2, slope = 25.
template <int kind> inline float derivative(float u) {
    if (kind == ATAN) {
        const float a = 3.14159265358979f * u;  // pi / 2 * alpha * u
        return 1.0f / (1.0f + a * a);
    }
    if (kind == FAST_SIGMOID) {
        const float a = 25.0f * std::fabs(u) + 1.0f;
        return 1.0f / (a * a);
    }
    const float s = 1.0f / (1.0f + std::exp(-25.0f * u));
    return 25.0f * s * (1.0f - s);
}

// dL/du[t] from dL/ds[t] and dL/dv[t] (= decay dL/du[t+1]), with v = u (1 - s). Through the reset
// passes `reset` = 1 of the gradient, or 0 where it is detached.
template <int kind>
inline float grad_membrane(float u, float grad_spike, float grad_v, float threshold, float reset) {
    const float d = derivative<kind>(u - threshold);
    const float kept = u > threshold ? 0.0f : 1.0f;
    return grad_spike * d + grad_v * (kept - reset * (u * d));
}

// How a flat stretch of neurons is cut: `width` neurons at once (whole rows of `channels`, so that
// per-channel numbers can be tiled), `block_rows` rows in a block of work.
struct Tiling {
    int64_t rows_at_once, width, block_rows;
    int64_t blocks(int64_t rows) const { return (rows + block_rows - 1) / block_rows; }
};
inline Tiling tile(int64_t channels) {
    const int64_t at_once = channels >= 128 ? 1 : (128 + channels - 1) / channels;
    const int64_t block = 16384 / (channels * at_once) * at_once;  // about 64 kB of float32
    return {at_once, at_once * channels, std::max(block, at_once)};
}
inline std::vector<float> tiled(const float* values, int64_t channels, const Tiling& t) {
    std::vector<float> out(t.width);
    for (int64_t r = 0; r < t.rows_at_once; ++r)
        std::memcpy(out.data() + r * channels, values, channels * sizeof(float));
    return out;
}

// current = scale_c x + shift_c, or x itself without a scale; scale and shift are tiled.
template <typename X>
inline void load_current(const X* x, const float* scale, const float* shift, int64_t n, float* out) {
    if (scale) {
        for (int64_t i = 0; i < n; ++i) out[i] = widen(x[i]) * scale[i] + shift[i];
    } else {
        for (int64_t i = 0; i < n; ++i) out[i] = widen(x[i]);
    }
}
struct Affine {
    std::vector<float> scale, shift;
    Affine(const float* scale_, const float* shift_, int64_t channels, const Tiling& t) {
        if (scale_) { scale = tiled(scale_, channels, t); shift = tiled(shift_, channels, t); }
    }
    const float* scales() const { return scale.empty() ? nullptr : scale.data(); }
    const float* shifts() const { return shift.empty() ? nullptr : shift.data(); }
};

// Sum in a fixed order that vectorises: 16 partial sums.
inline float ordered_sum(const float* x, int64_t n) {
    float lanes[16] = {0.0f};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int64_t j = 0; j < 16; ++j) lanes[j] += x[i + j];
    for (int64_t j = 0; i + j < n; ++j) lanes[j] += x[i + j];
    float sum = 0.0f;
    for (int64_t j = 0; j < 16; ++j) sum += lanes[j];
    return sum;
}

// Two sums per channel and block, added up in the order of the blocks.
struct BlockSums {
    int64_t channels, width;
    std::vector<float> sums;
    BlockSums(int64_t blocks, int64_t channels_, const Tiling& t)
        : channels(channels_), width(t.width), sums(2 * blocks * channels_) {}
    void store(int64_t block, const float* first, const float* second) {
        float* mine = sums.data() + 2 * block * channels;
        for (int64_t i = 0; i < width; ++i) {
            mine[i % channels] += first[i];
            mine[channels + i % channels] += second[i];
        }
    }
    void add_up(double* first, double* second) const {
        for (int64_t i = 0; i < channels; ++i) first[i] = second[i] = 0.0;
        const int64_t blocks = static_cast<int64_t>(sums.size()) / (2 * channels);
        for (int64_t b = 0; b < blocks; ++b)
            for (int64_t i = 0; i < channels; ++i) {
                first[i] += sums[2 * b * channels + i];
                second[i] += sums[(2 * b + 1) * channels + i];
            }
    }
};

}  // namespace spikingmoe

// `call` with the type X of one format.
#define SPIKINGMOE_FORMAT(format, ...)                                       \
    if (format == spikingmoe::BFLOAT16) { using X = spikingmoe::bf16; __VA_ARGS__; } \
    else { using X = float; __VA_ARGS__; }

// `call` with the types X of the currents and S of the spikes.
#define SPIKINGMOE_FORMATS(x_format, spike_format, ...)                                           \
    if (x_format == spikingmoe::BFLOAT16) { using X = spikingmoe::bf16; using S = spikingmoe::bf16; __VA_ARGS__; }              \
    else if (spike_format == spikingmoe::BFLOAT16) { using X = float; using S = spikingmoe::bf16; __VA_ARGS__; }    \
    else { using X = float; using S = float; __VA_ARGS__; }

// `call` with the surrogate as a constant, `kind`.
#define SPIKINGMOE_SURROGATE(surrogate, ...)                                                         \
    switch (surrogate) {                                                                             \
        case spikingmoe::ATAN: { constexpr int kind = spikingmoe::ATAN; __VA_ARGS__; break; }               \
        case spikingmoe::FAST_SIGMOID: { constexpr int kind = spikingmoe::FAST_SIGMOID; __VA_ARGS__; break; } \
        default: { constexpr int kind = spikingmoe::SIGMOID; __VA_ARGS__; break; }                          \
    }
