// Pointer chase over 64 MiB for tools/bench: every step is a load that depends on the one before,
// on another cache line and mostly on another page. Argument: how many times 5 million steps.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { line_words = 8, lines = 64 * 1024 * 1024 / 64 };

static uint64_t next_random(uint64_t* state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

int main(int argc, char** argv) {
    const uint64_t steps = 5000000 * strtoull(argc > 1 ? argv[1] : "1", NULL, 10);
    uint64_t* memory = malloc((size_t)lines * line_words * sizeof *memory);
    if (memory == NULL) {
        return 1;
    }
    // Sattolo's shuffle makes one cycle through all lines.
    uint64_t seed = 88172645463325252;
    for (uint64_t i = 0; i < lines; ++i) {
        memory[i * line_words] = i;
    }
    for (uint64_t i = lines - 1; i > 0; --i) {
        const uint64_t j = next_random(&seed) % i;
        const uint64_t t = memory[i * line_words];
        memory[i * line_words] = memory[j * line_words];
        memory[j * line_words] = t;
    }
    printf("bench memory_walk start\n");
    fflush(stdout);
    uint64_t at = 0;
    for (uint64_t i = 0; i < steps; ++i) {
        at = memory[at * line_words];
    }
    printf("bench memory_walk end iterations %" PRIu64 " check %016" PRIx64 "\n", steps, at);
    return 0;
}
