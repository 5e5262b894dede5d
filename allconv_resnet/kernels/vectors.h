/* Vectors of 16 numbers and other small things that all kernels need. */

#ifndef ALLCONV_VECTORS_H
#define ALLCONV_VECTORS_H

#ifdef __clang__
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#else
#define TARGET
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")
#endif

#include <immintrin.h>
#include <stdint.h>

#include "kernels.h"

#define LANES 16   /* float32 numbers of a vector */
#define FACTORS 4  /* of minimal filtering: m1 to m4 of convolution.c and of filter_gradient.c */
#define AHEAD 8192 /* bytes between what is read and what is prefetched */

static inline long ceil_div(long a, long b) { return (a + b - 1) / b; }

static inline long round_up(long a, long b) { return ceil_div(a, b) * b; }

static inline long min(long a, long b) { return a < b ? a : b; }

static inline long max(long a, long b) { return a > b ? a : b; }

/* Returns the mask of the first `count` of 16 lanes. */
static inline __mmask16 first_lanes(long count) { return count >= LANES ? 0xffff : count <= 0 ? 0 : (1 << count) - 1; }

/* Returns up to 16 numbers as float32, and zeros in the lanes that the mask leaves out. It also asks the memory for the
numbers that will be read soon; it does no harm if there are none. */
TARGET static inline __m512 widen(const bfloat16 *p, __mmask16 mask) {
    _mm_prefetch((const char *)((uintptr_t)p + AHEAD), _MM_HINT_T0);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}

/* Returns 16 numbers of the output of a convolution after its last step. `other` is where that step reads, if it does. */
TARGET static inline __m512 after_last_step(enum last_step last, __m512 y, const bfloat16 *other, __mmask16 mask) {
    const __m512 zero = _mm512_setzero_ps();
    if (last == ADD) return _mm512_add_ps(y, widen(other, mask));
    if (last == RELU) return _mm512_max_ps(zero, y); /* in this order it keeps what is not a number */
    if (last == MASK) return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(widen(other, mask), zero, _CMP_GT_OQ), y);
    return y;
}

/* Stores numbers, rounded to bfloat16, where the mask says so. */
TARGET static inline void store(bfloat16 *out, __mmask16 mask, __m512 a) {
    _mm256_mask_storeu_epi16(out, mask, (__m256i)_mm512_cvtneps_pbh(a));
}

/* Stores the numbers of a and b, rounded to bfloat16, side by side: a0, b0, a1, b1, ... */
TARGET static inline void store_pairs(bfloat16 *out, __m512 a, __m512 b) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(b));
    _mm512_store_si512((__m512i *)out, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

#endif
