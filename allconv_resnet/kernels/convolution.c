/* A 3x3 convolution in bfloat16 on processors with AVX512-BF16, SAME and with stride 1.

The algorithm is Winograd's minimal filtering F(2, 3) along rows, with 2/3 of the multiplications (Lavin & Gray 2015,
arXiv 1509.09308, section 4.1). For each pair of columns (y0, y1) of the output, the four input columns (x0, x1, x2, x3)
that it needs, and the three taps (g0, g1, g2) of a row of the kernel,

    m1 = (x0 - x2) g0    m2 = (x1 + x2) (g0 + g1 + g2) / 2    m3 = (x2 - x1) (g0 - g1 + g2) / 2    m4 = (x1 - x3) g2

are summed over all channels and the three rows of the kernel, and then y0 = m1 + m2 + m3 and y1 = m2 - m3 - m4. The sums
and differences of inputs and of taps are rounded to bfloat16. Products are added in float32.

A "position" is a pair of columns in a row of an image. The factors of the input are packed as
[4 factors, images, height + 2, pairs, channels], where the rows above and below an image are rows of zeros. What a
position needs for the next row of the kernel is therefore at the same distance for all positions. The factors of the
kernel are packed as [blocks of filters, 4 factors, 3 rows, pairs of channels, filters of a block, 2], because VDPBF16PS
multiplies vectors of pairs of bfloat16 numbers and adds the two products of each pair.

Threads share the packed kernel, and each has its own packed input and sums. A part of the images is what fits in the L2
cache, and a thread takes the next part when it is free.

The convolution can end with an addition, a ReLU or the gradient of a ReLU. This saves a separate pass over the output, and
the result is rounded once, after that step.

An infinite input makes the numbers around it infinite or not a number, because the factors subtract infinite numbers. */

#include "kernels.h"

#if HAVE_KERNELS

#include <string.h>

#include "vectors.h"

#define BLOCK 64        /* the most filters of a block: 64, 48 or 32 filters are 4, 3 or 2 vectors */
#define MOST_OF_TILE 12 /* the most positions of a tile: 6, 8 or 12 positions, so that there are 24 vectors of sums */
#define POSITIONS 96    /* positions whose sums stay in the L2 cache until they are combined */
#define PART_BYTES (1 << 18) /* of a packed input, so that it stays in the L2 cache */

_Static_assert(POSITIONS % 6 == 0 && POSITIONS % 8 == 0 && POSITIONS % 12 == 0, "they are whole tiles");

/* What the threads share. */
typedef struct {
    const bfloat16 *x, *kernel, *other;
    bfloat16 *y;
    int transposed;
    enum last_step last;
    long images, height, width, channels, filters, threads;
    long pairs;  /* of columns in a row */
    long padded; /* channels, rounded up to full vectors by zeros */
    long wide;   /* filters of a block: 64, 48 or 32, whichever adds the fewest zeros */
    long block;  /* numbers of one factor of the packed kernel, for a block of filters */
    long factor; /* numbers of one factor of the packed input */
    bfloat16 *packed_kernel, *packed_inputs;
    float *sums;
    Phase pack, convolve;
} Work;

/* Returns what depends on sizes alone, without the pointers to the arrays. */
static Work plan(long images, long height, long width, long channels, long filters, long threads) {
    Work w = {.images = images, .height = height, .width = width, .channels = channels, .filters = filters};
    w.wide = BLOCK;
    for (long wide = BLOCK - LANES; wide >= 2 * LANES; wide -= LANES)
        if (round_up(filters, wide) < round_up(filters, w.wide)) w.wide = wide;
    w.pack.parts = ceil_div(filters, w.wide);
    w.threads = min(min(threads, images), MOST_THREADS);
    w.pairs = ceil_div(width, 2);
    w.padded = round_up(channels, LANES);
    w.block = 3 * w.padded * w.wide;
    const long image = (height + 2) * w.pairs * w.padded;
    const long most = max(1, PART_BYTES / (FACTORS * image * (long)sizeof(bfloat16))); /* images of a part */
    w.convolve.parts = min(images, w.threads * ceil_div(images, w.threads * most));
    w.factor = ceil_div(images, w.convolve.parts) * image;
    return w;
}

/* Packs the factors of a block of filters of `kernel` [3, 3, channels, filters]. */
TARGET static void pack_block(const Work *w, long block) {
    const __m512 zero = _mm512_setzero_ps(), half = _mm512_set1_ps(0.5f);
    for (long row = 0; row < 3; row++)
        for (long c = 0; c < w->padded; c += 2)
            for (long k = 0; k < w->wide; k += LANES) {
                bfloat16 *out = w->packed_kernel + block * FACTORS * w->block + (row * w->padded + c) * w->wide + 2 * k;
                const __mmask16 mask = first_lanes(w->filters - block * w->wide - k);
                __m512 g[2][3], odd[2], even[2];
                for (int i = 0; i < 2; i++) {
                    const int inside = c + i < w->channels && mask;
                    const bfloat16 *taps =
                        w->kernel + (row * 3 * w->channels + c + i) * w->filters + block * w->wide + k;
                    for (int tap = 0; tap < 3; tap++)
                        g[i][tap] = inside ? widen(taps + tap * w->channels * w->filters, mask) : zero;
                    even[i] = _mm512_mul_ps(half, _mm512_add_ps(g[i][0], g[i][2]));
                    odd[i] = _mm512_mul_ps(half, g[i][1]);
                }
                store_pairs(out, g[0][0], g[1][0]);
                store_pairs(out + w->block, _mm512_add_ps(even[0], odd[0]), _mm512_add_ps(even[1], odd[1]));
                store_pairs(out + 2 * w->block, _mm512_sub_ps(even[0], odd[0]), _mm512_sub_ps(even[1], odd[1]));
                store_pairs(out + 3 * w->block, g[0][2], g[1][2]);
            }
}

/* Packs the factors of a block of filters of a kernel that is stored as [3, 3, filters, channels], with its rows and
taps in the opposite order. */
TARGET static void pack_transposed_block(const Work *w, long block) {
    const __m512 half = _mm512_set1_ps(0.5f);
    const __m512i of_filter = _mm512_mullo_epi32(
        _mm512_set1_epi32(LANES / 2), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    bfloat16 factors[FACTORS][LANES][LANES]; /* of 16 filters and 16 channels */
    for (long row = 0; row < 3; row++)
        for (long c = 0; c < w->padded; c += LANES)
            for (long k = 0; k < w->wide; k += LANES) {
                memset(factors, 0, sizeof factors);
                const __mmask16 mask = first_lanes(w->channels - c);
                for (long i = 0; i < LANES && block * w->wide + k + i < w->filters; i++) {
                    __m512 g[3];
                    for (int tap = 0; tap < 3; tap++) {
                        const long place = ((2 - row) * 3 + 2 - tap) * w->filters + block * w->wide + k + i;
                        g[tap] = widen(w->kernel + place * w->channels + c, mask);
                    }
                    const __m512 even = _mm512_mul_ps(half, _mm512_add_ps(g[0], g[2])), odd = _mm512_mul_ps(half, g[1]);
                    store(factors[0][i], 0xffff, g[0]);
                    store(factors[1][i], 0xffff, _mm512_add_ps(even, odd));
                    store(factors[2][i], 0xffff, _mm512_sub_ps(even, odd));
                    store(factors[3][i], 0xffff, g[2]);
                }
                bfloat16 *out = w->packed_kernel + block * FACTORS * w->block + (row * w->padded + c) * w->wide + 2 * k;
                for (long f = 0; f < FACTORS; f++)
                    for (long pair = 0; pair < LANES / 2; pair++)
                        _mm512_store_si512(out + f * w->block + pair * 2 * w->wide,
                                           _mm512_i32gather_epi32(of_filter, &factors[f][0][2 * pair], 4));
            }
}

static void pack_kernel(void *work, long block, long thread) {
    const Work *w = work;
    if (w->transposed)
        pack_transposed_block(w, block);
    else
        pack_block(w, block);
}

/* Packs the factors of `images` images of the input `x` [images, height, width, channels]. */
TARGET static void pack_inputs(const Work *w, const bfloat16 *x, long images, bfloat16 *packed) {
    const __m512 zero = _mm512_setzero_ps();
    for (long image = 0; image < images; image++)
        for (long row = 0; row < w->height; row++) {
            const bfloat16 *pixels = x + (image * w->height + row) * w->width * w->channels;
            bfloat16 *out_of_row = packed + (image * (w->height + 2) + row + 1) * w->pairs * w->padded;
            for (long pair = 0; pair < w->pairs; pair++)
                for (long c = 0; c < w->channels; c += LANES) {
                    bfloat16 *out = out_of_row + pair * w->padded + c;
                    __m512 v[4];
                    for (int i = 0; i < 4; i++) {
                        const long column = 2 * pair - 1 + i;
                        const int inside = column >= 0 && column < w->width;
                        v[i] = inside ? widen(pixels + column * w->channels + c, first_lanes(w->channels - c)) : zero;
                    }
                    store(out, 0xffff, _mm512_sub_ps(v[0], v[2]));
                    store(out + w->factor, 0xffff, _mm512_add_ps(v[1], v[2]));
                    store(out + 2 * w->factor, 0xffff, _mm512_sub_ps(v[2], v[1]));
                    store(out + 3 * w->factor, 0xffff, _mm512_sub_ps(v[1], v[3]));
                }
        }
}

/* Writes the sums of one factor for `tile` positions and `vectors` vectors of filters to `sums` [tile, 64]. `places` are
those of the positions in `inputs`, and `row` is the distance to the next row. All sums stay in registers. */
TARGET static inline __attribute__((always_inline)) void multiply_tile(
    const int tile, const int vectors, const bfloat16 *inputs, const long *places, long row, const bfloat16 *kernel,
    long channels, float *sums) {
    __m512 total[MOST_OF_TILE][BLOCK / LANES];
    const bfloat16 *x[MOST_OF_TILE];
#pragma GCC unroll 12
    for (int i = 0; i < tile; i++) {
        x[i] = inputs + places[i];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) total[i][j] = _mm512_setzero_ps();
    }
    for (int r = 0; r < 3; r++) {
        for (long c = 0; c < channels; c += 2, kernel += 2 * LANES * vectors) {
            __m512bh vector[BLOCK / LANES];
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                vector[j] = (__m512bh)_mm512_load_si512((const __m512i *)(kernel + j * 2 * LANES));
#pragma GCC unroll 12
            for (int i = 0; i < tile; i++) {
                int pair; /* the numbers of two channels */
                memcpy(&pair, x[i] + c, sizeof pair);
                __m512bh scalar = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
                for (int j = 0; j < vectors; j++) total[i][j] = _mm512_dpbf16_ps(total[i][j], vector[j], scalar);
            }
        }
#pragma GCC unroll 12
        for (int i = 0; i < tile; i++) x[i] += row;
    }
#pragma GCC unroll 12
    for (int i = 0; i < tile; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) _mm512_store_ps(sums + i * BLOCK + j * LANES, total[i][j]);
}

/* Writes the sums of one factor for `count` positions and a block of filters to `sums` [POSITIONS, 64]. */
TARGET static void multiply(const Work *w, const bfloat16 *inputs, const long *places, long count,
                            const bfloat16 *kernel, float *sums) {
    const long row = w->pairs * w->padded;
    if (w->wide == 4 * LANES)
        for (long i = 0; i < count; i += 6)
            multiply_tile(6, 4, inputs, places + i, row, kernel, w->padded, sums + i * BLOCK);
    else if (w->wide == 3 * LANES)
        for (long i = 0; i < count; i += 8)
            multiply_tile(8, 3, inputs, places + i, row, kernel, w->padded, sums + i * BLOCK);
    else
        for (long i = 0; i < count; i += 12)
            multiply_tile(12, 2, inputs, places + i, row, kernel, w->padded, sums + i * BLOCK);
}

/* Finishes 16 numbers of the output and stores them. `place` is where they are in the output and in `other`. */
TARGET static inline void finish(const Work *w, long place, __mmask16 mask, __m512 y) {
    store(w->y + place, mask, after_last_step(w->last, y, w->other + place, mask));
}

/* Combines the sums [4 factors, POSITIONS, 64] of one position into two columns of the output, or one if `both` is 0.
`left` filters are left in the block. */
TARGET static inline void combine(const Work *w, const float *sums, long left, int both, long place) {
    for (long k = 0; k < left; k += LANES) {
        const __mmask16 mask = first_lanes(left - k);
        __m512 m[FACTORS];
        for (long f = 0; f < FACTORS; f++) m[f] = _mm512_load_ps(sums + f * POSITIONS * BLOCK + k);
        finish(w, place + k, mask, _mm512_add_ps(m[0], _mm512_add_ps(m[1], m[2])));
        if (both) finish(w, place + w->filters + k, mask, _mm512_sub_ps(_mm512_sub_ps(m[1], m[2]), m[3]));
    }
}

/* Computes the output of some images whose inputs are packed. */
TARGET static void convolve_images(const Work *w, const bfloat16 *packed, long first_image, long images,
                                   float *sums) {
    const long of_image = w->height * w->pairs, positions = images * of_image;
    for (long block = 0; block < w->pack.parts; block++) {
        const bfloat16 *kernel = w->packed_kernel + block * FACTORS * w->block;
        const long k = block * w->wide, left = min(w->wide, w->filters - k);
        for (long first = 0; first < positions; first += POSITIONS) {
            const long count = min(POSITIONS, positions - first);
            long places[POSITIONS];
            for (long i = 0; i < POSITIONS; i++) {
                const long position = min(first + i, positions - 1); /* the last one fills up the last tile */
                places[i] = (position + position / of_image * 2 * w->pairs) * w->padded;
            }
            for (long f = 0; f < FACTORS; f++)
                multiply(w, packed + f * w->factor, places, count, kernel + f * w->block, sums + f * POSITIONS * BLOCK);
            long row = first_image * w->height + first / w->pairs, pair = first % w->pairs;
            for (long i = 0; i < count; i++) {
                combine(w, sums + i * BLOCK, left, 2 * pair + 1 < w->width,
                        (row * w->width + 2 * pair) * w->filters + k);
                if (++pair == w->pairs) pair = 0, row++;
            }
        }
    }
}

/* Computes the output of a part of the images. */
static void convolve_part(void *work, long part, long thread) {
    const Work *w = work;
    const long first = part * w->images / w->convolve.parts, end = (part + 1) * w->images / w->convolve.parts;
    bfloat16 *packed = w->packed_inputs + thread * FACTORS * w->factor;
    pack_inputs(w, w->x + first * w->height * w->width * w->channels, end - first, packed);
    convolve_images(w, packed, first, end - first, w->sums + thread * FACTORS * POSITIONS * BLOCK);
}

static void run(void *work, long thread) {
    Work *w = work;
    take_parts(&w->pack, pack_kernel, w, thread);
    wait_for(&w->pack);
    /* the rows above and below the images stay zero */
    memset(w->packed_inputs + thread * FACTORS * w->factor, 0, FACTORS * w->factor * sizeof(bfloat16));
    take_parts(&w->convolve, convolve_part, w, thread);
}

/* Returns how many bytes `convolution` needs for its sums and packed arrays. */
long convolution_scratch(long images, long height, long width, long channels, long filters, long threads) {
    const Work w = plan(images, height, width, channels, filters, threads);
    const long of_thread = FACTORS * (POSITIONS * BLOCK * sizeof(float) + w.factor * sizeof(bfloat16));
    return w.threads * of_thread + w.pack.parts * FACTORS * w.block * sizeof(bfloat16);
}

/* Writes the output `y` [images, height, width, filters] of a SAME convolution with stride 1.

`x` is its input [images, height, width, channels], and `kernel` [3, 3, channels, filters] its kernel. If `transposed` is
not 0, `x` is the gradient with respect to the output of a convolution, `kernel` [3, 3, filters, channels] is the kernel of
that convolution, and `y` the gradient with respect to its input. `last` says what is done to `y` in the end. `other` has
the shape of `y`, and is read for ADD and MASK alone. All sizes and `threads` are positive. `scratch` has
`convolution_scratch` bytes and is aligned to 64. */
void convolution(const bfloat16 *x, const bfloat16 *kernel, int transposed, enum last_step last, const bfloat16 *other,
                 long images, long height, long width, long channels, long filters, long threads, void *scratch,
                 bfloat16 *y) {
    Work w = plan(images, height, width, channels, filters, threads);
    w.x = x, w.kernel = kernel, w.transposed = transposed, w.last = last, w.other = other, w.y = y;
    w.sums = scratch;
    w.packed_kernel = (bfloat16 *)(w.sums + w.threads * FACTORS * POSITIONS * BLOCK);
    w.packed_inputs = w.packed_kernel + w.pack.parts * FACTORS * w.block;
    run_in_threads(run, &w, w.threads);
}

#endif
