// LIF neurons of experts that work only now and then.
//
// Rows (rows, channels) are ordered by expert, then by token, then by step. A sequence is what one
// (token, expert) pair gets: rows starts[q] .. starts[q + 1], `gaps[r]` steps after the row before.
// In between the membrane decays and cannot spike. The batch norm of each expert is folded in:
//
//   current[r] = scale_ec x[r] + shift_ec
#include "common.h"

namespace spikingmoe {

struct Rows {
    int64_t channels, experts;
    const int64_t* first_sequence;  // (experts + 1,)
    const int64_t* starts;          // (sequences + 1,)
    const uint8_t* gaps;            // (rows,)
    float decay, threshold;
};

struct Chunk {
    int64_t expert, first, last;  // sequences first .. last - 1
};

inline std::vector<Chunk> chunks(const Rows& w) {
    std::vector<Chunk> out;
    for (int64_t e = 0; e < w.experts; ++e)
        for (int64_t q = w.first_sequence[e]; q < w.first_sequence[e + 1]; q += 64)
            out.push_back({e, q, std::min(q + 64, w.first_sequence[e + 1])});
    return out;
}

// u one step after the membranes `before`; without a current it only decays.
inline void decay_membrane(const float* before, const float* current, const Rows& w, int64_t n, float* u) {
    const float decay = w.decay, threshold = w.threshold;
    for (int64_t i = 0; i < n; ++i) u[i] = decay * (before[i] > threshold ? 0.0f : before[i]);
    if (!current) return;
    for (int64_t i = 0; i < n; ++i) u[i] += current[i];
}

template <typename X>
void forward(const Rows& w, const X* x, const float* scale, const float* shift, X* spikes, int threads) {
    const std::vector<Chunk> work = chunks(w);
    const X one = narrow<X>(1.0f), zero = narrow<X>(0.0f);
    const int64_t n = w.channels;
#pragma omp parallel num_threads(threads)
    {
        const float decay = w.decay, threshold = w.threshold;  // locals: no store can change them
        std::vector<float> current(n), membrane(n);
        float *c = current.data(), *v = membrane.data();
#pragma omp for schedule(static)
        for (int64_t k = 0; k < static_cast<int64_t>(work.size()); ++k) {
            const float *sc = scale + work[k].expert * n, *sh = shift + work[k].expert * n;
            for (int64_t q = work[k].first; q < work[k].last; ++q) {
                for (int64_t i = 0; i < n; ++i) v[i] = 0.0f;
                for (int64_t r = w.starts[q]; r < w.starts[q + 1]; ++r) {
                    for (int gap = w.gaps[r]; gap > 1; --gap)
                        for (int64_t i = 0; i < n; ++i) v[i] *= decay;
                    load_current(x + r * n, sc, sh, n, c);
                    X* out = spikes + r * n;
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

// grad_current (rows, channels); per expert and channel the sums of it and of it * (x - mean); and,
// unless null, per row the sum of grad_current * current: the gradient of a gate on the current.
template <typename X, int kind>
void backward(const Rows& w, const X* x, const float* scale, const float* shift, const float* mean,
              const X* grad_spikes, bool detach_reset, X* grad_current, double* sum_grad,
              double* sum_grad_x, float* grad_gate, int threads) {
    const std::vector<Chunk> work = chunks(w);
    const int64_t n = w.channels;
    std::vector<float> sums(2 * work.size() * n);
    int64_t longest = 1;  // steps from the first to the last choice
    for (int64_t q = 0; q < w.first_sequence[w.experts]; ++q) {
        int64_t steps = 1;
        for (int64_t r = w.starts[q]; r < w.starts[q + 1]; ++r) steps += w.gaps[r];
        longest = std::max(longest, steps);
    }
#pragma omp parallel num_threads(threads)
    {
        const float decay = w.decay, threshold = w.threshold, reset = detach_reset ? 0.0f : 1.0f;  // locals: no store can change them
        std::vector<float> membranes(longest * n), currents(longest * n), grad_v(n), product(n);
        float *gv = grad_v.data(), *p = product.data();
#pragma omp for schedule(static)
        for (int64_t k = 0; k < static_cast<int64_t>(work.size()); ++k) {
            const int64_t e = work[k].expert;
            const float *sc = scale + e * n, *sh = shift + e * n, *m = mean + e * n;
            float *s = sums.data() + 2 * k * n, *sx = s + n;
            for (int64_t q = work[k].first; q < work[k].last; ++q) {
                const int64_t first = w.starts[q], last = w.starts[q + 1];
                float* u = membranes.data();  // of all steps, those without a row included
                for (int64_t r = first; r < last; ++r, u += n) {
                    for (int gap = w.gaps[r]; gap > 1; --gap, u += n)
                        decay_membrane(u - n, nullptr, w, n, u);
                    float* c = currents.data() + (r - first) * n;
                    load_current(x + r * n, sc, sh, n, c);
                    if (r == first) std::memcpy(u, c, n * sizeof(float));
                    else decay_membrane(u - n, c, w, n, u);
                }
                for (int64_t i = 0; i < n; ++i) gv[i] = 0.0f;
                for (int64_t r = last - 1; r >= first; --r) {
                    u -= n;
                    const float* c = currents.data() + (r - first) * n;
                    const X *gs = grad_spikes + r * n, *xs = x + r * n;
                    X* out = grad_current + r * n;
#pragma GCC ivdep
                    for (int64_t i = 0; i < n; ++i) {
                        const float gu = grad_membrane<kind>(u[i], widen(gs[i]), gv[i], threshold, reset);
                        gv[i] = decay * gu;
                        out[i] = narrow<X>(gu);
                        s[i] += gu;
                        sx[i] += gu * (widen(xs[i]) - m[i]);
                        p[i] = gu * c[i];
                    }
                    for (int gap = w.gaps[r]; gap > 1; --gap) {
                        u -= n;
                        for (int64_t i = 0; i < n; ++i)
                            gv[i] = decay * grad_membrane<kind>(u[i], 0.0f, gv[i], threshold, reset);
                    }
                    if (grad_gate) grad_gate[r] = ordered_sum(p, n);
                }
            }
        }
    }
    for (int64_t i = 0; i < w.experts * n; ++i) sum_grad[i] = sum_grad_x[i] = 0.0;
    for (size_t k = 0; k < work.size(); ++k)
        for (int64_t i = 0; i < n; ++i) {
            sum_grad[work[k].expert * n + i] += sums[2 * k * n + i];
            sum_grad_x[work[k].expert * n + i] += sums[(2 * k + 1) * n + i];
        }
}

}  // namespace spikingmoe

extern "C" {

void spikingmoe_sequences_forward(int format, const void* x, int64_t channels, int64_t experts,
                                  const int64_t* first_sequence, const int64_t* starts, const uint8_t* gaps,
                                  const float* scale, const float* shift, float decay, float threshold,
                                  void* spikes, int threads) {
    using namespace spikingmoe;
    const Rows w{channels, experts, first_sequence, starts, gaps, decay, threshold};
    SPIKINGMOE_FORMAT(format, (forward(w, static_cast<const X*>(x), scale, shift, static_cast<X*>(spikes), threads)))
}

void spikingmoe_sequences_backward(int format, int surrogate, const void* x, int64_t channels,
                                   int64_t experts, const int64_t* first_sequence, const int64_t* starts,
                                   const uint8_t* gaps, const float* scale, const float* shift,
                                   const float* mean, float decay, float threshold, int detach_reset,
                                   const void* grad_spikes, void* grad_current, double* sum_grad,
                                   double* sum_grad_x, float* grad_gate, int threads) {
    using namespace spikingmoe;
    const Rows w{channels, experts, first_sequence, starts, gaps, decay, threshold};
    SPIKINGMOE_SURROGATE(surrogate, SPIKINGMOE_FORMAT(format,
        (backward<X, kind>(w, static_cast<const X*>(x), scale, shift, mean,
                           static_cast<const X*>(grad_spikes), detach_reset != 0,
                           static_cast<X*>(grad_current), sum_grad, sum_grad_x, grad_gate, threads))))
}
}
