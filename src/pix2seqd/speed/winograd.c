/* 3 x 3 convolutions of float32 by Winograd's method F(4 x 4, 3 x 3): see pix2seqd.speed.winograd, which calls this.

Maps are [b, h, w, c]. The bits of a result depend neither on other images nor on the number of threads. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

#ifndef LANES
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));

#define A 0.75f /* the points are 0, A, -A, B, -B and infinity, as in winograd.py */
#define B 1.5f
#define TILES 96 /* at a time, so that intermediate results stay in a processor's cache */
#define ROWS 6   /* of TILES: sums of 2 * LANES channels fill the registers */
#define DEPTH 128 /* channels that are summed in a row: longer sums lose bits */
#define APART(c) (TILES * (c) + 16) /* distance between a tile's 36 numbers; a power of 2 would share cache lines */

INLINE lanes load(const float *at) {
    lanes x;
    memcpy(&x, at, sizeof x);
    return x;
}

INLINE void store(float *at, lanes x) { memcpy(at, &x, sizeof x); }

/* Six pixels in a line times the transposed inverse of the points' Vandermonde matrix, except for a factor of each row,
   which winograd.py multiplies into the kernel. */
INLINE void input_transform(lanes *x, int apart) {
    lanes x1 = x[apart], x2 = x[2 * apart], x3 = x[3 * apart], x4 = x[4 * apart];
    lanes even_a = x4 - B * B * x2, odd_a = A * (x3 - B * B * x1);
    lanes even_b = x4 - A * A * x2, odd_b = B * (x3 - A * A * x1);
    x[0] = A * A * B * B * x[0] - (A * A + B * B) * x2 + x4;
    x[apart] = even_a + odd_a;
    x[2 * apart] = even_a - odd_a;
    x[3 * apart] = even_b + odd_b;
    x[4 * apart] = even_b - odd_b;
    x[5 * apart] = A * A * B * B * x1 - (A * A + B * B) * x3 + x[5 * apart];
}

/* Six products in a line times the transposed Vandermonde matrix of four columns: four results. */
INLINE void output_transform(lanes *x, int apart) {
    lanes even_a = x[apart] + x[2 * apart], odd_a = x[apart] - x[2 * apart];
    lanes even_b = x[3 * apart] + x[4 * apart], odd_b = x[3 * apart] - x[4 * apart];
    x[0] = x[0] + even_a + even_b;
    x[apart] = A * odd_a + B * odd_b;
    x[2 * apart] = A * A * even_a + B * B * even_b;
    x[3 * apart] = A * A * A * odd_a + B * B * B * odd_b + x[5 * apart];
}

/* Transform the tile whose 6 x 6 pixels begin at `top` and `left`; pixels outside the image are 0. */
INLINE void tile_values(const float *x, float *values, int64_t h, int64_t w, int64_t c, int64_t top, int64_t left) {
    for (int64_t k = 0; k < c; k += LANES) {
        lanes tile[36];
        for (int i = 0; i < 6; i++)
            for (int j = 0; j < 6; j++) {
                int64_t row = top + i, column = left + j;
                int inside = row >= 0 && row < h && column >= 0 && column < w;
                tile[i * 6 + j] = inside ? load(x + (row * w + column) * c + k) : (lanes){0};
            }
        for (int j = 0; j < 6; j++) input_transform(tile + j, 6);
        for (int i = 0; i < 6; i++) input_transform(tile + i * 6, 1);
        for (int i = 0; i < 36; i++) store(values + i * APART(c) + k, tile[i]);
    }
}

/* The 4 x 4 results of the tile that begins at `top` and `left`, without pixels outside the image. */
INLINE void tile_results(const float *products, const float *bias, float *y, int64_t h, int64_t w, int64_t c,
                         int64_t top, int64_t left) {
    for (int64_t k = 0; k < c; k += LANES) {
        lanes tile[36], plus = load(bias + k);
        for (int i = 0; i < 36; i++) tile[i] = load(products + i * APART(c) + k);
        for (int j = 0; j < 6; j++) output_transform(tile + j, 6);
        for (int i = 0; i < 4; i++) {
            output_transform(tile + i * 6, 1);
            for (int j = 0; j < 4; j++)
                if (top + i < h && left + j < w) store(y + ((top + i) * w + left + j) * c + k, tile[i * 6 + j] + plus);
        }
    }
}

/* y [ROWS, out], 2 * LANES columns of it: values [ROWS, in] times kernel [in, 2 * LANES]. */
INLINE void product(const float *values, const float *kernel, float *y, int64_t in, int64_t out) {
    for (int64_t from = 0; from < in; from += DEPTH) {
        lanes sums[ROWS][2];
        for (int row = 0; row < ROWS; row++) sums[row][0] = sums[row][1] = (lanes){0};
        for (int64_t k = from; k < in && k < from + DEPTH; k++) {
            lanes first = load(kernel + k * 2 * LANES), second = load(kernel + k * 2 * LANES + LANES);
            for (int row = 0; row < ROWS; row++) {
                sums[row][0] += values[row * in + k] * first;
                sums[row][1] += values[row * in + k] * second;
            }
        }
        for (int row = 0; row < ROWS; row++) {
            float *at = y + row * out;
            store(at, from ? load(at) + sums[row][0] : sums[row][0]);
            store(at + LANES, from ? load(at + LANES) + sums[row][1] : sums[row][1]);
        }
    }
}

/* Number of output channels that are adjacent in the kernel. */
int winograd_block(void) { return 2 * LANES; }

/* x [b, h, w, in], kernel [36, out / block, in, block], bias [out] -> y [b, h, w, out]. */
void winograd(const float *x, const float *kernel, const float *bias, float *y, int64_t b, int64_t h, int64_t w,
              int64_t in, int64_t out, int threads) {
    int64_t across = (w + 3) / 4, all = (h + 3) / 4 * across;
    float *values = calloc(36 * APART(in), sizeof(float)), *products = malloc(36 * APART(out) * sizeof(float));
#pragma omp parallel num_threads(threads)
    for (int64_t n = 0; n < b; n++)
        for (int64_t first = 0; first < all; first += TILES) {
            int64_t tiles = all - first < TILES ? all - first : TILES;
#pragma omp for
            for (int64_t i = 0; i < tiles; i++) {
                int64_t top = (first + i) / across * 4, left = (first + i) % across * 4;
                tile_values(x + n * h * w * in, values + i * in, h, w, in, top - 1, left - 1);
            }
#pragma omp for collapse(2)
            for (int64_t i = 0; i < 36; i++)
                for (int64_t k = 0; k < out; k += 2 * LANES)
                    for (int64_t tile = 0; tile < tiles; tile += ROWS)
                        product(values + i * APART(in) + tile * in, kernel + (i * out + k) * in,
                                products + i * APART(out) + tile * out + k, in, out);
#pragma omp for
            for (int64_t i = 0; i < tiles; i++) {
                int64_t top = (first + i) / across * 4, left = (first + i) % across * 4;
                tile_results(products + i * out, bias, y + n * h * w * out, h, w, out, top, left);
            }
        }
    free(values);
    free(products);
}
