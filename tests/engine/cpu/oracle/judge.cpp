// XSAVE areas in the standard form, of x87, SSE and AVX state: SDM 1 10.5.1 and 13.4.
#include "tests/engine/cpu/oracle/judge.hpp"

#include <cstring>

namespace nestor::test {

namespace {

constexpr unsigned avx_offset = 576;
constexpr unsigned xstate_bv_offset = 512;

} // namespace

void put_xsave_image(const UserState& s, u8* image) {
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(image + 160 + 16 * i, &s.vector[4 * i], 16);
        std::memcpy(image + avx_offset + 16 * i, &s.vector[4 * i + 2], 16);
    }
    std::memcpy(image, s.x87.data(), 24);
    std::memcpy(image + 24, &s.mxcsr, 4);
    std::memcpy(image + 32, s.x87.data() + 32, 128);
    const u64 components = 7; // the rest of the header stays zero
    std::memcpy(image + xstate_bv_offset, &components, 8);
}

void take_xsave_image(UserState& s, const u8* image) {
    u64 components;
    std::memcpy(&components, image + xstate_bv_offset, 8);
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(&s.vector[4 * i], image + 160 + 16 * i, 16);
        if ((components & 4) != 0) {
            std::memcpy(&s.vector[4 * i + 2], image + avx_offset + 16 * i, 16);
        } else {
            s.vector[4 * i + 2] = s.vector[4 * i + 3] = 0;
        }
        if ((components & 2) == 0) {
            s.vector[4 * i] = s.vector[4 * i + 1] = 0;
        }
    }
    std::memcpy(s.x87.data(), image, 160);
    std::memset(s.x87.data() + 24, 0, 8);
    std::memcpy(&s.mxcsr, image + 24, 4);
    if ((components & 1) == 0) {
        s.x87.fill(0);
        s.x87[0] = 0x7f;
        s.x87[1] = 0x03;
    }
}

} // namespace nestor::test
