/* Numbers of float32 and bfloat16, and powers of 2, for the C files of this folder. */

#pragma once

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LOG2_E 1.44269504f

INLINE float from_bits(uint32_t bits) {
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

INLINE float get(const void *x, int64_t i, int bf16) {
    return bf16 ? from_bits((uint32_t)((const uint16_t *)x)[i] << 16) : ((const float *)x)[i];
}

/* Rounds to nearest; ties away from 0. */
INLINE uint16_t to_bf16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    return (bits + 0x8000) >> 16;
}

INLINE void set(void *x, int64_t i, float number, int bf16) {
    if (bf16)
        ((uint16_t *)x)[i] = to_bf16(number);
    else
        ((float *)x)[i] = number;
}

/* 2^t for t <= 127; relative error 1e-7. Values below -100 are taken as -100: smaller results, times other numbers,
   would be denormal, which is slow. Clamps here are comparisons that keep NaN. */
INLINE float power(float t) {
    const float magic = 12582912; /* 1.5 * 2^23: a number added to it is rounded to an integer in the lowest bits */
    t = t < -100 ? -100 : t;
    float shifted = t + magic, f = t - (shifted - magic); /* f in [-1/2, 1/2] */
    float p = 1.327793890e-3f; /* 2^f: the minimax polynomial of this degree, relative error 8e-8 */
    p = p * f + 9.675757641e-3f;
    p = p * f + 5.550709598e-2f;
    p = p * f + 2.402211434e-1f;
    p = p * f + 6.931469682e-1f;
    p = p * f + 1.000000073f;
    uint32_t bits, exponent;
    memcpy(&bits, &p, 4);
    memcpy(&exponent, &shifted, 4);
    return from_bits(bits + (exponent << 23));
}
