/* Both functions are described in filter_gradient.c. */

#include <stdint.h>

typedef uint16_t bfloat16;

int filter_gradient_compiled(void); /* whether the compiler knew the instructions; otherwise the others do nothing */

long filter_gradient_scratch(long images, long height, long width, long channels, long filters, long threads);

void filter_gradient(const bfloat16 *x, const bfloat16 *dy, long images, long height, long width, long channels,
                     long filters, long threads, void *scratch, bfloat16 *taps);
