// Between registers and their images in memory. SDM 1 10.5.1, 13.4, 13.6.
//
// nestor-v1: a component is in use exactly when its content differs from the initial configuration,
// so XINUSE follows from the registers and is not kept anywhere. FCS and FDS are deprecated and are
// zero in images.
#include "engine/cpu/xstate.hpp"

#include "engine/cpu/x87.hpp"

namespace nestor::cpu::xstate {

namespace {

/// Whether words `first` and first + 1 of every vector register that can be named are zero.
bool halves_zero(const Cpu& cpu, unsigned first) {
    u64 any = 0;
    for (unsigned i = 0; i < vector_count(cpu); ++i) {
        any |= cpu.s.vector[4 * i + first] | cpu.s.vector[4 * i + first + 1];
    }
    return any == 0;
}

} // namespace

void put_x87(const state::X87& f, Image& image, bool wide) {
    image.put(0, f.control);
    image.put(2, f.status);
    image.put(4, static_cast<u8>(~f.empty_mask));
    image.put(6, f.opcode);
    if (wide) {
        image.put(8, f.instruction_pointer);
        image.put(16, f.data_pointer);
    } else {
        image.put(8, static_cast<u32>(f.instruction_pointer));
        image.put(16, static_cast<u32>(f.data_pointer));
    }
    for (u32 i = 0; i < 8; ++i) {
        image.put(32 + 16 * i, f.significand[i]);
        image.put(40 + 16 * i, f.sign_exponent[i]);
    }
}

void take_x87(state::X87& f, const Image& image, bool wide) {
    f.status = image.get<u16>(2);
    x87::set_control(f, image.get<u16>(0));
    f.empty_mask = static_cast<u8>(~image.get<u8>(4));
    f.opcode = image.get<u16>(6) & 0x7ff;
    f.instruction_pointer = wide ? image.get<u64>(8) : image.get<u32>(8);
    f.data_pointer = wide ? image.get<u64>(16) : image.get<u32>(16);
    for (u32 i = 0; i < 8; ++i) {
        f.significand[i] = image.get<u64>(32 + 16 * i);
        f.sign_exponent[i] = image.get<u16>(40 + 16 * i);
    }
}

void put_xmm(const Cpu& cpu, Image& image) {
    for (u32 i = 0; i < vector_count(cpu); ++i) {
        std::memcpy(image.b + 160 + 16 * i, &cpu.s.vector[4 * i], 16);
    }
}
void take_xmm(Cpu& cpu, const Image& image) {
    for (u32 i = 0; i < vector_count(cpu); ++i) {
        std::memcpy(&cpu.s.vector[4 * i], image.b + 160 + 16 * i, 16);
    }
}

u64 in_use(const Cpu& cpu) {
    return (x87::is_initial(cpu.s.x87) ? 0 : x87_bit) | (halves_zero(cpu, 0) ? 0 : sse_bit) |
           (halves_zero(cpu, 2) ? 0 : avx_bit) | (cpu.s.pkru == 0 ? 0 : pkru_bit);
}

void put_component(const Cpu& cpu, unsigned number, u8* p) {
    if (number == 2) {
        for (u32 i = 0; i < vector_count(cpu); ++i) {
            std::memcpy(p + 16 * i, &cpu.s.vector[4 * i + 2], 16);
        }
    } else {
        const u64 pkru = cpu.s.pkru;
        std::memcpy(p, &pkru, sizeof pkru);
    }
}

void take_component(Cpu& cpu, unsigned number, const u8* p) {
    if (number == 2) {
        for (u32 i = 0; i < vector_count(cpu); ++i) {
            u64 half[2] = {};
            if (p != nullptr) {
                std::memcpy(half, p + 16 * i, 16);
            }
            std::memcpy(&cpu.s.vector[4 * i + 2], half, 16);
        }
        return;
    }
    u32 pkru = 0;
    if (p != nullptr) {
        std::memcpy(&pkru, p, sizeof pkru);
    }
    if (pkru != cpu.s.pkru) {
        cpu.s.pkru = pkru;
        cpu.flush_tlb();
    }
}

} // namespace nestor::cpu::xstate
