/* The kernels, each described in the file of its name, and the threads that they run in. */

#ifndef ALLCONV_KERNELS_H
#define ALLCONV_KERNELS_H

#include <stdint.h>

typedef uint16_t bfloat16;

/* Whether the compiler knows the instructions. Otherwise there are no kernels. */
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#define HAVE_KERNELS 1
#else
#define HAVE_KERNELS 0
#endif

long convolution_scratch(long images, long height, long width, long channels, long filters, long threads);

/* What a convolution does to its output in the end: nothing, y + other, ReLU(y), or 0 where other is not positive. */
enum last_step { NOTHING, ADD, RELU, MASK };

void convolution(const bfloat16 *x, const bfloat16 *kernel, int transposed, enum last_step last, const bfloat16 *other,
                 long images, long height, long width, long channels, long filters, long threads, void *scratch,
                 bfloat16 *y);

long filter_gradient_scratch(long images, long height, long width, long channels, long filters, long threads);

void filter_gradient(const bfloat16 *x, const bfloat16 *dy, long images, long height, long width, long channels,
                     long filters, long threads, void *scratch, bfloat16 *taps);

/* The same for processors with AMX. */

long convolution_amx_scratch(long images, long height, long width, long channels, long filters, long threads);

void convolution_amx(const bfloat16 *x, const bfloat16 *kernel, int transposed, enum last_step last,
                     const bfloat16 *other, long images, long height, long width, long channels, long filters,
                     long threads, void *scratch, bfloat16 *y);

long filter_gradient_amx_scratch(long images, long height, long width, long channels, long filters, long threads);

void filter_gradient_amx(const bfloat16 *x, const bfloat16 *dy, long images, long height, long width, long channels,
                         long filters, long threads, void *scratch, bfloat16 *taps);

#define MOST_THREADS 16 /* MOST_CORES of __init__.py */

/* Work that is divided into `parts`, of which each thread takes the next one when it is free. */
typedef struct {
    long parts, taken, done;
} Phase;

void take_parts(Phase *phase, void (*function)(void *work, long part, long thread), void *work, long thread);

void wait_for(const Phase *phase);

void run_in_threads(void (*function)(void *work, long thread), void *work, long threads);

#endif
