/* A map of what ran: the compiler calls this at every branch (-fsanitize-coverage=trace-pc). The fuzzer reads the map. */

#include <stdint.h>

#define SIZE (1 << 16)

unsigned char coverage_map[SIZE];
const int coverage_size = SIZE;

void __sanitizer_cov_trace_pc(void) {
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    coverage_map[(pc ^ (pc >> 16)) & (SIZE - 1)] = 1;
}
