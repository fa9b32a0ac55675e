// Part of the `compute` guest: integer division, SSE double, x87 extended and string work whose
// result is the same on every correct CPU: only correctly rounded operations (+ - * / sqrt) are
// used. Arguments: seed and number of steps. Prints one line.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char** argv) {
    if (argc != 3) {
        return 2;
    }
    uint64_t x = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15 + 1;
    const uint64_t steps = strtoull(argv[2], NULL, 10);
    uint64_t quotients = 0;
    double sum = 0;
    long double extended = 1;
    char text[64] = {0};
    uint64_t letters = 0;
    for (uint64_t i = 1; i <= steps; ++i) {
        x = x * 6364136223846793005 + 1442695040888963407;
        quotients += (x >> 11) / i ^ x % (i + 7);
        sum += sqrt((double)(x >> 12)) / (double)i;
        extended = extended / 3.0L + sqrtl((long double)(x >> 1)) * 0.125L;
        if (i % 64 == 0) {
            snprintf(text, sizeof text, "%.15e %.18Le", sum, extended);
            letters = letters * 31 + strlen(text) + (unsigned char)text[i % 20];
        }
    }
    printf("%016" PRIx64 " %.17g %.20Lg %" PRIu64 "\n", quotients, sum, extended, letters);
    return 0;
}
