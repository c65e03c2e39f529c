// Batch norm over rows (rows, channels): statistics, affine map, and its gradient.
#include "common.h"

namespace spikingmoe {

// Mean and sum of squared deviations per channel: two passes over a block, the second one corrected for
// what the mean of the first lacks (Chan, Golub and LeVeque 1983, eq. 1.7); blocks merged in order in
// float64 (ibid., eq. 2.1).
template <typename X>
void statistics(const X* x, int64_t rows, int64_t channels, double* mean, double* square, int threads) {
    const Tiling t = tile(channels);
    const int64_t blocks = t.blocks(rows);
    std::vector<double> block_means(blocks * channels), block_squares(blocks * channels);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> sums(t.width), squares(t.width), tiled_means(t.width), means(channels);
        float *s = sums.data(), *q = squares.data(), *m = tiled_means.data();
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t first = b * t.block_rows, last = std::min(rows, first + t.block_rows);
            const double here = static_cast<double>(last - first);
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (int64_t at = first * channels; at < last * channels; at += t.width) {
                const int64_t n = std::min(t.width, last * channels - at);
                for (int64_t i = 0; i < n; ++i) s[i] += widen(x[at + i]);
            }
            std::fill(means.begin(), means.end(), 0.0f);
            for (int64_t i = 0; i < t.width; ++i) means[i % channels] += s[i];
            for (int64_t i = 0; i < channels; ++i) means[i] /= static_cast<float>(here);
            for (int64_t r = 0; r < t.rows_at_once; ++r)
                std::memcpy(m + r * channels, means.data(), channels * sizeof(float));
            std::fill(sums.begin(), sums.end(), 0.0f);
            std::fill(squares.begin(), squares.end(), 0.0f);
            for (int64_t at = first * channels; at < last * channels; at += t.width) {
                const int64_t n = std::min(t.width, last * channels - at);
                for (int64_t i = 0; i < n; ++i) {
                    const float d = widen(x[at + i]) - m[i];
                    s[i] += d;
                    q[i] += d * d;
                }
            }
            double *rest = block_means.data() + b * channels, *square_b = block_squares.data() + b * channels;
            for (int64_t i = 0; i < t.width; ++i) {
                rest[i % channels] += s[i];
                square_b[i % channels] += q[i];
            }
            for (int64_t i = 0; i < channels; ++i) {
                square_b[i] = std::max(0.0, square_b[i] - rest[i] * rest[i] / here);
                rest[i] = means[i] + rest[i] / here;
            }
        }
    }
    for (int64_t i = 0; i < channels; ++i) mean[i] = square[i] = 0.0;
    for (int64_t b = 0; b < blocks; ++b) {
        const double before = static_cast<double>(b * t.block_rows);
        const double here = static_cast<double>(std::min(rows, (b + 1) * t.block_rows)) - before;
        for (int64_t i = 0; i < channels; ++i) {
            const double d = block_means[b * channels + i] - mean[i];
            mean[i] += d * here / (before + here);
            square[i] += block_squares[b * channels + i] + d * d * before * here / (before + here);
        }
    }
}

template <typename X>
void apply(const X* x, int64_t rows, int64_t channels, const float* scale, const float* shift, float* out,
           int threads) {
    const Tiling t = tile(channels);
    const Affine affine(scale, shift, channels, t);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t b = 0; b < t.blocks(rows); ++b) {
        const int64_t end = std::min(rows, (b + 1) * t.block_rows) * channels;
        for (int64_t at = b * t.block_rows * channels; at < end; at += t.width)
            load_current(x + at, affine.scales(), affine.shifts(), std::min(t.width, end - at), out + at);
    }
}

// Sums of g and of g (x - mean) per channel.
template <typename X>
void gradient_sums(const float* g, const X* x, int64_t rows, int64_t channels, const float* mean,
                   double* sum_grad, double* sum_grad_x, int threads) {
    const Tiling t = tile(channels);
    const std::vector<float> means = tiled(mean, channels, t);
    BlockSums totals(t.blocks(rows), channels, t);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> sums(t.width), sums_x(t.width);
        float *s = sums.data(), *sx = sums_x.data();
        const float* m = means.data();
#pragma omp for schedule(static)
        for (int64_t b = 0; b < t.blocks(rows); ++b) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            std::fill(sums_x.begin(), sums_x.end(), 0.0f);
            const int64_t end = std::min(rows, (b + 1) * t.block_rows) * channels;
            for (int64_t at = b * t.block_rows * channels; at < end; at += t.width) {
                const int64_t n = std::min(t.width, end - at);
                for (int64_t i = 0; i < n; ++i) {
                    s[i] += g[at + i];
                    sx[i] += g[at + i] * (widen(x[at + i]) - m[i]);
                }
            }
            totals.store(b, s, sx);
        }
    }
    totals.add_up(sum_grad, sum_grad_x);
}

// out = a_c g + b_c x + c_c
template <typename G, typename X>
void combine(const G* g, const X* x, int64_t rows, int64_t channels, const float* a, const float* b,
             const float* c, X* out, int threads) {
    const Tiling t = tile(channels);
    const std::vector<float> as = tiled(a, channels, t), bs = tiled(b, channels, t), cs = tiled(c, channels, t);
    const float *pa = as.data(), *pb = bs.data(), *pc = cs.data();
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < t.blocks(rows); ++k) {
        const int64_t end = std::min(rows, (k + 1) * t.block_rows) * channels;
        for (int64_t at = k * t.block_rows * channels; at < end; at += t.width) {
            const int64_t n = std::min(t.width, end - at);
            for (int64_t i = 0; i < n; ++i)
                out[at + i] = narrow<X>(pa[i] * widen(g[at + i]) + pb[i] * widen(x[at + i]) + pc[i]);
        }
    }
}

// out_r = sum over the row of a b
template <typename A, typename B>
void row_products(const A* a, const B* b, int64_t rows, int64_t channels, float* out, int threads) {
    const Tiling t = tile(channels);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> product(channels);
        float* p = product.data();
#pragma omp for schedule(static)
        for (int64_t k = 0; k < t.blocks(rows); ++k)
            for (int64_t r = k * t.block_rows; r < std::min(rows, (k + 1) * t.block_rows); ++r) {
                const A* left = a + r * channels;
                const B* right = b + r * channels;
                for (int64_t i = 0; i < channels; ++i) p[i] = widen(left[i]) * widen(right[i]);
                out[r] = ordered_sum(p, channels);
            }
    }
}

}  // namespace spikingmoe

extern "C" {

void spikingmoe_norm_statistics(int format, const void* x, int64_t rows, int64_t channels, double* mean,
                                double* square, int threads) {
    using namespace spikingmoe;
    SPIKINGMOE_FORMAT(format, (statistics(static_cast<const X*>(x), rows, channels, mean, square, threads)))
}

void spikingmoe_norm_apply(int format, const void* x, int64_t rows, int64_t channels, const float* scale,
                           const float* shift, float* out, int threads) {
    using namespace spikingmoe;
    SPIKINGMOE_FORMAT(format, (apply(static_cast<const X*>(x), rows, channels, scale, shift, out, threads)))
}

void spikingmoe_norm_gradient_sums(int format, const float* g, const void* x, int64_t rows, int64_t channels,
                                   const float* mean, double* sum_grad, double* sum_grad_x, int threads) {
    using namespace spikingmoe;
    SPIKINGMOE_FORMAT(format, (gradient_sums(g, static_cast<const X*>(x), rows, channels, mean, sum_grad,
                                             sum_grad_x, threads)))
}

void spikingmoe_norm_combine(int grad_format, int format, const void* g, const void* x, int64_t rows,
                             int64_t channels, const float* a, const float* b, const float* c, void* out,
                             int threads) {
    using namespace spikingmoe;
    SPIKINGMOE_FORMAT(grad_format, using G = X; SPIKINGMOE_FORMAT(format,
        (combine(static_cast<const G*>(g), static_cast<const X*>(x), rows, channels, a, b, c,
                 static_cast<X*>(out), threads))))
}

void spikingmoe_row_products(int a_format, int b_format, const void* a, const void* b, int64_t rows,
                             int64_t channels, float* out, int threads) {
    using namespace spikingmoe;
    SPIKINGMOE_FORMAT(a_format, using A = X; SPIKINGMOE_FORMAT(b_format,
        (row_products(static_cast<const A*>(a), static_cast<const X*>(b), rows, channels, out, threads))))
}
}
