/* The gradient of a 3x3 convolution with respect to its kernel, in bfloat16 on processors with AMX.

It is the plain sum over images and pixels. For each tap, a block of 32 channels of the input and a block of 32 filters are
four tiles of sums. At each pixel, the 32 images of a group are added up by four instructions: in a tile of the input, a row
holds one channel of all 32 images, and in a tile of the output gradient, a row holds one pair of images.

A "unit" is a few rows of a group of images, as many as stay in the L2 cache when they are packed. Each thread takes as many
units as the others, in order, and has its own sums. The result therefore depends on the number of threads alone, in its
last bits. The packed rows of the input are a ring, in which a new row takes the place of the oldest one. */

#include "kernels.h"

#if HAVE_KERNELS

#include "amx.h"

/* What the threads share. The sums are [parts, blocks of channels, blocks of filters, 9 taps, 2 tiles of channels, 2 tiles
of filters, 16, 16]. */
typedef struct {
    const bfloat16 *x, *dy;
    bfloat16 *taps;
    long images, height, width, channels, filters;
    long blocks_of_channels, blocks_of_filters;
    long row_of_x, row_of_dy; /* numbers of packed rows */
    long rows;                /* of the output gradient in a unit */
    long units_of_group;
    long units;
    long sums_of_part, packed_of_part;
    float *sums;
    bfloat16 *packed;
    Phase add_up, combine;
} Work;

/* Returns what depends on sizes alone, without the pointers to the arrays. */
static Work plan(long images, long height, long width, long channels, long filters, long threads) {
    Work w = {.images = images, .height = height, .width = width, .channels = channels, .filters = filters};
    const long groups = ceil_div(images, GROUP);
    w.blocks_of_channels = ceil_div(channels, WIDE);
    w.blocks_of_filters = ceil_div(filters, WIDE);
    w.row_of_x = width * w.blocks_of_channels * SQUARE;
    w.row_of_dy = width * w.blocks_of_filters * SQUARE;
    const long unit = PACKED_BYTES / sizeof(bfloat16);
    w.rows = min(height, max(1, (unit - 2 * w.row_of_x) / (w.row_of_x + w.row_of_dy)));
    if (groups % threads && groups < 4 * threads) w.rows = min(w.rows, ceil_div(height, min(height, threads)));
    w.units_of_group = ceil_div(height, w.rows);
    w.units = groups * w.units_of_group;
    w.add_up.parts = w.combine.parts = min(min(threads, w.units), MOST_THREADS);
    w.sums_of_part = w.blocks_of_channels * w.blocks_of_filters * TAPS * SQUARE;
    /* the ring, the rows of the output gradient, and one row before its pairs are put together */
    w.packed_of_part = (w.rows + 2) * w.row_of_x + w.rows * w.row_of_dy + max(w.row_of_x, w.row_of_dy);
    return w;
}

/* Puts the numbers of the images 2 i and 2 i + 1 side by side. `packed` is a row that `pack_row` has packed. For each block
of 32 channels there are then two tiles [16 channels, 16 pairs of images] if `transposed`, otherwise [16 pairs, 16
channels]. */
TARGET static void pair_images(const bfloat16 *packed, long numbers, int transposed, bfloat16 *out) {
    bfloat16 order[2][2 * TILE];
    for (int i = 0; i < 2 * TILE; i++)
        for (int half = 0; half < 2; half++) order[half][i] = half * TILE + i / 2 + i % 2 * WIDE;
    const __m512i first = _mm512_loadu_si512(order[0]), second = _mm512_loadu_si512(order[1]);
    for (const bfloat16 *end = packed + numbers; packed < end; packed += SQUARE, out += SQUARE)
        for (int half = 0; half < 2; half++) {
            __m512i v[TILE];
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) {
                const __m512i a = _mm512_load_si512(packed + 2 * i * WIDE);
                const __m512i b = _mm512_load_si512(packed + (2 * i + 1) * WIDE);
                v[i] = _mm512_permutex2var_epi16(a, half ? second : first, b);
            }
            if (transposed) transpose(v);
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) _mm512_store_si512(out + half * TILE_NUMBERS + i * 2 * TILE, v[i]);
        }
}

/* Adds the products of one tap, a block of channels and a block of filters to `sums`, or writes them there if they are the
first. `x` and `dy` are those blocks in the first column of the ring and of the packed output gradient, whose rows are
`begin` to `end`. `down` and `right` are the tap, from -1 to 1. */
TARGET static inline void multiply(const Work *w, const bfloat16 *x, const bfloat16 *dy, long begin, long end, long down,
                                   long right, float *sums, int are_first) {
    let_tiles_see_memory();
    if (are_first)
        begin_sums();
    else
        load_sums(sums);
    const long step_of_x = w->blocks_of_channels * SQUARE, step_of_dy = w->blocks_of_filters * SQUARE;
    const long left = max(0, -right), columns = min(w->width, w->width - right) - left;
    for (long row = max(begin, -down); row < min(end, w->height - down); row++) {
        const bfloat16 *a = x + (row + down) % (w->rows + 2) * w->row_of_x + (left + right) * step_of_x;
        const bfloat16 *b = dy + (row - begin) * w->row_of_dy + left * step_of_dy;
        for (long column = 0; column < columns; column++, a += step_of_x, b += step_of_dy) add_products(a, b);
    }
    store_sums(sums);
}

/* Adds up the products of a part of the units. */
TARGET static void add_up(void *work, long part, long thread) {
    const Work *w = work;
    const long begin = part * w->units / w->add_up.parts, end = (part + 1) * w->units / w->add_up.parts;
    const long image = w->height * w->width;
    bfloat16 *ring = w->packed + part * w->packed_of_part, *gradients = ring + (w->rows + 2) * w->row_of_x;
    bfloat16 *unpaired = gradients + w->rows * w->row_of_dy;
    long next = 0; /* the next row of the input to pack */
    for (long unit = begin; unit < end; unit++) {
        const long first = unit / w->units_of_group * GROUP, count = min(GROUP, w->images - first);
        const long row = unit % w->units_of_group * w->rows, stop = min(w->height, row + w->rows);
        if (unit == begin || row == 0) next = max(0, row - 1);
        for (; next < min(w->height, stop + 1); next++) {
            pack_row(w->x + (first * image + next * w->width) * w->channels, count, image * w->channels, w->width,
                     w->channels, unpaired);
            pair_images(unpaired, w->row_of_x, 1, ring + next % (w->rows + 2) * w->row_of_x);
        }
        for (long r = row; r < stop; r++) {
            pack_row(w->dy + (first * image + r * w->width) * w->filters, count, image * w->filters, w->width, w->filters,
                     unpaired);
            pair_images(unpaired, w->row_of_dy, 0, gradients + (r - row) * w->row_of_dy);
        }
        float *sums = w->sums + part * w->sums_of_part;
        for (long c = 0; c < w->blocks_of_channels; c++)
            for (long k = 0; k < w->blocks_of_filters; k++)
                for (long tap = 0; tap < TAPS; tap++, sums += SQUARE)
                    multiply(w, ring + c * SQUARE, gradients + k * SQUARE, row, stop, tap / 3 - 1, tap % 3 - 1, sums,
                             unit == begin);
    }
}

/* Combines the sums of all parts into the taps of a part of the channels. */
TARGET static void combine(void *work, long part, long thread) {
    const Work *w = work;
    const long begin = part * w->channels / w->combine.parts, end = (part + 1) * w->channels / w->combine.parts;
    for (long c = begin; c < end; c++)
        for (long k = 0; k < w->filters; k += TILE)
            for (long tap = 0; tap < TAPS; tap++) {
                const long square = (c / WIDE * w->blocks_of_filters + k / WIDE) * TAPS + tap;
                const long tile = c % WIDE / TILE * 2 + k % WIDE / TILE;
                const float *sums = w->sums + square * SQUARE + (tile * TILE + c % TILE) * TILE;
                __m512 sum = _mm512_load_ps(sums);
                for (long other = 1; other < w->add_up.parts; other++)
                    sum = _mm512_add_ps(sum, _mm512_load_ps(sums + other * w->sums_of_part));
                store(w->taps + (tap * w->channels + c) * w->filters + k, first_lanes(w->filters - k), sum);
            }
}

TARGET static void run(void *work, long thread) {
    Work *w = work;
    begin_tiles();
    take_parts(&w->add_up, add_up, w, thread);
    end_tiles();
    wait_for(&w->add_up);
    take_parts(&w->combine, combine, w, thread);
}

/* Returns how many bytes `filter_gradient_amx` needs for its sums and packed arrays. */
long filter_gradient_amx_scratch(long images, long height, long width, long channels, long filters, long threads) {
    const Work w = plan(images, height, width, channels, filters, threads);
    return w.add_up.parts * (w.sums_of_part * sizeof(float) + w.packed_of_part * sizeof(bfloat16));
}

/* Does what `filter_gradient` does. `scratch` has `filter_gradient_amx_scratch` bytes. */
void filter_gradient_amx(const bfloat16 *x, const bfloat16 *dy, long images, long height, long width, long channels,
                         long filters, long threads, void *scratch, bfloat16 *taps) {
    Work w = plan(images, height, width, channels, filters, threads);
    w.x = x, w.dy = dy, w.taps = taps;
    w.sums = scratch;
    w.packed = (bfloat16 *)(w.sums + w.add_up.parts * w.sums_of_part);
    run_in_threads(run, &w, w.add_up.parts);
}

#endif
