/* Normalisation with SiLU, logits to bits, and bits to values, for CPUs.

Numbers are float32, or bfloat16 if `bf16` is set; all sums are float32 or better. The order of summation depends
neither on the number of threads nor on the other examples of a batch. Compiled by pix2seqd.speed.fused_cpu. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

#define PART 16384 /* numbers that one thread takes at a time */
#define SIDE 4     /* of a patch, as in fused_cpu.py */
#define PATCH (SIDE * SIDE)
#define BLOCK 64 /* pixels whose bits are read together */

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

/* The expected bits of one mask channel of a patch, one pixel in each lane of a vector.

   x [2^n, PATCH] logits of the values, from `at` on; half_odds [n, PATCH] half the log-odds of the bits; e [2^n, PATCH]
   memory; y the patch's first bit of this channel, in rows `row` and pixels `apart` numbers apart. */
INLINE void channel_bits(const void *x, int64_t at, int n, float (*half_odds)[PATCH], float (*e)[PATCH], float scale,
                         float *y, int64_t row, int64_t apart, int bf16) {
    int64_t values = (int64_t)1 << n;
    float maximum[PATCH], total[PATCH], on[PATCH];
    for (int s = 0; s < PATCH; s++) maximum[s] = -INFINITY, total[s] = e[0][s] = 0;
    for (int k = 0; k < n; k++) /* the logit that the bits give a value: their half log-odds, added or subtracted */
        for (int64_t v = ((int64_t)1 << k) - 1; v >= 0; v--)
#pragma omp simd
            for (int s = 0; s < PATCH; s++) {
                e[v + ((int64_t)1 << k)][s] = e[v][s] + half_odds[k][s];
                e[v][s] -= half_odds[k][s];
            }
    for (int64_t v = 0; v < values; v++)
#pragma omp simd
        for (int s = 0; s < PATCH; s++) {
            e[v][s] += get(x, at + v * PATCH + s, bf16);
            maximum[s] = e[v][s] > maximum[s] ? e[v][s] : maximum[s];
        }
    for (int64_t v = 0; v < values; v++)
#pragma omp simd
        for (int s = 0; s < PATCH; s++) {
            e[v][s] = power((e[v][s] - maximum[s]) * LOG2_E);
            total[s] += e[v][s];
        }
    for (int bit = n - 1; bit >= 0; bit--) { /* as in `expected_bits` */
        values /= 2;
        memset(on, 0, sizeof on);
        for (int64_t v = 0; v < values; v++)
#pragma omp simd
            for (int s = 0; s < PATCH; s++) {
                on[s] += e[values + v][s];
                e[v][s] += e[values + v][s];
            }
        for (int s = 0; s < PATCH; s++)
            y[s / SIDE * row + s % SIDE * apart + bit] = (2 * on[s] / total[s] - 1) * scale;
    }
}

/* One patch. x: its logits of all values of each channel, then of all bits, from `at` on; m: its noisy bits; y: its
   bits, likewise in rows `row` and pixels `apart` numbers apart; the other arguments as below. */
INLINE void patch(const void *x, int64_t at, const float *m, float gain, float *y, int64_t row, int64_t apart,
                  const int64_t *bits, int64_t channels, float (*half_odds)[PATCH], float (*e)[PATCH], float scale,
                  int bf16) {
    int64_t odds = at, first = 0;
    for (int64_t i = 0; i < channels; i++) odds += PATCH << bits[i];
    for (int64_t i = 0; i < channels; i++) {
        for (int64_t k = 0; k < bits[i]; k++)
            for (int s = 0; s < PATCH; s++) {
                float z = m[s / SIDE * row + s % SIDE * apart + first + k] * gain;
                half_odds[k][s] = get(x, odds + (first + k) * PATCH + s, bf16) + (z < -5 ? -5 : z > 5 ? 5 : z);
            }
        channel_bits(x, at, bits[i], half_odds, e, scale, y + first, row, apart, bf16);
        at += PATCH << bits[i];
        first += bits[i];
    }
}

/* Expected bits of patches of SIDE x SIDE pixels: x [b, h, w, outputs, PATCH], noisy bits m [b, SIDE h, SIDE w, all],
   gain [b] -> y as m. `bits` has the number of bits of each of the `channels`; `all` is their sum. */
void patch_bits(const void *x, const float *m, const float *gain, float *y, int64_t b, int64_t h, int64_t w,
                const int64_t *bits, int64_t channels, float scale, int bf16, int threads) {
    int64_t outputs = 0, all = 0, most = 0;
    for (int64_t i = 0; i < channels; i++) {
        outputs += bits[i] + ((int64_t)1 << bits[i]);
        all += bits[i];
        most = bits[i] > most ? bits[i] : most;
    }
    int64_t row = SIDE * w * all, apart = all;
#pragma omp parallel num_threads(b * h * w * outputs * PATCH > PART ? threads : 1)
    {
        float (*e)[PATCH] = malloc(sizeof *e << most), (*half_odds)[PATCH] = malloc(sizeof *half_odds * most);
#pragma omp for
        for (int64_t i = 0; i < b * h; i++)
            for (int64_t j = 0; j < w; j++) {
                int64_t at = (i * w + j) * outputs * PATCH, pixel = i * SIDE * row + j * SIDE * apart;
                if (bf16)
                    patch(x, at, m + pixel, gain[i / h], y + pixel, row, apart, bits, channels, half_odds, e, scale, 1);
                else
                    patch(x, at, m + pixel, gain[i / h], y + pixel, row, apart, bits, channels, half_odds, e, scale, 0);
            }
        free(e);
        free(half_odds);
    }
}

/* What the signs of analog bits x [b, hw, all] say of each of the `channels`: values [b, channels, hw], and
   probabilities likewise, as `analog_bits` has them; what is not wanted is NULL. `bits` as in `patch_bits`. */
void read_values(const float *x, int64_t *values, float *probabilities, int64_t b, int64_t hw, const int64_t *bits,
                 int64_t channels, float scale, int threads) {
    int64_t all = 0;
    for (int64_t i = 0; i < channels; i++) all += bits[i];
#pragma omp parallel for num_threads(b * hw * all > PART ? threads : 1)
    for (int64_t block = 0; block < b * ((hw + BLOCK - 1) / BLOCK); block++) {
        int64_t n = block / ((hw + BLOCK - 1) / BLOCK), from = block % ((hw + BLOCK - 1) / BLOCK) * BLOCK;
        int64_t here = hw - from < BLOCK ? hw - from : BLOCK;
        const float *bit = x + (n * hw + from) * all;
        for (int64_t i = 0; i < channels; i++) {
            int64_t at = (n * channels + i) * hw + from;
            int64_t value[BLOCK] = {0};
            float probability[BLOCK];
            for (int s = 0; s < BLOCK; s++) probability[s] = 1;
            for (int64_t k = 0; k < bits[i]; k++, bit++) {
                if (values)
#pragma omp simd
                    for (int s = 0; s < here; s++) value[s] |= (int64_t)(bit[s * all] > 0) << k;
                else
#pragma omp simd
                    for (int s = 0; s < here; s++) probability[s] *= (1 + fabsf(bit[s * all]) / scale) / 2;
            }
            for (int s = 0; s < here; s++)
                if (values)
                    values[at + s] = value[s];
                else
                    probabilities[at + s] = probability[s] > 1 ? 1 : probability[s];
        }
    }
}
