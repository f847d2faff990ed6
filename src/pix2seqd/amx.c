/* Attention in bfloat16 by AMX. See pix2seqd.amx, which calls this.

A product's left side are rows of numbers; 32 numbers, 64 bytes, of each of 16 rows make a tile. Its right side is packed:
for each 32 numbers of the rows two tiles of 16 columns, in which numbers lie by twos. Sums are float32. What a result's
bits are does not depend on other examples, nor on the number of threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "numbers.h"

#define TILE 1024 /* bytes */

#ifdef __AMX_BF16__
#include <immintrin.h>
#else /* the same in plain C, for tests elsewhere */
static _Thread_local char tiles[8][TILE];
#define _tile_zero(t) memset(tiles[t], 0, TILE)
#define _tile_loadd(t, from, apart) \
    for (int i = 0; i < 16; i++) memcpy(tiles[t] + 64 * i, (const char *)(from) + i * (apart), 64)
#define _tile_stored(t, to, apart) \
    for (int i = 0; i < 16; i++) memcpy((char *)(to) + i * (apart), tiles[t] + 64 * i, 64)
#define _tile_storeconfig(to) memset(to, 0, 64)
#define _tile_loadconfig(from) (void)(from)
static void _tile_dpbf16ps(int sums, int left, int right) {
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 32; k++)
            for (int j = 0; j < 16; j++)
                ((float *)tiles[sums])[16 * i + j] +=
                    get(tiles[left], 32 * i + k, 1) * get(tiles[right], k / 2 * 32 + 2 * j + k % 2, 1);
}
#endif

/* Whether this processor, and the system, let the process use AMX. */
int amx(void) {
#ifdef __AMX_BF16__
    return syscall(SYS_arch_prctl, 0x1023 /* ask for a feature */, 18 /* data of tiles */) == 0;
#else
    return 0;
#endif
}

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} shapes;

/* The tiles' shapes are this thread's: others (PyTorch) keep theirs there, too. Gives what they were. */
INLINE shapes begin(void) {
    shapes before, ours = {.palette = 1};
    for (int i = 0; i < 8; i++) ours.bytes[i] = 64, ours.rows[i] = 16;
    _tile_storeconfig(&before);
    _tile_loadconfig(&ours);
    return before;
}

INLINE void end(shapes before) { _tile_loadconfig(&before); }

/* sums [32, 32] of 32 rows, `row` bytes apart, with 32 packed columns, over `depth` blocks of 32 numbers. */
INLINE void product(const void *rows, int64_t row, int64_t depth, const void *columns, float *sums) {
    const char *left = rows, *right = columns;
    __asm__ volatile("" ::: "memory"); /* gcc 12 does not know that tiles are loaded from memory */
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < depth; k++, left += 64, right += 2 * TILE) {
        _tile_loadd(4, left, row);
        _tile_loadd(6, right, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + 16 * row, row);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    _tile_stored(2, sums + 16 * 32, 128);
    _tile_stored(3, sums + 16 * 32 + 16, 128);
}

/* 32 queries as packed columns, [d / 32, 2, 16, 16, 2]; those after the last are zeros. */
INLINE void pack_queries(const uint16_t *q, int64_t apart, int64_t count, int64_t d, uint16_t *to) {
    for (int64_t k = 0; k < d; k += 2)
        for (int64_t n = 0; n < 32; n++) {
            uint32_t pair = 0;
            if (n < count) memcpy(&pair, q + n * apart + k, 4);
            memcpy(to + k / 32 * 1024 + n / 16 * 512 + k % 32 / 2 * 32 + n % 16 * 2, &pair, 4);
        }
}

/* 32 keys; those after the last are zeros. */
INLINE void pack_keys(const uint16_t *k, int64_t apart, int64_t count, int64_t d, uint16_t *to) {
    for (int64_t i = 0; i < count; i++) memcpy(to + i * d, k + i * apart, d * 2);
    memset(to + count * d, 0, (32 - count) * d * 2);
}

/* 32 values as [d, 32], whose rows lie `full` apart; those after the last are zeros. */
INLINE void turn_values(const uint16_t *v, int64_t apart, int64_t count, int64_t d, uint16_t *to, int64_t full) {
    for (int64_t j = 0; j < d; j++)
        for (int64_t i = 0; i < 32; i++) to[j * full + i] = i < count ? v[i * apart + j] : 0;
}

/* `exponentials`: 2^((score - most) * scale) of m scores of 32 queries, [m, 32], as packed columns, and their sums. */
#ifdef __AMX_BF16__
/* 2^t, as `power`, but of relative error 1e-4: it is rounded to bfloat16. */
INLINE __m512 coarse_power(__m512 t) {
    t = _mm512_max_ps(_mm512_set1_ps(-100), t); /* of these operands the second, if it is no number */
    __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), p = _mm512_set1_ps(0.07802451f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22606717f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69583354f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99992522f)), t);
}

INLINE void exponentials(const float *scores, int64_t m, const float *most, float scale, uint32_t *packed, float *sums) {
    uint16_t twos[32]; /* numbers of two vectors in turn */
    for (int i = 0; i < 32; i++) twos[i] = i / 2 + i % 2 * 16;
    __m512i in_turn = _mm512_loadu_si512(twos);
    __m512 factor = _mm512_set1_ps(scale);
    for (int64_t half = 0; half < 32; half += 16) {
        __m512 limit = _mm512_loadu_ps(most + half), sum = _mm512_setzero_ps();
        for (int64_t k = 0; k < m; k += 2) {
            const float *from = scores + k * 32 + half;
            __m512 even = coarse_power(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(from), limit), factor));
            __m512 odd = coarse_power(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(from + 32), limit), factor));
            __m512i pairs = _mm512_permutexvar_epi16(in_turn, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
            _mm512_storeu_si512(packed + k / 32 * 512 + half * 16 + k % 32 / 2 * 16, pairs);
            sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
        }
        _mm512_storeu_ps(sums + half, sum);
    }
}
#else
INLINE void exponentials(const float *scores, int64_t m, const float *most, float scale, uint32_t *packed, float *sums) {
    memset(sums, 0, 32 * sizeof(float));
    for (int64_t k = 0; k < m; k += 2)
        for (int i = 0; i < 32; i++) {
            const float *from = scores + k * 32 + i;
            float even = power((from[0] - most[i]) * scale), odd = power((from[32] - most[i]) * scale);
            packed[k / 32 * 512 + i / 16 * 256 + k % 32 / 2 * 16 + i % 16] = to_bf16(even) | (uint32_t)to_bf16(odd) << 16;
            sums[i] += even + odd;
        }
}
#endif

/* [32, 32] sums of dimensions and queries, times a factor for each query -> y, whose rows of a query lie `apart`. */
INLINE void put_turned(const float *sums, const float *factor, int64_t queries, uint16_t *y, int64_t apart) {
    uint32_t pairs[16 * 32];
    for (int k = 0; k < 16; k++)
#pragma omp simd
        for (int i = 0; i < 32; i++) {
            uint32_t even = to_bf16(sums[k * 64 + i] * factor[i]), odd = to_bf16(sums[k * 64 + 32 + i] * factor[i]);
            pairs[k * 32 + i] = even | odd << 16;
        }
    for (int64_t i = 0; i < queries; i++)
        for (int k = 0; k < 16; k++) memcpy(y + i * apart + 2 * k, pairs + k * 32 + i, 4);
}

/* softmax(q k^T * scale) v of heads: q, y [b, n, heads, d], k, v [b, m, heads, d]; of q, k and v, numbers lie `*_next`
   apart from one example to the next, and `*_row` from one row.

   Keys are the left side and queries the right one, so that scores of a query are a column: softmax needs no sum across
   a vector, and becomes the right side of the second product as it is. Its left side, v transposed, is made once. */
void attention(const uint16_t *q, const uint16_t *k, const uint16_t *v, uint16_t *y, int64_t b, int64_t heads, int64_t n,
               int64_t m, int64_t d, int64_t q_next, int64_t q_row, int64_t k_next, int64_t k_row, int64_t v_next,
               int64_t v_row, float scale, int threads) {
    int64_t full = (m + 31) / 32 * 32, queries = (n + 31) / 32;
    uint16_t *keys = aligned_alloc(64, b * heads * full * d * 2), *values = aligned_alloc(64, b * heads * full * d * 2);
#pragma omp parallel num_threads(threads)
    {
        float *scores = malloc(full * 32 * sizeof(float)), sums[32 * 32], most[32], total[32];
        uint32_t *shares = aligned_alloc(64, full * 64);
        uint16_t columns[32 * d] __attribute__((aligned(64)));
        shapes before = begin();
#pragma omp for collapse(2)
        for (int64_t head = 0; head < b * heads; head++)
            for (int64_t first = 0; first < full; first += 32) {
                const uint16_t *k_from = k + head / heads * k_next + first * k_row + head % heads * d;
                const uint16_t *v_from = v + head / heads * v_next + first * v_row + head % heads * d;
                int64_t here = m - first < 32 ? m - first : 32;
                pack_keys(k_from, k_row, here, d, keys + (head * full + first) * d);
                turn_values(v_from, v_row, here, d, values + head * full * d + first, full);
            }
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t head = 0; head < b * heads; head++)
            for (int64_t part = 0; part < queries; part++) {
                int64_t first = part * 32, here = n - first < 32 ? n - first : 32;
                pack_queries(q + head / heads * q_next + first * q_row + head % heads * d, q_row, here, d, columns);
                for (int i = 0; i < 32; i++) most[i] = -INFINITY;
                for (int64_t key = 0; key < full; key += 32) {
                    float *at = scores + key * 32;
                    product(keys + (head * full + key) * d, d * 2, d / 32, columns, at);
                    for (int64_t i = (m - key) * 32; i < 32 * 32; i++) at[i] = -INFINITY; /* no keys */
                    for (int64_t i = 0; i < 32; i++)
#pragma omp simd
                        for (int64_t j = 0; j < 32; j++) most[j] = at[i * 32 + j] > most[j] ? at[i * 32 + j] : most[j];
                }
                exponentials(scores, full, most, scale * LOG2_E, shares, total);
                for (int i = 0; i < 32; i++) total[i] = 1 / total[i];
                for (int64_t j = 0; j < d; j += 32) {
                    product(values + (head * d + j) * full, full * 2, full / 32, shares, sums);
                    put_turned(sums, total, here, y + ((head / heads * n + first) * heads + head % heads) * d + j, heads * d);
                }
            }
        end(before);
        free(scores);
        free(shares);
    }
    free(keys);
    free(values);
}
