// SHA-256 of two runs of equal length at once, with the SHA instructions (SDM 2B, SHA256RNDS2 and
// its relatives; FIPS 180-4). One run alone waits for each instruction's result before the next;
// two do not wait for each other.
//
// The state of a run is in the order that the instructions want: A B E F and C D G H.
#include "src/base/digest_pages.hpp"

#include <bit>

#include <cpuid.h>
#include <immintrin.h>

#include "src/base/check.hpp"

namespace nestor {

namespace {

constexpr std::size_t block_size = 64;

alignas(16) constexpr u32 round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
constexpr u32 initial_abef[4] = {0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667};
constexpr u32 initial_cdgh[4] = {0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372};

#define NESTOR_SHA [[gnu::target("sha,sse4.1"), gnu::always_inline]] inline

struct Run {
    __m128i abef;
    __m128i cdgh;
    __m128i words[4]; ///< the last sixteen of the message schedule
};

NESTOR_SHA __m128i load(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

NESTOR_SHA __m128i swap_bytes(__m128i words) {
    return _mm_shuffle_epi8(words, _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
}

/// Four rounds; `quad` of 16.
NESTOR_SHA void four_rounds(Run& run, unsigned quad) {
    __m128i& now = run.words[quad & 3];
    const __m128i next = run.words[(quad + 1) & 3];
    const __m128i later = run.words[(quad + 2) & 3];
    const __m128i last = run.words[(quad + 3) & 3];
    const __m128i sum = _mm_add_epi32(now, load(round_constants + 4 * quad));
    run.cdgh = _mm_sha256rnds2_epu32(run.cdgh, run.abef, sum);
    run.abef = _mm_sha256rnds2_epu32(run.abef, run.cdgh, _mm_shuffle_epi32(sum, 0x0e));
    if (quad < 12) {
        const __m128i part =
            _mm_add_epi32(_mm_sha256msg1_epu32(now, next), _mm_alignr_epi8(last, later, 4));
        now = _mm_sha256msg2_epu32(part, last);
    }
}

NESTOR_SHA void both_rounds(Run& a, Run& b, unsigned quad) {
    four_rounds(a, quad);
    four_rounds(b, quad);
}

[[gnu::target("sha,sse4.1")]] void add_blocks(Run& a_in, Run& b_in, const std::byte* from_a,
                                              const std::byte* from_b, std::size_t blocks) {
    Run a = a_in;
    Run b = b_in;
    for (; blocks != 0; --blocks, from_a += block_size, from_b += block_size) {
        const __m128i before[4] = {a.abef, a.cdgh, b.abef, b.cdgh};
        for (unsigned i = 0; i < 4; ++i) {
            a.words[i] = swap_bytes(load(from_a + 16 * i));
            b.words[i] = swap_bytes(load(from_b + 16 * i));
        }
        both_rounds(a, b, 0);
        both_rounds(a, b, 1);
        both_rounds(a, b, 2);
        both_rounds(a, b, 3);
        both_rounds(a, b, 4);
        both_rounds(a, b, 5);
        both_rounds(a, b, 6);
        both_rounds(a, b, 7);
        both_rounds(a, b, 8);
        both_rounds(a, b, 9);
        both_rounds(a, b, 10);
        both_rounds(a, b, 11);
        both_rounds(a, b, 12);
        both_rounds(a, b, 13);
        both_rounds(a, b, 14);
        both_rounds(a, b, 15);
        a.abef = _mm_add_epi32(a.abef, before[0]);
        a.cdgh = _mm_add_epi32(a.cdgh, before[1]);
        b.abef = _mm_add_epi32(b.abef, before[2]);
        b.cdgh = _mm_add_epi32(b.cdgh, before[3]);
    }
    a_in = a;
    b_in = b;
}

[[gnu::target("sha,sse4.1")]] void put(const Run& run, Digest& digest) {
    // Lanes from the lowest: F E B A and H G D C. The digest is A to H, big endian.
    const __m128i feba = swap_bytes(run.abef);
    const __m128i hgdc = swap_bytes(run.cdgh);
    const __m128i abcd = _mm_unpackhi_epi32(feba, hgdc); // B D A C
    const __m128i efgh = _mm_unpacklo_epi32(feba, hgdc); // F H E G
    auto* const into = reinterpret_cast<__m128i*>(digest.bytes.data());
    _mm_storeu_si128(into, _mm_shuffle_epi32(abcd, _MM_SHUFFLE(1, 3, 0, 2)));
    _mm_storeu_si128(into + 1, _mm_shuffle_epi32(efgh, _MM_SHUFFLE(1, 3, 0, 2)));
}

[[gnu::target("sha,sse4.1")]] void digest_two(const std::byte* a, const std::byte* b,
                                              std::size_t size, Digest& digest_a,
                                              Digest& digest_b) {
    Run run_a{load(initial_abef), load(initial_cdgh), {}};
    Run run_b = run_a;
    add_blocks(run_a, run_b, a, b, size / block_size);
    std::byte padding[block_size] = {std::byte{0x80}};
    for (unsigned i = 0; i < 8; ++i) {
        padding[block_size - 1 - i] = static_cast<std::byte>(u64{size} * 8 >> (8 * i));
    }
    add_blocks(run_a, run_b, padding, padding, 1);
    put(run_a, digest_a);
    put(run_b, digest_b);
}

bool host_has_sha() {
    static const bool has = [] {
        unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
        const bool sha =
            __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & bit_SHA) != 0;
        return sha && __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_SSE4_1) != 0;
    }();
    return has;
}

} // namespace

void sha256_each(std::span<const std::byte* const> runs, std::size_t size, std::span<Digest> out) {
    CHECK(size % block_size == 0 && out.size() == runs.size(), {size, runs.size(), out.size()});
    std::size_t i = 0;
    if (host_has_sha()) {
        for (; i + 2 <= runs.size(); i += 2) {
            digest_two(runs[i], runs[i + 1], size, out[i], out[i + 1]);
        }
    }
    for (; i < runs.size(); ++i) {
        out[i] = sha256({runs[i], size});
    }
}

} // namespace nestor
