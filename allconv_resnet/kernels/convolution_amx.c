/* A 3x3 convolution in bfloat16 on processors with AMX, SAME and with stride 1.

It is the plain sum over taps and channels. At each pixel of the output, the 32 images of a group and a block of 32 filters
are four tiles of sums, which stay in registers. A kernel is packed as [blocks of filters, 9 taps, blocks of channels, 2
tiles of 16 filters, 16 pairs of channels, 16 filters, 2].

A "part" is a band of rows of a group of images. A thread packs a few rows of it, as many as stay in the L2 cache, computes
the output that they allow, and goes on. The packed rows are a ring, in which a new row takes the place of the oldest one.
The rows of the output are packed in the same way. Before they are computed they hold those of `other`, where there is one.

The convolution ends with the same steps as that of convolution.c. */

#include "kernels.h"

#if HAVE_KERNELS

#include "amx.h"

/* What the threads share. */
typedef struct {
    const bfloat16 *x, *kernel, *other;
    bfloat16 *y;
    int transposed;
    enum last_step last;
    long images, height, width, channels, filters, threads;
    long inner, outer; /* blocks of channels and of filters */
    long bands;        /* of rows, for each group of images */
    long rows;         /* of the output, that are computed from the rows of the ring */
    long row, row_of_y; /* numbers of packed rows */
    long block;        /* numbers of the packed kernel, for a block of filters */
    long packed_of_thread;
    bfloat16 *packed_kernel, *packed;
    float *sums;
    Phase pack, convolve;
} Work;

/* Returns what depends on sizes alone, without the pointers to the arrays. */
static Work plan(long images, long height, long width, long channels, long filters, long threads) {
    Work w = {.images = images, .height = height, .width = width, .channels = channels, .filters = filters};
    const long groups = ceil_div(images, GROUP);
    w.inner = ceil_div(channels, WIDE);
    w.block = TAPS * w.inner * SQUARE;
    w.pack.parts = w.outer = ceil_div(filters, WIDE);
    w.bands = groups % threads && groups < 4 * threads ? min(height, threads) : 1;
    w.convolve.parts = groups * w.bands;
    w.threads = min(min(threads, w.convolve.parts), MOST_THREADS);
    w.row = width * w.inner * SQUARE;
    w.row_of_y = width * w.outer * SQUARE;
    const long step = PACKED_BYTES / sizeof(bfloat16);
    w.rows = min(max(1, (step - 2 * w.row) / (w.row + w.row_of_y)), ceil_div(height, w.bands));
    w.packed_of_thread = (w.rows + 2) * w.row + w.rows * w.row_of_y;
    return w;
}

/* Packs a block of filters of `kernel` [3, 3, channels, filters]. */
TARGET static void pack_block(const Work *w, long block) {
    bfloat16 *out = w->packed_kernel + block * w->block;
    for (long tap = 0; tap < TAPS; tap++)
        for (long c = 0; c < w->inner * WIDE; c += WIDE)
            for (long k = block * WIDE; k < (block + 1) * WIDE; k += TILE)
                for (long pair = c; pair < c + WIDE; pair += 2, out += 2 * TILE) {
                    const bfloat16 *from = w->kernel + (tap * w->channels + pair) * w->filters + k;
                    const __mmask16 mask = first_lanes(w->filters - k);
                    const __mmask16 first = pair < w->channels ? mask : 0, second = pair + 1 < w->channels ? mask : 0;
                    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, from));
                    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, from + w->filters));
                    _mm512_store_si512(out, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
                }
}

/* Packs a block of filters of a kernel that is stored as [3, 3, filters, channels], with its rows and taps in the opposite
order. */
TARGET static void pack_transposed_block(const Work *w, long block) {
    bfloat16 *out = w->packed_kernel + block * w->block;
    for (long tap = 0; tap < TAPS; tap++)
        for (long c = 0; c < w->inner * WIDE; c += WIDE)
            for (long k = block * WIDE; k < (block + 1) * WIDE; k += TILE, out += TILE_NUMBERS) {
                const __mmask32 mask = first_of_wide(w->channels - c);
                __m512i v[TILE];
                for (long i = 0; i < TILE; i++) {
                    const long place = ((TAPS - 1 - tap) * w->filters + k + i) * w->channels + c;
                    v[i] = _mm512_maskz_loadu_epi16(k + i < w->filters ? mask : 0, w->kernel + place);
                }
                transpose(v);
                for (long i = 0; i < TILE; i++) _mm512_store_si512(out + i * 2 * TILE, v[i]);
            }
}

static void pack_kernel(void *work, long block, long thread) {
    const Work *w = work;
    if (w->transposed)
        pack_transposed_block(w, block);
    else
        pack_block(w, block);
}

/* Writes the sums of 32 images and 32 filters at one pixel of the output to `sums` [2 tiles of images, 2 tiles of filters,
16, 16]. */
TARGET static inline void multiply(const Work *w, const bfloat16 *ring, const bfloat16 *kernel, long row, long column,
                                   float *sums) {
    let_tiles_see_memory();
    begin_sums();
    for (long r = max(0, row - 1); r < min(w->height, row + 2); r++)
        for (long c = max(0, column - 1); c < min(w->width, column + 2); c++) {
            const bfloat16 *x = ring + r % (w->rows + 2) * w->row + c * w->inner * SQUARE;
            const bfloat16 *taps = kernel + ((r - row + 1) * 3 + c - column + 1) * w->inner * SQUARE;
            for (long i = 0; i < w->inner; i++, x += SQUARE, taps += SQUARE) add_products(x, taps);
        }
    store_sums(sums);
}

/* Finishes the sums of 32 images and 32 filters at one pixel. `y` [32 images, 32 filters] is that of the packed output. */
TARGET static inline void finish(enum last_step last, const float *sums, bfloat16 *y) {
    for (long i = 0; i < GROUP; i++)
        for (long k = 0; k < 2; k++, y += TILE) {
            const __m512 sum = _mm512_load_ps(sums + (i / TILE * 2 + k) * TILE * TILE + i % TILE * TILE);
            store(y, 0xffff, after_last_step(last, sum, y, 0xffff));
        }
}

/* Computes the output of a part: a band of rows of a group of images. */
TARGET static void convolve_part(void *work, long part, long thread) {
    const Work *w = work;
    const long first = part / w->bands * GROUP, count = min(GROUP, w->images - first), band = part % w->bands;
    const long end = (band + 1) * w->height / w->bands, image = w->height * w->width;
    bfloat16 *ring = w->packed + thread * w->packed_of_thread, *packed_y = ring + (w->rows + 2) * w->row;
    float *sums = w->sums + thread * SQUARE;
    long row = band * w->height / w->bands, next = max(0, row - 1); /* the next row to pack */
    for (; row < end; row += w->rows) {
        const long stop = min(end, row + w->rows);
        for (; next < min(w->height, stop + 1); next++)
            pack_row(w->x + (first * image + next * w->width) * w->channels, count, image * w->channels, w->width,
                     w->channels, ring + next % (w->rows + 2) * w->row);
        if (w->last == ADD || w->last == MASK)
            for (long r = row; r < stop; r++)
                pack_row(w->other + (first * image + r * w->width) * w->filters, count, image * w->filters, w->width,
                         w->filters, packed_y + (r - row) * w->row_of_y);
        for (long block = 0; block < w->outer; block++)
            for (long r = row; r < stop; r++)
                for (long column = 0; column < w->width; column++) {
                    multiply(w, ring, w->packed_kernel + block * w->block, r, column, sums);
                    finish(w->last, sums, packed_y + (r - row) * w->row_of_y + (column * w->outer + block) * SQUARE);
                }
        for (long r = row; r < stop; r++)
            unpack_row(packed_y + (r - row) * w->row_of_y, count, image * w->filters, w->width, w->filters,
                       w->y + (first * image + r * w->width) * w->filters);
    }
}

TARGET static void run(void *work, long thread) {
    Work *w = work;
    take_parts(&w->pack, pack_kernel, w, thread);
    wait_for(&w->pack);
    begin_tiles();
    take_parts(&w->convolve, convolve_part, w, thread);
    end_tiles();
}

/* Returns how many bytes `convolution_amx` needs for its sums and packed arrays. */
long convolution_amx_scratch(long images, long height, long width, long channels, long filters, long threads) {
    const Work w = plan(images, height, width, channels, filters, threads);
    const long of_thread = SQUARE * sizeof(float) + w.packed_of_thread * sizeof(bfloat16);
    return w.threads * of_thread + w.pack.parts * w.block * sizeof(bfloat16);
}

/* Does what `convolution` does. `scratch` has `convolution_amx_scratch` bytes. */
void convolution_amx(const bfloat16 *x, const bfloat16 *kernel, int transposed, enum last_step last,
                     const bfloat16 *other, long images, long height, long width, long channels, long filters,
                     long threads, void *scratch, bfloat16 *y) {
    Work w = plan(images, height, width, channels, filters, threads);
    w.x = x, w.kernel = kernel, w.transposed = transposed, w.last = last, w.other = other, w.y = y;
    w.sums = scratch;
    w.packed_kernel = (bfloat16 *)(w.sums + w.threads * SQUARE);
    w.packed = w.packed_kernel + w.pack.parts * w.block;
    run_in_threads(run, &w, w.threads);
}

#endif
