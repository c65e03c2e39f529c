// Leaky integrate-and-fire neurons over a whole window, with the batch norm before them folded in.
//
//   current[t] = scale_c x[t] + shift_c;  u = decay v + current[t];  s = u > threshold;  v = u (1 - s)
//
// The membranes are not kept for the backward pass: it computes them again from x, a block at a time.
// x is (x_steps, rows, channels) with x_steps = steps, or 1 for a current that is the same at each step.
#include "common.h"

namespace spikingmoe {

struct Window {
    int64_t x_steps, steps, rows, channels;
    float decay, threshold;
};

template <typename X, typename S>
void forward(const Window& w, const X* x, const float* scale, const float* shift, S* spikes, int threads) {
    const Tiling t = tile(w.channels);
    const Affine affine(scale, shift, w.channels, t);
    const int64_t step = w.rows * w.channels;
    const S one = narrow<S>(1.0f), zero = narrow<S>(0.0f);
#pragma omp parallel num_threads(threads)
    {
        const float decay = w.decay, threshold = w.threshold;  // locals: no store can change them
        std::vector<float> current(t.width), membrane(t.width);
        float *c = current.data(), *v = membrane.data();
#pragma omp for schedule(static)
        for (int64_t b = 0; b < t.blocks(w.rows); ++b) {
            const int64_t end = std::min(w.rows, (b + 1) * t.block_rows) * w.channels;
            for (int64_t at = b * t.block_rows * w.channels; at < end; at += t.width) {
                const int64_t n = std::min(t.width, end - at);
                for (int64_t i = 0; i < n; ++i) v[i] = 0.0f;
                for (int64_t k = 0; k < w.steps; ++k) {
                    if (k < w.x_steps) affine.load(x + k * step + at, n, c);
                    S* out = spikes + k * step + at;
                    for (int64_t i = 0; i < n; ++i) {
                        const float u = decay * v[i] + c[i];
                        const bool fires = u > threshold;
                        out[i] = fires ? one : zero;
                        v[i] = fires ? 0.0f : u;
                    }
                }
            }
        }
    }
}

// grad_current (x_steps, rows, channels); with scale also, per channel, the sums over rows and steps
// of grad_current and of grad_current * (x - mean).
template <typename X, typename S, int kind>
void backward(const Window& w, const X* x, const float* scale, const float* shift, const float* mean,
              const S* grad_spikes, bool detach_reset, X* grad_current, double* sum_grad,
              double* sum_grad_x, int threads) {
    const Tiling t = tile(w.channels);
    const Affine affine(scale, shift, w.channels, t);
    std::vector<float> means;
    if (scale) means = tiled(mean, w.channels, t);
    const int64_t step = w.rows * w.channels;
    BlockSums totals(scale ? t.blocks(w.rows) : 0, w.channels, t);
#pragma omp parallel num_threads(threads)
    {
        const float decay = w.decay, threshold = w.threshold, reset = detach_reset ? 0.0f : 1.0f,
                    earlier = w.x_steps == 1 ? 1.0f : 0.0f;  // locals: no store can change them
        std::vector<float> membranes(w.steps * t.width), current(t.width), grad_v(t.width), grad_x(t.width);
        std::vector<float> sums(t.width), sums_x(t.width);
        float *c = current.data(), *gv = grad_v.data(), *gx = grad_x.data();
#pragma omp for schedule(static)
        for (int64_t b = 0; b < t.blocks(w.rows); ++b) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            std::fill(sums_x.begin(), sums_x.end(), 0.0f);
            const int64_t end = std::min(w.rows, (b + 1) * t.block_rows) * w.channels;
            for (int64_t at = b * t.block_rows * w.channels; at < end; at += t.width) {
                const int64_t n = std::min(t.width, end - at);
                for (int64_t k = 0; k < w.steps; ++k) {  // the membranes u, again
                    if (k < w.x_steps) affine.load(x + k * step + at, n, c);
                    float* u = membranes.data() + k * t.width;
                    if (k == 0) {
                        for (int64_t i = 0; i < n; ++i) u[i] = c[i];
                    } else {
                        const float* before = u - t.width;
                        for (int64_t i = 0; i < n; ++i) {
                            const float v = before[i] > threshold ? 0.0f : before[i];
                            u[i] = decay * v + c[i];
                        }
                    }
                }
                for (int64_t i = 0; i < n; ++i) gv[i] = gx[i] = 0.0f;
                for (int64_t k = w.steps - 1; k >= 0; --k) {
                    const float* u = membranes.data() + k * t.width;
                    const S* gs = grad_spikes + k * step + at;
#pragma GCC ivdep
                    for (int64_t i = 0; i < n; ++i) {
                        const float gu = grad_membrane<kind>(u[i], widen(gs[i]), gv[i], threshold, reset);
                        gv[i] = decay * gu;
                        gx[i] = earlier * gx[i] + gu;
                    }
                    if (k >= w.x_steps) continue;  // one current for all steps: still adding up
                    X* out = grad_current + k * step + at;
                    for (int64_t i = 0; i < n; ++i) out[i] = narrow<X>(gx[i]);
                    if (scale) {
                        const X* xs = x + k * step + at;
                        const float* m = means.data();
                        for (int64_t i = 0; i < n; ++i) {
                            sums[i] += gx[i];
                            sums_x[i] += gx[i] * (widen(xs[i]) - m[i]);
                        }
                    }
                }
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
    const Window w{x_steps, steps, rows, channels, decay, threshold};
    SPIKINGMOE_FORMATS(x_format, spike_format,
        (forward(w, static_cast<const X*>(x), scale, shift, static_cast<S*>(spikes), threads)))
}

void spikingmoe_lif_backward(int x_format, int spike_format, int surrogate, const void* x, int64_t x_steps,
                             int64_t steps, int64_t rows, int64_t channels, const float* scale,
                             const float* shift, const float* mean, float decay, float threshold,
                             int detach_reset, const void* grad_spikes, void* grad_current,
                             double* sum_grad, double* sum_grad_x, int threads) {
    using namespace spikingmoe;
    const Window w{x_steps, steps, rows, channels, decay, threshold};
    SPIKINGMOE_SURROGATE(surrogate, SPIKINGMOE_FORMATS(x_format, spike_format,
        (backward<X, S, kind>(w, static_cast<const X*>(x), scale, shift, mean,
                              static_cast<const S*>(grad_spikes), detach_reset != 0,
                              static_cast<X*>(grad_current), sum_grad, sum_grad_x, threads))))
}
}
