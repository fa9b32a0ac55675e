// Programs of the instructions that share handlers: in one run, and one instruction at a time,
// where nothing is paired, fused or left out. Both must end in the same state, faults included.
#include <random>

#include "tests/engine/cpu/system_fixture.hpp"

namespace nestor::cpu {
namespace {

class Pairs : public SystemTest {
protected:
    using Bytes = std::vector<u8>;
    static constexpr unsigned rsp_number = 4;

    explicit Pairs() : random_(2024) {}

    unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }
    /// RBX and RSI point at data and RCX is small, mostly; RSP is left alone.
    unsigned any_register() {
        static constexpr unsigned usual[] = {0, 2, 5, 7, 8, 9, 10, 15};
        const unsigned any = pick(16);
        if (pick(4) == 0) {
            return last_;
        }
        return pick(40) == 0 && any != rsp_number ? any : usual[pick(std::size(usual))];
    }
    /// Opcode bytes with a register or memory operand (ModRM r/m) and a register (or opcode digit).
    void encode(Bytes& out, bool wide, std::initializer_list<u8> opcode, unsigned reg,
                bool memory) {
        const unsigned base = memory ? (pick(2) == 0 ? 3u : 6u) : any_register();
        const bool indexed = memory && pick(2) == 0;
        const u8 rex = static_cast<u8>(0x40 | (wide ? 8 : 0) | (reg >> 3) << 2 | base >> 3);
        out.push_back(rex);
        out.insert(out.end(), opcode);
        const unsigned low = (reg & 7) << 3;
        if (!memory) {
            last_ = base;
            out.push_back(static_cast<u8>(0xc0 | low | (base & 7)));
        } else if (indexed) {
            const unsigned index = pick(30) == 0 ? 2 : 1;
            out.push_back(static_cast<u8>(0x44 | low));
            out.push_back(static_cast<u8>(pick(4) << 6 | index << 3 | base));
            out.push_back(static_cast<u8>(pick(256)));
        } else {
            out.push_back(static_cast<u8>(0x40 | low | base));
            out.push_back(static_cast<u8>(pick(256)));
        }
    }
    /// LEA of a register's own sums and multiples, or one that looks like it.
    void multiple(Bytes& out, bool wide) {
        const unsigned base = any_register();
        const unsigned index = pick(2) == 0 ? base : pick(2) == 0 ? rsp_number : any_register();
        const unsigned reg = pick(4) == 0 ? any_register() : base;
        out.push_back(static_cast<u8>(0x40 | (wide ? 8 : 0) | (reg >> 3) << 2 | (index >> 3) << 1 |
                                      base >> 3));
        out.push_back(0x8d);
        out.push_back(static_cast<u8>(0x44 | (reg & 7) << 3));
        out.push_back(static_cast<u8>(pick(4) << 6 | (index & 7) << 3 | (base & 7)));
        out.push_back(static_cast<u8>(pick(256)));
        last_ = reg;
    }
    void instruction(Bytes& out) {
        const bool wide = pick(2) == 0;
        const unsigned reg = any_register();
        static constexpr u8 two_operands[] = {0x89, 0x89, 0x89, 0x01, 0x09, 0x11,
                                              0x19, 0x21, 0x29, 0x31, 0x39, 0x85};
        static constexpr u8 digits[] = {0, 1, 2, 4, 5, 6, 7};
        switch (pick(12)) {
        case 0:
        case 1:
        case 2:
            return encode(out, wide, {two_operands[pick(std::size(two_operands))]}, reg, false);
        case 3:
            encode(out, wide, {0x83}, digits[pick(std::size(digits))], false);
            return out.push_back(static_cast<u8>(pick(256)));
        case 4: {
            static constexpr u8 shifts[] = {0, 1, 4, 5, 7};
            encode(out, wide, {0xc1}, shifts[pick(std::size(shifts))], false);
            return out.push_back(static_cast<u8>(pick(256)));
        }
        case 5:
            return pick(2) == 0 ? multiple(out, wide) : encode(out, wide, {0x8d}, reg, true); // LEA
        case 6:
        case 7:
            return encode(out, wide, {0x8b}, reg, true);
        case 8:
            return encode(out, wide, {0x89}, reg, true);
        case 9:
            return encode(out, wide, {static_cast<u8>(pick(2) == 0 ? 0x03 : 0x3b)}, reg, true);
        case 10:
            if (pick(2) == 0) {
                return encode(out, true, {0x63}, reg, false); // MOVSXD
            }
            return encode(out, wide, {0x0f, 0xb6}, reg, false);
        default:
            if (pick(2) == 0) {
                return encode(out, wide, {0xff}, pick(2), false); // INC, DEC
            }
            out.push_back(static_cast<u8>(0x70 | pick(16))); // Jcc to what follows
            return out.push_back(0);
        }
    }
    Bytes program() {
        Bytes out;
        for (unsigned i = 0; i < 60; ++i) {
            instruction(out);
        }
        out.push_back(0xf4);
        return out;
    }
    void start(const Bytes& bytes, const std::array<u64, 16>& registers) {
        package_.forget_all();
        std::fill(ram_.begin(), ram_.end(), u8{0});
        long_mode();
        std::copy(bytes.begin(), bytes.end(), ram_.begin() + code);
        for (u64 i = 0; i < 4096; ++i) {
            ram_[data + i] = static_cast<u8>(i * 37 + 11);
        }
        std::copy(registers.begin(), registers.end(), cpu.s.gpr.begin());
        cpu.s.gpr[rsp_number] = stack_top;
        cpu.rehydrate();
    }

    std::mt19937_64 random_;
    unsigned last_ = 0; ///< register that the last instruction wrote, mostly
};

TEST_F(Pairs, DoWhatTheirInstructionsDoOneByOne) {
    unsigned faults = 0;
    for (unsigned round = 0; round < 150; ++round) {
        const Bytes bytes = program();
        std::array<u64, 16> registers{};
        for (u64& r : registers) {
            r = random_() >> pick(64);
        }
        registers[1] = pick(64);
        registers[3] = registers[6] = data + 0x800;

        start(bytes, registers);
        stop = cpu.run(0, 1000);
        cpu.materialize();
        const state::Cpu at_once = cpu.s;
        const std::vector<u8> ram_at_once = ram_;
        faults += reached() >= 0 ? 1 : 0;

        start(bytes, registers);
        u64 count = 0;
        for (stop = Cpu::Stop::count; stop == Cpu::Stop::count && count < 1000;) {
            stop = cpu.run(count, 1);
            count += cpu.retired_in_run();
        }
        cpu.materialize();
        ASSERT_EQ(stop, Cpu::Stop::inactive) << "round " << round;
        ASSERT_EQ(cpu.s, at_once) << "round " << round;
        ASSERT_EQ(ram_, ram_at_once) << "round " << round;
    }
    EXPECT_GT(faults, 5u);
    EXPECT_LT(faults, 145u);
}

TEST_F(Pairs, LeaveTheFirstDoneWhenTheSecondFaults) {
    long_mode();
    cpu.s.gpr[0] = 1;
    cpu.s.gpr[3] = u64{1} << 40; // not mapped
    cpu.rehydrate();
    // mov rdx, rax; mov rcx, [rbx]
    execute({0x48, 0x89, 0xc2, 0x48, 0x8b, 0x0b});
    EXPECT_EQ(reached(), 14);
    EXPECT_EQ(cpu.s.gpr[2], 1u);
    EXPECT_EQ(read<u64>(rsp() + 8), code + 3);
}

TEST_F(Pairs, StopAtTheSecondWhenTheFirstOverwritesIt) {
    long_mode();
    cpu.s.gpr[0] = 0x90909090;
    cpu.s.gpr[3] = code + 2;
    cpu.s.gpr[1] = 7;
    cpu.rehydrate();
    // mov [rbx], eax; mov rcx, rdx, which becomes four NOPs with the byte behind it
    execute({0x89, 0x03, 0x48, 0x89, 0xd1, 0xf4, 0xf4});
    EXPECT_EQ(cpu.s.gpr[1], 7u);
    EXPECT_EQ(stop, Cpu::Stop::inactive);
    EXPECT_EQ(cpu.s.rip, code + 7);
}

// Memory operands with one sum: [rbx] and [rbx + displacement].

class Neighbours : public Pairs {
protected:
    static constexpr u64 linear = u64{4} << 20; ///< two pages, mapped to frames that do not adjoin
    static constexpr u64 first = data, second = data + 0x5000;

    void map(bool second_too) {
        long_mode();
        write(tables + 0x2010, tables + 0x3007);
        write(tables + 0x3000, first | 7);
        write(tables + 0x3008, second_too ? second | 7 : 0);
        write(first, u64{1});
        write(second, u64{2});
        cpu.s.gpr[3] = linear;
        cpu.rehydrate();
    }
};

TEST_F(Neighbours, MayLieInAnotherPage) {
    map(true);
    // mov esi, 3; mov rcx, [rbx]; mov rdx, [rbx + 0x1000]; dec esi; jnz to the first mov; hlt
    execute({0xbe, 3,    0,    0,    0,    0x48, 0x8b, 0x0b, 0x48, 0x8b,
             0x93, 0x00, 0x10, 0x00, 0x00, 0xff, 0xce, 0x75, 0xf2, 0xf4});
    EXPECT_EQ(cpu.s.gpr[1], 1u);
    EXPECT_EQ(cpu.s.gpr[2], 2u);
}

TEST_F(Neighbours, FaultAlone) {
    map(false);
    // mov rcx, [rbx]; xor ecx, ecx; nop; mov rcx, [rbx]; mov [rbx + 0x1000], rdx
    execute({0x48, 0x8b, 0x0b, 0x31, 0xc9, 0x90, 0x48, 0x8b, 0x0b, 0x48, 0x89, 0x93, 0x00, 0x10,
             0x00, 0x00, 0xf4});
    EXPECT_EQ(reached(), 14);
    EXPECT_EQ(cpu.s.cr2, linear + page_size);
    EXPECT_EQ(cpu.s.gpr[1], 1u);
    EXPECT_EQ(read<u64>(rsp() + 8), code + 9);
}

TEST_F(Neighbours, SeeTheBaseThatTheFirstLoads) {
    map(true);
    write(first, u64{linear + 0x100});
    write(first + 8, u64{55});
    write(first + 0x108, u64{77});
    // mov rcx, [rbx]; nop; mov rbx, [rbx]; mov rcx, [rbx + 8]
    execute({0x48, 0x8b, 0x0b, 0x90, 0x48, 0x8b, 0x1b, 0x48, 0x8b, 0x4b, 0x08, 0xf4});
    EXPECT_EQ(cpu.s.gpr[1], 77u);
}

} // namespace
} // namespace nestor::cpu
