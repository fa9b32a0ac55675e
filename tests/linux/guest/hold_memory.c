// Holds memory for the measurements of the snapshot store: as many MiB as the argument says, every
// page different, two thirds of it random bytes and the rest words, so that it compresses about as
// guest memory does. Then each line "dirty N" writes to as many MiB of pages, the next ones each
// time, and says so.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { page_words = 512, random_words = 340 };

static uint64_t seed = 88172645463325252;

static uint64_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void fill(uint64_t* page) {
    for (int i = 0; i < random_words; ++i) {
        page[i] = next_random();
    }
    for (int i = random_words; i < page_words; ++i) {
        memcpy(page + i, next_random() % 4 == 0 ? "snapshot" : "machine ", 8);
    }
}

int main(int argc, char** argv) {
    const size_t pages = 256 * strtoull(argc > 1 ? argv[1] : "1", NULL, 10);
    uint64_t* memory = aligned_alloc(4096, pages * page_words * sizeof *memory);
    if (memory == NULL) {
        return 1;
    }
    for (size_t i = 0; i < pages; ++i) {
        fill(memory + i * page_words);
    }
    printf("hold ready, %zu MiB\n", pages / 256);
    fflush(stdout);
    char line[64];
    size_t next = 0;
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned long mib = 0;
        if (sscanf(line, "dirty %lu", &mib) != 1) {
            continue;
        }
        for (size_t i = 0; i < 256 * mib; ++i) {
            fill(memory + next * page_words);
            next = (next + 1) % pages;
        }
        printf("hold dirtied, %lu MiB\n", mib);
        fflush(stdout);
    }
    return 0;
}
