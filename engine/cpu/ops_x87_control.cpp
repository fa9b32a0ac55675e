// x87 control: words, environment, FNINIT, FNCLEX, FNSAVE and FRSTOR.
//
// The environment has four formats: 16 or 32 bits, real or protected (SDM 1 figures 8-9 to 8-12).
// FCS and FDS are deprecated: stored as zero, ignored when loaded.
#include <cstring>

#include "engine/cpu/ops_x87.hpp"

namespace nestor::cpu::x87 {

namespace {

constexpr unsigned max_image = 28 + 80;

/// Environment format, as control() puts it into Op::dst.
enum class Format : u8 { protected32, real32, protected16, real16 };

bool is_16bit(Format f) { return f == Format::protected16 || f == Format::real16; }
unsigned environment_size(Format f) { return is_16bit(f) ? 14 : 28; }

/// The full tag word (SDM 1 8.1.7): 0 valid, 1 zero, 2 special, 3 empty, by physical register.
u16 tag_word(const state::X87& f) {
    unsigned tags = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const Extended v = st(f, i);
        unsigned tag = 0;
        if (is_empty(f, i)) {
            tag = 3;
        } else if (v.exponent() == 0 && v.significand == 0) {
            tag = 1;
        } else if (v.exponent() == 0 || v.exponent() == 0x7fff || (v.significand >> 63) == 0) {
            tag = 2;
        }
        tags |= tag << 2 * ((top(f) + i) & 7);
    }
    return static_cast<u16>(tags);
}

/// Lays out the environment: seven fields, in words or, with ones above, in doublewords.
void put_environment(const state::X87& f, Format format, u8* p) {
    const u64 ip = f.instruction_pointer;
    const u64 dp = f.data_pointer;
    const u32 head[3] = {f.control, f.status, tag_word(f)};
    u32 rest[4];
    switch (format) {
    case Format::protected32:
        rest[0] = static_cast<u32>(ip);
        rest[1] = u32{f.opcode} << 16;
        rest[2] = static_cast<u32>(dp);
        rest[3] = 0xffff0000;
        break;
    case Format::real32:
        rest[0] = 0xffff0000 | static_cast<u16>(ip);
        rest[1] = static_cast<u32>(ip >> 16 & 0xffff) << 12 | f.opcode;
        rest[2] = 0xffff0000 | static_cast<u16>(dp);
        rest[3] = static_cast<u32>(dp >> 16 & 0xffff) << 12;
        break;
    case Format::protected16:
        rest[0] = static_cast<u16>(ip);
        rest[1] = 0;
        rest[2] = static_cast<u16>(dp);
        rest[3] = 0;
        break;
    case Format::real16:
        rest[0] = static_cast<u16>(ip);
        rest[1] = static_cast<u32>(ip >> 16 & 15) << 12 | f.opcode;
        rest[2] = static_cast<u16>(dp);
        rest[3] = static_cast<u32>(dp >> 16 & 15) << 12;
        break;
    }
    for (unsigned i = 0; i < 7; ++i) {
        const u32 v = i < 3 ? 0xffff0000 | head[i] : rest[i - 3];
        if (is_16bit(format)) {
            const u16 word = static_cast<u16>(v);
            std::memcpy(p + 2 * i, &word, 2);
        } else {
            std::memcpy(p + 4 * i, &v, 4);
        }
    }
}

void take_environment(state::X87& f, Format format, const u8* p) {
    u32 v[7] = {};
    for (unsigned i = 0; i < 7; ++i) {
        if (is_16bit(format)) {
            std::memcpy(&v[i], p + 2 * i, 2);
        } else {
            std::memcpy(&v[i], p + 4 * i, 4);
        }
    }
    const u16 status_word = static_cast<u16>(v[1]);
    set_top(f, status_word >> status::top_shift & 7u);
    f.status = status_word;
    set_control(f, static_cast<u16>(v[0]));
    f.empty_mask = 0;
    for (unsigned i = 0; i < 8; ++i) {
        f.empty_mask |= static_cast<u8>((v[2] >> 2 * i & 3) == 3 ? 1u << i : 0u);
    }
    switch (format) {
    case Format::protected32:
        f.instruction_pointer = v[3];
        f.opcode = v[4] >> 16 & 0x7ff;
        f.data_pointer = v[5];
        break;
    case Format::real32:
        f.instruction_pointer = (v[3] & 0xffff) | (v[4] >> 12 & 0xffff) << 16;
        f.opcode = v[4] & 0x7ff;
        f.data_pointer = (v[5] & 0xffff) | (v[6] >> 12 & 0xffff) << 16;
        break;
    case Format::protected16:
        f.instruction_pointer = v[3];
        f.opcode = 0;
        f.data_pointer = v[5];
        break;
    case Format::real16:
        f.instruction_pointer = v[3] | (v[4] >> 12 & 15) << 16;
        f.opcode = v[4] & 0x7ff;
        f.data_pointer = v[5] | (v[6] >> 12 & 15) << 16;
        break;
    }
}

/// The operand of `size` bytes, whole or not at all.
bool load_image(Cpu& cpu, const Op* op, u8* p, unsigned size) {
    u64 address;
    return cpu.linear(op, size, Access::read, address) &&
           cpu.load_slow(op, address, p, size, Cpu::operand_segment(op));
}
bool store_image(Cpu& cpu, const Op* op, const u8* p, unsigned size) {
    u64 address;
    return cpu.linear(op, size, Access::write, address) &&
           cpu.probe_write(op, address, size, Cpu::operand_segment(op)) &&
           cpu.store_slow(op, address, p, size, Cpu::operand_segment(op));
}

bool fnstenv(Cpu& cpu, const Op* op) {
    const Format format = static_cast<Format>(op->dst);
    u8 image[max_image];
    put_environment(cpu.s.x87, format, image);
    if (!store_image(cpu, op, image, environment_size(format))) {
        return false;
    }
    cpu.s.x87.control |= status::exceptions;
    summarize(cpu.s.x87);
    return true;
}

bool fldenv(Cpu& cpu, const Op* op) {
    const Format format = static_cast<Format>(op->dst);
    u8 image[max_image];
    if (!load_image(cpu, op, image, environment_size(format))) {
        return false;
    }
    take_environment(cpu.s.x87, format, image);
    return true;
}

bool fnsave(Cpu& cpu, const Op* op) {
    const Format format = static_cast<Format>(op->dst);
    const unsigned size = environment_size(format);
    state::X87& f = cpu.s.x87;
    u8 image[max_image];
    put_environment(f, format, image);
    for (unsigned i = 0; i < 8; ++i) {
        std::memcpy(image + size + 10 * i, &f.significand[i], 8);
        std::memcpy(image + size + 10 * i + 8, &f.sign_exponent[i], 2);
    }
    if (!store_image(cpu, op, image, size + 80)) {
        return false;
    }
    initialize(f);
    return true;
}

bool frstor(Cpu& cpu, const Op* op) {
    const Format format = static_cast<Format>(op->dst);
    const unsigned size = environment_size(format);
    state::X87& f = cpu.s.x87;
    u8 image[max_image];
    if (!load_image(cpu, op, image, size + 80)) {
        return false;
    }
    take_environment(f, format, image);
    for (unsigned i = 0; i < 8; ++i) {
        std::memcpy(&f.significand[i], image + size + 10 * i, 8);
        std::memcpy(&f.sign_exponent[i], image + size + 10 * i + 8, 2);
    }
    return true;
}

bool fldcw(Cpu& cpu, const Op* op) {
    u16 value;
    if (!cpu.load(op, value)) {
        return false;
    }
    set_control(cpu.s.x87, value);
    return true;
}

bool fnstcw(Cpu& cpu, const Op* op) { return cpu.store(op, cpu.s.x87.control); }
bool fnstsw(Cpu& cpu, const Op* op) { return cpu.store(op, cpu.s.x87.status); }

bool fnstsw_ax(Cpu& cpu, const Op*) {
    cpu.set_reg<u16>(0, cpu.s.x87.status);
    return true;
}

bool fninit(Cpu& cpu, const Op*) {
    initialize(cpu.s.x87);
    return true;
}

bool fnclex(Cpu& cpu, const Op*) {
    cpu.s.x87.status &=
        static_cast<u16>(~(status::exceptions | status::sf | status::es | status::busy));
    return true;
}

/// FNENI, FNDISI and FNSETPM: instructions of older coprocessors that do nothing.
bool nothing(Cpu&, const Op*) { return true; }

OpFn memory_form(u8 opcode, unsigned reg) {
    switch (opcode << 4 | reg) {
    case 0xd94:
        return control_handler<fldenv, true>;
    case 0xd95:
        return control_handler<fldcw, true>;
    case 0xd96:
        return control_handler<fnstenv, false>;
    case 0xd97:
        return control_handler<fnstcw, false>;
    case 0xdd4:
        return control_handler<frstor, true>;
    case 0xdd6:
        return control_handler<fnsave, false>;
    case 0xdd7:
        return control_handler<fnstsw, false>;
    default:
        return nullptr;
    }
}

} // namespace

OpFn control(u8 opcode, u8 modrm, Emit& e) {
    if (modrm < 0xc0) {
        const bool real = e.mode.is_real_like();
        const bool narrow = e.d.insn.operand_width == 16;
        const Format format = narrow ? (real ? Format::real16 : Format::protected16)
                                     : (real ? Format::real32 : Format::protected32);
        e.op.dst = static_cast<u8>(format);
        return memory_form(opcode, modrm >> 3 & 7u);
    }
    switch (opcode << 8 | modrm) {
    case 0xdbe0:
    case 0xdbe1:
    case 0xdbe4:
        return control_handler<nothing, false>;
    case 0xdbe2:
        return control_handler<fnclex, false>;
    case 0xdbe3:
        return control_handler<fninit, false>;
    case 0xdfe0:
        return control_handler<fnstsw_ax, false>;
    default:
        return nullptr;
    }
}

} // namespace nestor::cpu::x87
