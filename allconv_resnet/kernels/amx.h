/* Tiles of AMX, and how a row of images is packed for them.

A tile register holds 16 rows of 64 bytes: 16x16 float32 numbers, or 16x32 bfloat16 numbers. TDPBF16PS adds to a tile of
sums the product of a tile A, whose 16 rows hold 32 numbers each, and a tile B, whose 16 rows hold two numbers side by side
for each of 16 columns.

The images of a batch are taken in groups of 32, which fill two tiles at each pixel. Therefore a map may have any width,
and what a tap of a kernel would read outside of the image is left out. Images that fill up the last group are zeros. */

#ifndef ALLCONV_AMX_H
#define ALLCONV_AMX_H

#include "kernels.h"
#include "vectors.h"

#define TAPS 9
#define TILE 16                        /* rows of a tile */
#define GROUP 32                       /* images: two tiles of them, or one row of a tile */
#define WIDE 32                        /* channels or filters that are taken together: one row of a tile, or two tiles */
#define SQUARE (GROUP * WIDE)          /* numbers of two tiles */
#define TILE_NUMBERS (TILE * 2 * TILE) /* bfloat16 numbers of a tile */
#define PACKED_BYTES (5 << 18)         /* of rows that are packed at a time, so that they stay in the L2 cache */

/* Sets the shape of all tile registers of this thread. */
TARGET static inline void begin_tiles(void) {
    /* It is a constant, because the header of GCC 12 tells the compiler that LDTILECFG reads 8 of these 64 bytes. The
    compiler might leave out what a program stores in the others. */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes_of_row[16];
        uint8_t rows[16];
    } shape = {
        .palette = 1,
        .bytes_of_row = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE},
    };
    _tile_loadconfig(&shape);
}

/* Lets go of the tile registers, which others, like oneDNN, shape for themselves. */
TARGET static inline void end_tiles(void) { _tile_release(); }

/* The compiler does not know that tiles are loaded from memory. This makes it finish all stores before. */
static inline void let_tiles_see_memory(void) { __asm__ volatile("" ::: "memory"); }

/* Four tiles of sums, 0 to 3, belong to two tiles A and two tiles B: [2 tiles A, 2 tiles B, 16, 16] in memory. */

TARGET static inline void begin_sums(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

TARGET static inline void load_sums(const float *sums) {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + TILE * TILE, 64);
    _tile_loadd(2, sums + 2 * TILE * TILE, 64);
    _tile_loadd(3, sums + 3 * TILE * TILE, 64);
}

TARGET static inline void store_sums(float *sums) {
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + TILE * TILE, 64);
    _tile_stored(2, sums + 2 * TILE * TILE, 64);
    _tile_stored(3, sums + 3 * TILE * TILE, 64);
}

/* Adds the products of two tiles A at `a` and two tiles B at `b`. */
TARGET static inline void add_products(const bfloat16 *a, const bfloat16 *b) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + TILE_NUMBERS, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + TILE_NUMBERS, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* Returns the mask of the first `count` of 32 numbers. */
TARGET static inline __mmask32 first_of_wide(long count) {
    return count >= WIDE ? 0xffffffff : count <= 0 ? 0 : (1u << count) - 1;
}

/* Packs one row of a group of images of `x` [images, height, width, channels] as [width, blocks of 32 channels, 32 images,
32 channels]. Channels that fill up the last block, and images from `count` on, are zeros. `x` is the row of the first image
and `image` the distance to the next one. */
TARGET static inline void pack_row(const bfloat16 *x, long count, long image, long width, long channels,
                                   bfloat16 *packed) {
    const long blocks = ceil_div(channels, WIDE);
    for (long i = 0; i < GROUP; i++)
        for (long column = 0; column < width; column++)
            for (long block = 0; block < blocks; block++) {
                const bfloat16 *from = x + i * image + column * channels + block * WIDE;
                const __mmask32 mask = i < count ? first_of_wide(channels - block * WIDE) : 0;
                _mm_prefetch((const char *)((uintptr_t)from + image * sizeof(bfloat16)), _MM_HINT_T0); /* the next image */
                _mm512_store_si512(packed + ((column * blocks + block) * GROUP + i) * WIDE,
                                   _mm512_maskz_loadu_epi16(mask, from));
            }
}

/* Does the opposite of `pack_row`, and leaves out what fills up. */
TARGET static inline void unpack_row(const bfloat16 *packed, long count, long image, long width, long channels,
                                     bfloat16 *x) {
    const long blocks = ceil_div(channels, WIDE);
    for (long i = 0; i < count; i++)
        for (long column = 0; column < width; column++)
            for (long block = 0; block < blocks; block++) {
                const __m512i line = _mm512_load_si512(packed + ((column * blocks + block) * GROUP + i) * WIDE);
                _mm512_mask_storeu_epi16(x + i * image + column * channels + block * WIDE,
                                         first_of_wide(channels - block * WIDE), line);
            }
}

/* Transposes 16 vectors of 16 pairs of bfloat16 numbers. */
TARGET static inline void transpose(__m512i v[TILE]) {
    __m512i t[TILE];
#pragma GCC unroll 8
    for (int i = 0; i < TILE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < TILE; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* v[4 a + b] has, in its lane c of 128 bits, column 4 c + b of the rows 4 a to 4 a + 3 */
#pragma GCC unroll 4
    for (int b = 0; b < 4; b++) {
        const __m512i low02 = _mm512_shuffle_i32x4(v[b], v[4 + b], 0x88);
        const __m512i low13 = _mm512_shuffle_i32x4(v[b], v[4 + b], 0xdd);
        const __m512i high02 = _mm512_shuffle_i32x4(v[8 + b], v[12 + b], 0x88);
        const __m512i high13 = _mm512_shuffle_i32x4(v[8 + b], v[12 + b], 0xdd);
        t[b] = _mm512_shuffle_i32x4(low02, high02, 0x88);
        t[8 + b] = _mm512_shuffle_i32x4(low02, high02, 0xdd);
        t[4 + b] = _mm512_shuffle_i32x4(low13, high13, 0x88);
        t[12 + b] = _mm512_shuffle_i32x4(low13, high13, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < TILE; i++) v[i] = t[i];
}

#endif
