// Leaky integrate-and-fire neurons over a whole window, with the batch norm before them folded in.
//
//   current[t] = scale_c x[t] + shift_c;  u = decay v + current[t];  s = u > threshold;  v = u (1 - s)
//
// The membranes are not kept for the backward pass: it computes them again from x, a stretch at a time.
// x is (x_steps, rows, channels) with x_steps = steps, or 1 for a current that is the same at each step.
//
// Windows of 1, 2, 4, 8 and 16 steps are known to the compiler: membranes stay in registers (at 16 some
// are spilled, to the stack of one vector). Others keep a row of membranes per step in the cache.
#include <type_traits>

#include "common.h"

namespace spikingmoe {

struct Window {
    int64_t x_steps, steps, rows, channels;
    float decay, threshold, reset;  // reset: 1, or 0 where no gradient passes through it
    int64_t step() const { return rows * channels; }
};

// Where a stretch of neurons lies: the first step's x and spikes; those of a step later lie `step` on.
template <typename X, typename S> struct Stretch {
    const X* x;
    S* spikes;        // or the gradient that comes in
    X* grad;          // of the current
    const float *scale, *shift, *mean;
    float *sums, *sums_x;
    int64_t n;
};

template <typename X, typename S, int T, bool normed, bool still>
void forward_known(const Window& w, const Stretch<X, S>& a) {
    const float decay = w.decay, threshold = w.threshold;
    const int64_t step = w.step(), n = a.n;
    const X* x = a.x;
    S* spikes = a.spikes;
    const float *scale = a.scale, *shift = a.shift;
    const S one = narrow<S>(1.0f), zero = narrow<S>(0.0f);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
        float v = 0.0f, c = 0.0f;
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            if (!still || t == 0) {
                c = widen(x[t * step + i]);
                if (normed) c = c * scale[i] + shift[i];
            }
            const float u = t == 0 ? c : decay * v + c;
            const bool fires = u > threshold;
            spikes[t * step + i] = fires ? one : zero;
            v = fires ? 0.0f : u;
        }
    }
}

template <typename X, typename S, int kind, int T, bool normed, bool still>
void backward_known(const Window& w, const Stretch<X, S>& a) {
    const float decay = w.decay, threshold = w.threshold, reset = w.reset;
    const int64_t step = w.step(), n = a.n;
    const X* x = a.x;
    const S* grad_spikes = a.spikes;
    X* grad = a.grad;
    const float *scale = a.scale, *shift = a.shift, *mean = a.mean;
    float *sums = a.sums, *sums_x = a.sums_x;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
        float u[T], v = 0.0f, c = 0.0f;
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            if (!still || t == 0) {
                c = widen(x[t * step + i]);
                if (normed) c = c * scale[i] + shift[i];
            }
            u[t] = t == 0 ? c : decay * v + c;
            v = u[t] > threshold ? 0.0f : u[t];
        }
        float gv = 0.0f, total = 0.0f, product = 0.0f, over_steps = 0.0f;
#pragma GCC unroll 16
        for (int t = T - 1; t >= 0; --t) {
            const float gu = grad_membrane<kind>(u[t], widen(grad_spikes[t * step + i]), gv, threshold, reset);
            gv = decay * gu;
            if (still) {
                over_steps += gu;
            } else {
                grad[t * step + i] = narrow<X>(gu);
                if (normed) {
                    total += gu;
                    product += gu * (widen(x[t * step + i]) - mean[i]);
                }
            }
        }
        if (still) {
            grad[i] = narrow<X>(over_steps);
            total = over_steps;
            product = over_steps * (widen(x[i]) - mean[i]);
        }
        if (normed) {
            sums[i] += total;
            sums_x[i] += product;
        }
    }
}

// Any number of steps. `memory` holds steps + 3 rows of `width` numbers.
template <typename X, typename S>
void forward_any(const Window& w, const Stretch<X, S>& a, float* memory, int64_t width) {
    const float decay = w.decay, threshold = w.threshold;
    const S one = narrow<S>(1.0f), zero = narrow<S>(0.0f);
    float *c = memory, *v = memory + width;
    for (int64_t i = 0; i < a.n; ++i) v[i] = 0.0f;
    for (int64_t k = 0; k < w.steps; ++k) {
        if (k < w.x_steps) load_current(a.x + k * w.step(), a.scale, a.shift, a.n, c);
        S* out = a.spikes + k * w.step();
        for (int64_t i = 0; i < a.n; ++i) {
            const float u = decay * v[i] + c[i];
            const bool fires = u > threshold;
            out[i] = fires ? one : zero;
            v[i] = fires ? 0.0f : u;
        }
    }
}

template <typename X, typename S, int kind>
void backward_any(const Window& w, const Stretch<X, S>& a, float* memory, int64_t width) {
    const float decay = w.decay, threshold = w.threshold, reset = w.reset;
    const float earlier = w.x_steps == 1 ? 1.0f : 0.0f;
    const int64_t n = a.n;
    float *c = memory, *gv = memory + width, *gx = memory + 2 * width, *membranes = memory + 3 * width;
    for (int64_t k = 0; k < w.steps; ++k) {  // the membranes u, again
        if (k < w.x_steps) load_current(a.x + k * w.step(), a.scale, a.shift, n, c);
        float* u = membranes + k * width;
        if (k == 0) {
            std::memcpy(u, c, n * sizeof(float));
            continue;
        }
        const float* before = u - width;
        for (int64_t i = 0; i < n; ++i) {
            const float v = before[i] > threshold ? 0.0f : before[i];
            u[i] = decay * v + c[i];
        }
    }
    for (int64_t i = 0; i < n; ++i) gv[i] = gx[i] = 0.0f;
    for (int64_t k = w.steps - 1; k >= 0; --k) {
        const float* u = membranes + k * width;
        const S* gs = a.spikes + k * w.step();
#pragma GCC ivdep
        for (int64_t i = 0; i < n; ++i) {
            const float gu = grad_membrane<kind>(u[i], widen(gs[i]), gv[i], threshold, reset);
            gv[i] = decay * gu;
            gx[i] = earlier * gx[i] + gu;
        }
        if (k >= w.x_steps) continue;  // one current for all steps: still adding up
        X* out = a.grad + k * w.step();
        for (int64_t i = 0; i < n; ++i) out[i] = narrow<X>(gx[i]);
        if (!a.scale) continue;
        const X* x = a.x + k * w.step();
        for (int64_t i = 0; i < n; ++i) {
            a.sums[i] += gx[i];
            a.sums_x[i] += gx[i] * (widen(x[i]) - a.mean[i]);
        }
    }
}

template <int T, typename X, typename S> void forward_steps(const Window& w, const Stretch<X, S>& a) {
    if (!a.scale) forward_known<X, S, T, false, false>(w, a);
    else if (w.x_steps == 1) forward_known<X, S, T, true, true>(w, a);
    else forward_known<X, S, T, true, false>(w, a);
}

template <int T, int kind, typename X, typename S> void backward_steps(const Window& w, const Stretch<X, S>& a) {
    if (!a.scale) backward_known<X, S, kind, T, false, false>(w, a);
    else if (w.x_steps == 1) backward_known<X, S, kind, T, true, true>(w, a);
    else backward_known<X, S, kind, T, true, false>(w, a);
}

// `known` is called with the number of steps as a constant, or `any` where no form above is for it.
// Currents without a norm must come step by step for those forms.
template <typename Known, typename Any>
void with_steps(const Window& w, const float* scale, const Known& known, const Any& any) {
    switch (!scale && w.x_steps != w.steps ? 0 : w.steps) {
        case 1: return known(std::integral_constant<int, 1>());
        case 2: return known(std::integral_constant<int, 2>());
        case 4: return known(std::integral_constant<int, 4>());
        case 8: return known(std::integral_constant<int, 8>());
        case 16: return known(std::integral_constant<int, 16>());
        default: return any();
    }
}

template <typename X, typename S>
void forward(const Window& w, const X* x, const float* scale, const float* shift, S* spikes, int threads) {
    const Tiling t = tile(w.channels);
    const Affine affine(scale, shift, w.channels, t);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> memory(2 * t.width);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < t.blocks(w.rows); ++b) {
            const int64_t end = std::min(w.rows, (b + 1) * t.block_rows) * w.channels;
            for (int64_t at = b * t.block_rows * w.channels; at < end; at += t.width) {
                const Stretch<X, S> a{x + at, spikes + at, nullptr, affine.scales(), affine.shifts(),
                                      nullptr, nullptr, nullptr, std::min(t.width, end - at)};
                with_steps(w, scale, [&](auto steps) { forward_steps<steps>(w, a); },
                           [&] { forward_any(w, a, memory.data(), t.width); });
            }
        }
    }
}

// grad_current (x_steps, rows, channels); with scale also, per channel, the sums over rows and steps
// of grad_current and of grad_current * (x - mean).
template <typename X, typename S, int kind>
void backward(const Window& w, const X* x, const float* scale, const float* shift, const float* mean,
              const S* grad_spikes, X* grad_current, double* sum_grad, double* sum_grad_x, int threads) {
    const Tiling t = tile(w.channels);
    const Affine affine(scale, shift, w.channels, t);
    std::vector<float> means;
    if (scale) means = tiled(mean, w.channels, t);
    BlockSums totals(scale ? t.blocks(w.rows) : 0, w.channels, t);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> memory((w.steps + 3) * t.width), sums(t.width), sums_x(t.width);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < t.blocks(w.rows); ++b) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            std::fill(sums_x.begin(), sums_x.end(), 0.0f);
            const int64_t end = std::min(w.rows, (b + 1) * t.block_rows) * w.channels;
            for (int64_t at = b * t.block_rows * w.channels; at < end; at += t.width) {
                const Stretch<X, S> a{x + at, const_cast<S*>(grad_spikes) + at, grad_current + at,
                                      affine.scales(), affine.shifts(), means.data(), sums.data(),
                                      sums_x.data(), std::min(t.width, end - at)};
                with_steps(w, scale, [&](auto steps) { backward_steps<steps, kind>(w, a); },
                           [&] { backward_any<X, S, kind>(w, a, memory.data(), t.width); });
            }
            if (scale) totals.store(b, sums.data(), sums_x.data());
        }
    }
    if (scale) totals.add_up(sum_grad, sum_grad_x);
}

}  // namespace spikingmoe

extern "C" {

void spikingmoe_lif_forward(int x_format, int spike_format, const void* x, int64_t x_steps, int64_t steps,
                            int64_t rows, int64_t channels, const float* scale, const float* shift,
                            float decay, float threshold, void* spikes, int threads) {
    using namespace spikingmoe;
    const Window w{x_steps, steps, rows, channels, decay, threshold, 1.0f};
    SPIKINGMOE_FORMATS(x_format, spike_format,
        (forward(w, static_cast<const X*>(x), scale, shift, static_cast<S*>(spikes), threads)))
}

void spikingmoe_lif_backward(int x_format, int spike_format, int surrogate, const void* x, int64_t x_steps,
                             int64_t steps, int64_t rows, int64_t channels, const float* scale,
                             const float* shift, const float* mean, float decay, float threshold,
                             int detach_reset, const void* grad_spikes, void* grad_current,
                             double* sum_grad, double* sum_grad_x, int threads) {
    using namespace spikingmoe;
    const Window w{x_steps, steps, rows, channels, decay, threshold, detach_reset ? 0.0f : 1.0f};
    SPIKINGMOE_SURROGATE(surrogate, SPIKINGMOE_FORMATS(x_format, spike_format,
        (backward<X, S, kind>(w, static_cast<const X*>(x), scale, shift, mean,
                              static_cast<const S*>(grad_spikes), static_cast<X*>(grad_current), sum_grad,
                              sum_grad_x, threads))))
}
}
