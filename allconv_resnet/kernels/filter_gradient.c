/* The gradient of a 3x3 convolution with respect to its kernel, in bfloat16 on processors with AVX512-BF16.

The algorithm is that of `allconv_resnet.cpu.filter_gradient`: Winograd's minimal filtering F(3, 2) along rows, with 2/3
of the multiplications (Lavin & Gray 2015, arXiv 1509.09308, section 4). For each pair of columns (d0, d1) of the output
gradient and the four input columns (x0, x1, x2, x3) below the taps, and for each of the three row offsets,

    m1 = (x0 - x2) d0    m2 = (x1 + x2) (d0 + d1) / 2    m3 = (x2 - x1) (d0 - d1) / 2    m4 = (x1 - x3) d1
    taps: m1 + m2 + m3,  m2 - m3,  m2 + m3 - m4

are summed over all images, rows and pairs. Sums and differences are rounded to bfloat16, products are added in float32.

VDPBF16PS multiplies vectors of pairs of bfloat16 numbers and adds the two products of each pair. A "quad" is what one
such instruction takes from a row of the image: two neighbouring pairs of columns, four columns in all. Packed arrays
hold, for each of the four factors, one block of channels after the other. A block holds the quads of all rows in order,
and a quad the two numbers of each channel side by side. Rows above and below the image are rows of zeros.

Each thread adds up a part of the images. */

#define _GNU_SOURCE
#include "filter_gradient.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)

#ifndef __clang__
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16")
#define TARGET
#else
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#endif

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#define LANES 16         /* float32 numbers of a vector, and channels of a block of the input */
#define BLOCK 64         /* channels of a block of the output gradient: four vectors */
#define FACTORS 4
#define MOST_THREADS 16  /* each has its own sums */
#define AHEAD 4096       /* numbers that are fetched ahead of those that are read */
#define CHUNK_BYTES (1 << 18) /* of one packed factor: it and its partner stay in the L2 cache while they are multiplied */

static long ceil_div(long a, long b) { return (a + b - 1) / b; }

static long round_up(long a, long b) { return ceil_div(a, b) * b; }

/* Returns the mask of the first `count` of 16 lanes. */
static __mmask16 first_lanes(long count) { return count >= LANES ? 0xffff : count <= 0 ? 0 : (1 << count) - 1; }

/* Returns up to 16 numbers as float32, and zeros in the lanes that the mask leaves out. It also asks the memory for the
numbers that will be read soon; it does no harm if there are none. */
TARGET static inline __m512 widen(const bfloat16 *p, __mmask16 mask) {
    _mm_prefetch((const char *)((uintptr_t)p + AHEAD * sizeof *p), _MM_HINT_T0);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}

/* Stores the numbers of a and b, rounded to bfloat16, side by side. */
TARGET static inline void store_pairs(bfloat16 *out, __m512 a, __m512 b) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(b));
    _mm512_store_si512((__m512i *)out, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

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

/* What the threads share, and the part of one of them. The sums are [parts, 4 factors, 3 row offsets, channels,
filters]. Channels are rounded up to a multiple of 16 there, and filters to a multiple of 64. */
typedef struct {
    const bfloat16 *x, *dy;
    long images, height, width, channels, filters, parts, part, sums_of_part, chunk, packed_of_part;
    float *sums;
    bfloat16 *packed, *taps;
} Work;

/* Returns what all threads have in common, without the pointers to the arrays. */
static Work plan(long images, long height, long width, long channels, long filters, long threads) {
    const long quads = ceil_div(width, 4), rows = round_up(channels, LANES), padded = round_up(filters, BLOCK);
    const long widest = rows > padded ? rows : padded, most = threads < images ? threads : images;
    const long parts = most > MOST_THREADS ? MOST_THREADS : most, of_part = ceil_div(images, parts);
    long chunk = CHUNK_BYTES / (height * quads * 2 * widest * (long)sizeof(bfloat16));
    chunk = chunk < 1 ? 1 : chunk > of_part ? of_part : chunk;
    return (Work){.images = images, .height = height, .width = width, .channels = channels, .filters = filters,
                  .parts = parts, .chunk = chunk, .sums_of_part = FACTORS * 3 * rows * padded,
                  .packed_of_part = FACTORS * chunk * quads * 2 * ((height + 2) * rows + height * padded)};
}

/* Adds up the products of a part of the images. */
TARGET static void add_up(Work *w) {
    const long first = w->part * w->images / w->parts, images = (w->part + 1) * w->images / w->parts - first;
    const long quads = ceil_div(w->width, 4), rows = round_up(w->channels, LANES), padded = round_up(w->filters, BLOCK);
    const long x_image = w->height * w->width * w->channels, d_image = w->height * w->width * w->filters;
    const long x_block = w->chunk * (w->height + 2) * quads * 2 * LANES, x_factor = rows / LANES * x_block;
    const long d_block = w->chunk * w->height * quads * 2 * BLOCK, d_factor = padded / BLOCK * d_block;
    float *sums = w->sums + w->part * w->sums_of_part;
    bfloat16 *inputs = w->packed + w->part * w->packed_of_part, *gradients = inputs + FACTORS * x_factor;
    memset(inputs, 0, FACTORS * x_factor * sizeof *inputs); /* the rows above and below the images stay zero */
    for (long image = first; image < first + images; image += w->chunk) {
        const long left = first + images - image, count = left < w->chunk ? left : w->chunk;
        pack_inputs(w->x + image * x_image, count, w->height, w->width, w->channels, inputs, x_factor, x_block);
        pack_gradients(w->dy + image * d_image, count, w->height, w->width, w->filters, gradients, d_factor, d_block);
        for (long f = 0; f < FACTORS; f++)
            for (long k = 0; k < padded; k += BLOCK)
                for (long c = 0; c < rows; c += 2)
                    multiply(inputs + f * x_factor + c / LANES * x_block + c % LANES * 2,
                             gradients + f * d_factor + k / BLOCK * d_block, count, w->height, quads,
                             sums + (f * 3 * rows + c) * padded + k, rows * padded, padded, image == first);
    }
}

/* Combines the sums of all parts into the taps of a part of the channels. */
TARGET static void combine(Work *w) {
    const long rows = round_up(w->channels, LANES), padded = round_up(w->filters, BLOCK);
    const long begin = w->part * w->channels / w->parts, end = (w->part + 1) * w->channels / w->parts;
    for (long offset = 0; offset < 3; offset++)
        for (long c = begin; c < end; c++)
            for (long k = 0; k < w->filters; k += LANES) {
                __m512 m[FACTORS];
                for (long f = 0; f < FACTORS; f++) {
                    const float *sums = w->sums + ((f * 3 + offset) * rows + c) * padded + k;
                    m[f] = _mm512_loadu_ps(sums);
                    for (long part = 1; part < w->parts; part++)
                        m[f] = _mm512_add_ps(m[f], _mm512_loadu_ps(sums + part * w->sums_of_part));
                }
                const __m512 both = _mm512_add_ps(m[1], m[2]);
                const __m512 taps[3] = {_mm512_add_ps(m[0], both), _mm512_sub_ps(m[1], m[2]), _mm512_sub_ps(both, m[3])};
                for (long i = 0; i < 3; i++)
                    _mm256_mask_storeu_epi16(w->taps + ((offset * 3 + i) * w->channels + c) * w->filters + k,
                                             first_lanes(w->filters - k), (__m256i)_mm512_cvtneps_pbh(taps[i]));
            }
}

typedef struct {
    void (*function)(Work *);
    Work *work;
    const cpu_set_t *allowed;
} Start;

static void *start(void *argument) {
    Start *s = argument;
    pthread_setaffinity_np(pthread_self(), sizeof *s->allowed, s->allowed); /* the scheduler may move it from now on */
    s->function(s->work);
    return NULL;
}

/* Runs a function for all parts. A thread that cannot be started leaves its part to this one.

Each thread starts on a core of its own. Linux would often start it on the core of this thread, because others have just
been busy, and move it only milliseconds later. */
static void run_in_threads(void (*function)(Work *), Work *works, long parts) {
    pthread_t threads[MOST_THREADS];
    Start starts[MOST_THREADS];
    int started[MOST_THREADS] = {0}, core = sched_getcpu();
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    sched_getaffinity(0, sizeof allowed, &allowed);
    for (long i = 1; i < parts; i++) {
        cpu_set_t one;
        pthread_attr_t attributes;
        for (int tries = 0; tries < CPU_SETSIZE; tries++)
            if (CPU_ISSET(core = (core + 1) % CPU_SETSIZE, &allowed)) break;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        pthread_attr_init(&attributes);
        pthread_attr_setaffinity_np(&attributes, sizeof one, &one);
        starts[i] = (Start){function, &works[i], &allowed};
        started[i] = !pthread_create(&threads[i], &attributes, start, &starts[i]);
        pthread_attr_destroy(&attributes);
    }
    for (long i = 0; i < parts; i++)
        if (!started[i]) function(&works[i]);
    for (long i = 1; i < parts; i++)
        if (started[i]) pthread_join(threads[i], NULL);
}

/* Returns how many bytes `filter_gradient` needs for its sums and packed arrays. */
long filter_gradient_scratch(long images, long height, long width, long channels, long filters, long threads) {
    const Work common = plan(images, height, width, channels, filters, threads);
    return common.parts * (common.sums_of_part * sizeof(float) + common.packed_of_part * sizeof(bfloat16));
}

/* Writes the gradient `taps` [3, 3, channels, filters] of a SAME convolution with stride 1.

`x` is its input [images, height, width, channels], and `dy` [images, height, width, filters] the gradient with respect to
its output. All sizes and `threads` are positive. `scratch` has `filter_gradient_scratch` bytes and is aligned to 64. */
void filter_gradient(const bfloat16 *x, const bfloat16 *dy, long images, long height, long width, long channels,
                     long filters, long threads, void *scratch, bfloat16 *taps) {
    Work works[MOST_THREADS], common = plan(images, height, width, channels, filters, threads);
    common.x = x, common.dy = dy, common.taps = taps, common.sums = scratch;
    common.packed = (bfloat16 *)(common.sums + common.parts * common.sums_of_part);
    for (long part = 0; part < common.parts; part++) works[part] = common, works[part].part = part;
    run_in_threads(add_up, works, common.parts);
    run_in_threads(combine, works, common.parts);
}

int filter_gradient_compiled(void) { return 1; }

#else /* this compiler does not know the instructions */

long filter_gradient_scratch(long images, long height, long width, long channels, long filters, long threads) {
    return 0;
}

void filter_gradient(const bfloat16 *x, const bfloat16 *dy, long images, long height, long width, long channels,
                     long filters, long threads, void *scratch, bfloat16 *taps) {}

int filter_gradient_compiled(void) { return 0; }

#endif
