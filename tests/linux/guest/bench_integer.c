// Integer loop for tools/bench: exactly ten instructions an iteration, in assembly so that the
// count is known without disassembling what a compiler made. Argument: how many times 100 million
// iterations.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
    const uint64_t iterations = 100000000 * strtoull(argc > 1 ? argv[1] : "1", NULL, 10);
    uint64_t left = iterations;
    uint64_t a = 0x9e3779b97f4a7c15, b = 1, c = 0;
    uint64_t memory[64] = {0};
    printf("bench integer start\n");
    fflush(stdout);
    __asm__ volatile("1:\n\t"
                     "mov %[a], %[c]\n\t"
                     "shr $29, %[c]\n\t"
                     "xor %[c], %[a]\n\t"
                     "lea 5(%[a], %[a], 4), %[a]\n\t"
                     "mov %[a], %[c]\n\t"
                     "and $63, %[c]\n\t"
                     "add (%[m], %[c], 8), %[b]\n\t"
                     "mov %[b], (%[m], %[c], 8)\n\t"
                     "dec %[left]\n\t"
                     "jnz 1b"
                     : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [left] "+r"(left)
                     : [m] "r"(memory)
                     : "memory", "cc");
    printf("bench integer end iterations %" PRIu64 " instructions %" PRIu64 " check %016" PRIx64
           "\n",
           iterations, iterations * 10, a ^ b);
    return 0;
}
