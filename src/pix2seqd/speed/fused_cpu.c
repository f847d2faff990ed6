/* Normalisation with SiLU, and softmax to bits, for CPUs.

Numbers are float32, or bfloat16 if `bf16` is set; all sums are float32 or better. The order of summation depends
neither on the number of threads nor on the other examples of a batch. Compiled by pix2seqd.speed.fused_cpu. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

#define PART 16384 /* numbers that one thread takes at a time */

/* Per channel: sum of a part's values minus a number near their mean, and sum of the squares of these differences. */
INLINE void sums(const void *x, int64_t rows, int64_t c, const float *near, float *sum, float *squares, int bf16) {
    memset(sum, 0, c * sizeof(float));
    memset(squares, 0, c * sizeof(float));
    for (int64_t row = 0; row < rows; row++)
#pragma omp simd
        for (int64_t k = 0; k < c; k++) {
            float away = get(x, row * c + k, bf16) - near[k];
            sum[k] += away;
            squares[k] += away * away;
        }
}

INLINE void apply(const void *x, void *y, int64_t rows, int64_t c, const float *scale, const float *shift, int silu,
                  int bf16) {
    for (int64_t row = 0; row < rows; row++)
#pragma omp simd
        for (int64_t k = 0; k < c; k++) {
            float z = get(x, row * c + k, bf16) * scale[k] + shift[k], e = power(fabsf(z) * -LOG2_E);
            set(y, row * c + k, silu ? z * (z < 0 ? e : 1) / (1 + e) : z, bf16);
        }
}

/* Scale and shift of one example's channels, from the sums of all its parts. */
static void moments(const float *parts, int64_t count, int64_t hw, int64_t c, int64_t groups, const float *near,
                    const float *weight, const float *bias, float eps, float *scale, float *shift) {
    int64_t size = c / groups;
    double totals[2 * c], *means = totals, *squares_of = totals + c;
    memset(totals, 0, sizeof(totals));
    for (int64_t part = 0; part < count; part++)
        for (int64_t k = 0; k < 2 * c; k++) totals[k] += parts[part * 2 * c + k];
    for (int64_t k = 0; k < c; k++) { /* sums become means, squares those around the means */
        squares_of[k] -= means[k] * means[k] / hw;
        means[k] = near[k] + means[k] / hw;
    }
    for (int64_t group = 0; group < groups; group++) {
        double mean = 0, squares = 0;
        int64_t first = group * size, last = first + size;
        for (int64_t k = first; k < last; k++) mean += means[k] / size;
        for (int64_t k = first; k < last; k++) squares += squares_of[k] + hw * (means[k] - mean) * (means[k] - mean);
        double rstd = 1 / sqrt((squares < 0 ? 0 : squares) / (hw * size) + eps); /* NaN stays NaN */
        for (int64_t k = first; k < last; k++) {
            scale[k] = weight[k] * rstd;
            shift[k] = bias[k] - mean * scale[k];
        }
    }
}

/* x, y [b, hw, c]; weight, bias [b, c] with `apart` c, or [1, c] with `apart` 0. */
void group_norm(const void *x, void *y, int64_t b, int64_t hw, int64_t c, int64_t groups, const float *weight,
                const float *bias, int64_t apart, float eps, int silu, int bf16, int threads) {
    int64_t width = bf16 ? 2 : 4, rows = PART / c < 1 ? 1 : PART / c < 256 ? PART / c : 256; /* longer sums lose bits */
    int64_t count = (hw + rows - 1) / rows;
    float *parts = malloc(b * count * 2 * c * sizeof(float)), *affine = malloc(b * 3 * c * sizeof(float));
#pragma omp parallel num_threads(b * count > 1 ? threads : 1)
    {
#pragma omp for
        for (int64_t n = 0; n < b; n++) { /* the mean of an example's first part; a single pixel may be an outlier */
            float *near = affine + (n * 3 + 2) * c;
            int64_t here = hw < rows ? hw : rows;
            memset(near, 0, c * sizeof(float));
            for (int64_t row = 0; row < here; row++)
                for (int64_t k = 0; k < c; k++) near[k] += get(x, (n * hw + row) * c + k, bf16) / here;
        }
#pragma omp for
        for (int64_t i = 0; i < b * count; i++) {
            int64_t n = i / count, first = i % count * rows, here = hw - first < rows ? hw - first : rows;
            const char *from = (const char *)x + (n * hw + first) * c * width;
            float *sum = parts + i * 2 * c, *near = affine + (n * 3 + 2) * c;
            bf16 ? sums(from, here, c, near, sum, sum + c, 1) : sums(from, here, c, near, sum, sum + c, 0);
        }
#pragma omp for
        for (int64_t n = 0; n < b; n++) {
            float *scale = affine + n * 3 * c;
            moments(parts + n * count * 2 * c, count, hw, c, groups, scale + 2 * c, weight + n * apart,
                    bias + n * apart, eps, scale, scale + c);
        }
#pragma omp for
        for (int64_t i = 0; i < b * count; i++) {
            int64_t n = i / count, first = i % count * rows, here = hw - first < rows ? hw - first : rows;
            int64_t at = (n * hw + first) * c * width;
            const char *from = (const char *)x + at;
            char *to = (char *)y + at;
            float *scale = affine + n * 3 * c, *shift = scale + c;
            if (silu)
                bf16 ? apply(from, to, here, c, scale, shift, 1, 1) : apply(from, to, here, c, scale, shift, 1, 0);
            else
                bf16 ? apply(from, to, here, c, scale, shift, 0, 1) : apply(from, to, here, c, scale, shift, 0, 0);
        }
    }
    free(parts);
    free(affine);
}

/* e = exp(x - max x); returns the sum. */
INLINE float exponentials(const void *x, int64_t m, float *e, int bf16) {
    float maximum = -INFINITY, sum = 0;
#pragma omp simd reduction(max : maximum)
    for (int64_t k = 0; k < m; k++) maximum = get(x, k, bf16) > maximum ? get(x, k, bf16) : maximum;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < m; k++) {
        e[k] = power((get(x, k, bf16) - maximum) * LOG2_E);
        sum += e[k];
    }
    return sum;
}

/* Expected bits in [-scale, scale], y [pixels, n], of logits x [pixels, 2^n]; pixels are `apart` numbers apart. */
void expected_bits(const void *x, float *y, int64_t pixels, int64_t apart, int n, float scale, int bf16, int threads) {
#pragma omp parallel num_threads(pixels << n > PART ? threads : 1)
    {
        float *e = malloc(((int64_t)1 << n) * sizeof(float));
#pragma omp for
        for (int64_t pixel = 0; pixel < pixels; pixel++) {
            int64_t values = (int64_t)1 << n;
            const char *from = (const char *)x + pixel * apart * (bf16 ? 2 : 4);
            float total = bf16 ? exponentials(from, values, e, 1) : exponentials(from, values, e, 0);
            for (int bit = n - 1; bit >= 0; bit--) { /* sum the values with the highest bit, then drop that bit */
                float on = 0;
                values /= 2;
#pragma omp simd reduction(+ : on)
                for (int64_t k = 0; k < values; k++) {
                    on += e[values + k];
                    e[k] += e[values + k];
                }
                y[pixel * n + bit] = (2 * on / total - 1) * scale;
            }
        }
        free(e);
    }
}
