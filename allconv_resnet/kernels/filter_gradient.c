/* The gradient of a 3x3 convolution with respect to its kernel, in bfloat16 on processors with AVX512-BF16.

The algorithm is that of `allconv_resnet.convolutions.filter_gradient`: Winograd's minimal filtering F(3, 2) along rows,
with 2/3 of the multiplications (Lavin & Gray 2015, arXiv 1509.09308, section 4). For each pair of columns (d0, d1) of the output
gradient and the four input columns (x0, x1, x2, x3) that the taps reach, and for each of the three row offsets,

    m1 = (x0 - x2) d0    m2 = (x1 + x2) (d0 + d1) / 2    m3 = (x2 - x1) (d0 - d1) / 2    m4 = (x1 - x3) d1
    taps: m1 + m2 + m3,  m2 - m3,  m2 + m3 - m4

are summed over all images, rows and pairs. Sums and differences are rounded to bfloat16, products are added in float32.

VDPBF16PS multiplies vectors of pairs of bfloat16 numbers and adds the two products of each pair. A "quad" is what one
such instruction takes from a row of the image: two neighbouring pairs of columns, four columns in all. Packed arrays
hold, for each of the four factors, one block of channels after the other. A block holds the quads of all rows in order,
and a quad the two numbers of each channel side by side. Rows above and below the image are rows of zeros.

Each part of the images has its own sums, of which there is one for each thread. The result therefore does not depend on
which thread took which part, but its last bits depend on the number of threads. */

#include "kernels.h"

#if HAVE_KERNELS

#include <string.h>

#include "vectors.h"

#define BLOCK 64              /* filters that are computed together: four vectors */
#define CHUNK_BYTES (1 << 18) /* of a packed factor: one of the input and one of the gradient stay in the L2 cache */

/* Packs the factors of the input `x` [images, height, width, channels]; each image has height + 2 rows of quads. Channels
that fill up the last block are zeros. */
TARGET static void pack_inputs(const bfloat16 *x, long images, long height, long width, long channels,
                               bfloat16 *packed, long factor, long block) {
    const __m512 zero = _mm512_setzero_ps();
    const long quads = ceil_div(width, 4);
    for (long image = 0; image < images; image++)
        for (long row = 0; row < height; row++) {
            const bfloat16 *pixels = x + (image * height + row) * width * channels;
            bfloat16 *out_of_row = packed + (image * (height + 2) + row + 1) * quads * 2 * LANES;
            for (long quad = 0; quad < quads; quad++)
                for (long c = 0; c < channels; c += LANES) {
                    bfloat16 *out = out_of_row + c / LANES * block + quad * 2 * LANES;
                    __m512 v[6]; /* x0 to x3 of the first pair, and x2 and x3 of the second one */
                    for (int i = 0; i < 6; i++) {
                        const long column = 4 * quad - 1 + i;
                        const int inside = column >= 0 && column < width;
                        v[i] = inside ? widen(pixels + column * channels + c, first_lanes(channels - c)) : zero;
                    }
                    store_pairs(out, _mm512_sub_ps(v[0], v[2]), _mm512_sub_ps(v[2], v[4]));
                    store_pairs(out + factor, _mm512_add_ps(v[1], v[2]), _mm512_add_ps(v[3], v[4]));
                    store_pairs(out + 2 * factor, _mm512_sub_ps(v[2], v[1]), _mm512_sub_ps(v[4], v[3]));
                    store_pairs(out + 3 * factor, _mm512_sub_ps(v[1], v[3]), _mm512_sub_ps(v[3], v[5]));
                }
        }
}

/* Packs the factors of the output gradient `dy` [images, height, width, filters]. Filters that fill up the last block
are zeros. */
TARGET static void pack_gradients(const bfloat16 *dy, long images, long height, long width, long filters,
                                  bfloat16 *packed, long factor, long block) {
    const __m512 zero = _mm512_setzero_ps(), half = _mm512_set1_ps(0.5f);
    const long quads = ceil_div(width, 4), padded = round_up(filters, BLOCK);
    for (long row = 0; row < images * height; row++)
        for (long quad = 0; quad < quads; quad++)
            for (long k = 0; k < padded; k += LANES) {
                bfloat16 *out = packed + k / BLOCK * block + (row * quads + quad) * 2 * BLOCK + k % BLOCK * 2;
                const __mmask16 mask = first_lanes(filters - k);
                __m512 d[4];
                for (int i = 0; i < 4; i++) {
                    const long column = 4 * quad + i;
                    const int inside = column < width && mask;
                    d[i] = inside ? widen(dy + (row * width + column) * filters + k, mask) : zero;
                }
                store_pairs(out, d[0], d[2]);
                store_pairs(out + factor, _mm512_mul_ps(half, _mm512_add_ps(d[0], d[1])),
                            _mm512_mul_ps(half, _mm512_add_ps(d[2], d[3])));
                store_pairs(out + 2 * factor, _mm512_mul_ps(half, _mm512_sub_ps(d[0], d[1])),
                            _mm512_mul_ps(half, _mm512_sub_ps(d[2], d[3])));
                store_pairs(out + 3 * factor, d[1], d[3]);
            }
}

/* Adds the products of one factor for two channels, one block of filters and all three row offsets to `sums`, or writes
them there if they are the first. `sums` has the strides `offset` between row offsets and `channel` between channels. The
24 vectors of sums stay in registers. */
TARGET static void multiply(const bfloat16 *inputs, const bfloat16 *gradients, long images, long height, long quads,
                            float *sums, long offset, long channel, int are_first) {
    const long row = quads * 2 * LANES; /* from a row of the input to the next */
    __m512 total[3][2][4];
#pragma GCC unroll 24
    for (int i = 0; i < 24; i++)
        total[i / 8][i / 4 % 2][i % 4] =
            are_first ? _mm512_setzero_ps()
                      : _mm512_loadu_ps(sums + i / 8 * offset + i / 4 % 2 * channel + i % 4 * LANES);
    for (long image = 0; image < images; image++) {
        const bfloat16 *x = inputs + image * (height + 2) * row;
        const bfloat16 *d = gradients + image * height * quads * 2 * BLOCK;
        for (long quad = 0; quad < height * quads; quad++, x += 2 * LANES, d += 2 * BLOCK) {
            __m512bh vector[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) vector[i] = (__m512bh)_mm512_load_si512((const __m512i *)(d + i * 2 * LANES));
#pragma GCC unroll 6
            for (int i = 0; i < 6; i++) {
                int pair; /* the two numbers of one channel */
                memcpy(&pair, x + i / 2 * row + i % 2 * 2, sizeof pair);
                __m512bh scalar = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++)
                    total[i / 2][i % 2][j] = _mm512_dpbf16_ps(total[i / 2][i % 2][j], vector[j], scalar);
            }
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < 24; i++)
        _mm512_storeu_ps(sums + i / 8 * offset + i / 4 % 2 * channel + i % 4 * LANES, total[i / 8][i / 4 % 2][i % 4]);
}

/* What the threads share. The sums are [parts, 4 factors, 3 row offsets, channels, filters]. Channels are rounded up to a
multiple of 16 there, and filters to a multiple of 64. */
typedef struct {
    const bfloat16 *x, *dy;
    bfloat16 *taps;
    long images, height, width, channels, filters;
    long quads;          /* of a row */
    long padded_channels, padded_filters; /* rounded up, as they are in the sums */
    long sums_of_part, packed_of_part;
    long chunk;          /* images that are packed at a time */
    float *sums;
    bfloat16 *packed;
    Phase add_up, combine;
} Work;

/* Returns what depends on sizes alone, without the pointers to the arrays. */
static Work plan(long images, long height, long width, long channels, long filters, long threads) {
    Work w = {.images = images, .height = height, .width = width, .channels = channels, .filters = filters};
    w.add_up.parts = w.combine.parts = min(min(threads, images), MOST_THREADS);
    w.quads = ceil_div(width, 4);
    w.padded_channels = round_up(channels, LANES);
    w.padded_filters = round_up(filters, BLOCK);
    const long bytes_of_image = height * w.quads * 2 * max(w.padded_channels, w.padded_filters) * sizeof(bfloat16);
    w.chunk = min(ceil_div(images, w.add_up.parts), max(1, CHUNK_BYTES / bytes_of_image));
    w.sums_of_part = FACTORS * 3 * w.padded_channels * w.padded_filters;
    w.packed_of_part = FACTORS * w.chunk * w.quads * 2 * ((height + 2) * w.padded_channels + height * w.padded_filters);
    return w;
}

/* Adds up the products of a part of the images. */
static void add_up(void *work, long part, long thread) {
    const Work *w = work;
    const long first = part * w->images / w->add_up.parts, end = (part + 1) * w->images / w->add_up.parts;
    const long pixels = w->height * w->width;
    const long x_block = w->chunk * (w->height + 2) * w->quads * 2 * LANES;
    const long d_block = w->chunk * w->height * w->quads * 2 * BLOCK;
    const long x_factor = w->padded_channels / LANES * x_block, d_factor = w->padded_filters / BLOCK * d_block;
    const long channel = w->padded_filters, offset = w->padded_channels * channel; /* strides of the sums */
    float *sums = w->sums + part * w->sums_of_part;
    bfloat16 *inputs = w->packed + part * w->packed_of_part, *gradients = inputs + FACTORS * x_factor;
    memset(inputs, 0, FACTORS * x_factor * sizeof *inputs); /* the rows above and below the images stay zero */
    for (long image = first; image < end; image += w->chunk) {
        const long count = min(w->chunk, end - image);
        pack_inputs(w->x + image * pixels * w->channels, count, w->height, w->width, w->channels, inputs, x_factor,
                    x_block);
        pack_gradients(w->dy + image * pixels * w->filters, count, w->height, w->width, w->filters, gradients, d_factor,
                       d_block);
        for (long f = 0; f < FACTORS; f++)
            for (long k = 0; k < w->padded_filters; k += BLOCK)
                for (long c = 0; c < w->padded_channels; c += 2)
                    multiply(inputs + f * x_factor + c / LANES * x_block + c % LANES * 2,
                             gradients + f * d_factor + k / BLOCK * d_block, count, w->height, w->quads,
                             sums + f * 3 * offset + c * channel + k, offset, channel, image == first);
    }
}

/* Combines the sums of all parts of the images into the taps of a part of the channels. */
TARGET static void combine(void *work, long part, long thread) {
    const Work *w = work;
    const long begin = part * w->channels / w->combine.parts, end = (part + 1) * w->channels / w->combine.parts;
    for (long offset = 0; offset < 3; offset++)
        for (long c = begin; c < end; c++)
            for (long k = 0; k < w->filters; k += LANES) {
                __m512 m[FACTORS];
                for (long f = 0; f < FACTORS; f++) {
                    const float *sums = w->sums + ((f * 3 + offset) * w->padded_channels + c) * w->padded_filters + k;
                    m[f] = _mm512_loadu_ps(sums);
                    for (long other = 1; other < w->add_up.parts; other++)
                        m[f] = _mm512_add_ps(m[f], _mm512_loadu_ps(sums + other * w->sums_of_part));
                }
                const __m512 both = _mm512_add_ps(m[1], m[2]);
                const __m512 taps[3] = {_mm512_add_ps(m[0], both), _mm512_sub_ps(m[1], m[2]), _mm512_sub_ps(both, m[3])};
                for (long i = 0; i < 3; i++)
                    store(w->taps + ((offset * 3 + i) * w->channels + c) * w->filters + k, first_lanes(w->filters - k),
                          taps[i]);
            }
}

static void run(void *work, long thread) {
    Work *w = work;
    take_parts(&w->add_up, add_up, w, thread);
    wait_for(&w->add_up);
    take_parts(&w->combine, combine, w, thread);
}

/* Returns how many bytes `filter_gradient` needs for its sums and packed arrays. */
long filter_gradient_scratch(long images, long height, long width, long channels, long filters, long threads) {
    const Work w = plan(images, height, width, channels, filters, threads);
    return w.add_up.parts * (w.sums_of_part * sizeof(float) + w.packed_of_part * sizeof(bfloat16));
}

/* Writes the gradient `taps` [3, 3, channels, filters] of a SAME convolution with stride 1.

`x` is its input [images, height, width, channels], and `dy` [images, height, width, filters] the gradient with respect to
its output. All sizes and `threads` are positive. `scratch` has `filter_gradient_scratch` bytes and is aligned to 64. */
void filter_gradient(const bfloat16 *x, const bfloat16 *dy, long images, long height, long width, long channels,
                     long filters, long threads, void *scratch, bfloat16 *taps) {
    Work w = plan(images, height, width, channels, filters, threads);
    w.x = x, w.dy = dy, w.taps = taps;
    w.sums = scratch;
    w.packed = (bfloat16 *)(w.sums + w.add_up.parts * w.sums_of_part);
    run_in_threads(run, &w, w.add_up.parts);
}

#endif
