// What asks a device, what the device raises by it, and how to tell where an event came from:
// shared by the tests of instructions that are answered from outside.
#pragma once

#include <gtest/gtest.h>

#include "answered_fixture.hpp"

namespace nestor::hv {

using Host = AnsweredHost;

// --- what asks ----------------------------------------------------------------------------------

inline constexpr u16 answered_port = 0x3f8;
inline constexpr u8 answered_vector = 0x54;

struct Kind {
    const char* name;
    std::vector<u8> code;
    std::vector<Asked> asks;  ///< by the whole instruction
    bool repeats = false;     ///< RCX iterations, each an access
    bool from_device = false; ///< RSI points there
    bool to_device = false;   ///< RDI points there
};

constexpr Asked io(bool write, u8 size) { return {true, write, size, answered_port}; }
constexpr Asked mem(bool write, u8 size, u64 at = Host::device) { return {false, write, size, at}; }

/// Each begins with RCX = 3, RDX = port, RBX = device; RSI and RDI are addresses of RAM or as
/// above.
inline const std::vector<Kind>& kinds() {
    constexpr u64 d = Host::device;
    static const std::vector<Kind> all = {
        {"out dx, al", {0xee}, {io(true, 1)}},
        {"out dx, ax", {0x66, 0xef}, {io(true, 2)}},
        {"out dx, eax", {0xef}, {io(true, 4)}},
        {"out 0x80, al", {0xe6, 0x80}, {{true, true, 1, 0x80}}},
        {"in al, dx", {0xec}, {io(false, 1)}},
        {"in eax, dx", {0xed}, {io(false, 4)}},
        {"outsb", {0x6e}, {io(true, 1)}},
        {"rep outsb", {0xf3, 0x6e}, {io(true, 1), io(true, 1), io(true, 1)}, true},
        {"rep outsd", {0xf3, 0x6f}, {io(true, 4), io(true, 4), io(true, 4)}, true},
        {"rep insb", {0xf3, 0x6c}, {io(false, 1), io(false, 1), io(false, 1)}, true},
        {"mov [rbx], eax", {0x89, 0x03}, {mem(true, 4)}},
        {"mov [rbx], rax", {0x48, 0x89, 0x03}, {mem(true, 8)}},
        {"mov eax, [rbx]", {0x8b, 0x03}, {mem(false, 4)}},
        {"mov [rbx+6], eax", {0x89, 0x43, 0x06}, {mem(true, 2, d + 6), mem(true, 2, d + 8)}},
        {"add [rbx], eax", {0x01, 0x03}, {mem(false, 4), mem(true, 4)}},
        {"lock xadd [rbx], eax", {0xf0, 0x0f, 0xc1, 0x03}, {mem(false, 4), mem(true, 4)}},
        {"xchg [rbx], al", {0x86, 0x03}, {mem(false, 1), mem(true, 1)}},
        {"push [rbx]", {0xff, 0x33}, {mem(false, 8)}},
        {"pop [rbx]", {0x8f, 0x03}, {mem(true, 8)}},
        {"movups [rbx], xmm0", {0x0f, 0x11, 0x03}, {mem(true, 8), mem(true, 8, d + 8)}},
        {"movsb from outside", {0xa4}, {mem(false, 1)}, false, true},
        {"movsb to outside", {0xa4}, {mem(true, 1)}, false, false, true},
        {"movsd outside", {0xa5}, {mem(false, 4), mem(true, 4)}, false, true, true},
        {"rep movsb to outside",
         {0xf3, 0xa4},
         {mem(true, 1), mem(true, 1, d + 1), mem(true, 1, d + 2)},
         true,
         false,
         true},
        {"rep movsb from outside",
         {0xf3, 0xa4},
         {mem(false, 1), mem(false, 1, d + 1), mem(false, 1, d + 2)},
         true,
         true},
        {"stosd", {0xab}, {mem(true, 4)}, false, false, true},
        {"lodsb", {0xac}, {mem(false, 1)}, false, true},
        {"cmpsb", {0xa6}, {mem(false, 1)}, false, true},
        {"vpgatherdd xmm0, [rbx+xmm1*4], xmm2",
         {0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8b},
         {mem(false, 4), mem(false, 4, d + 4), mem(false, 4, d + 8), mem(false, 4, d + 12)}},
        {"vmaskmovps xmm0, xmm2, [rbx]",
         {0xc4, 0xe2, 0x69, 0x2c, 0x03},
         {mem(false, 4), mem(false, 4, d + 4), mem(false, 4, d + 8), mem(false, 4, d + 12)}},
    };
    return all;
}

inline u64 end_of(const Kind& kind) { return Host::code + kind.code.size(); }

// --- what the device raises ---------------------------------------------------------------------

enum class Raised : u8 { nothing, edge, level, pic, nmi, smi, init, unblocked };
inline constexpr std::pair<Raised, const char*> events[] = {
    {Raised::nothing, "nothing"}, {Raised::edge, "an edge"},
    {Raised::level, "a level"},   {Raised::pic, "the PIC"},
    {Raised::nmi, "an NMI"},      {Raised::smi, "an SMI"},
    {Raised::init, "INIT"},       {Raised::unblocked, "interrupts are unblocked"}};

inline void raise(Host& host, Raised what) {
    using Delivery = InterruptMessage::Delivery;
    InterruptMessage message;
    message.vector = Vector(answered_vector);
    switch (what) {
    case Raised::nothing:
        return;
    case Raised::pic:
        host.pic = true;
        return;
    case Raised::unblocked:
        host.vcpu.set_inhibits({});
        return;
    case Raised::level:
        message.level_triggered = true;
        break;
    case Raised::nmi:
        message.delivery = Delivery::nmi;
        break;
    case Raised::smi:
        message.delivery = Delivery::smi;
        break;
    case Raised::init:
        message.delivery = Delivery::init;
        break;
    case Raised::edge:
        break;
    }
    host.vcpu.deliver(message, Ticks(0));
}

// --- who delivers -------------------------------------------------------------------------------

enum class Apicv : u8 { on, off, turned_off, turned_on };
inline constexpr std::pair<Apicv, const char*> apicvs[] = {{Apicv::on, "APICv"},
                                                           {Apicv::off, "no APICv"},
                                                           {Apicv::turned_off, "APICv turned off"},
                                                           {Apicv::turned_on, "APICv turned on"}};

/// Whether L1's APICv is inhibited at first.
inline bool begins_without(Apicv apicv) { return apicv == Apicv::off || apicv == Apicv::turned_on; }

/// While the first access is not complete, APICv is turned and the device raises what it raises.
inline void raise_at_first_access(Host& host, Raised raised, Apicv apicv,
                                  const state::ApicvInhibits& inhibits) {
    host.at_access = [&host, raised, apicv, inhibits](unsigned n) {
        if (n != 1) {
            return;
        }
        if (apicv == Apicv::turned_off || apicv == Apicv::turned_on) {
            state::ApicvInhibits turned = inhibits;
            turned.disabled = apicv == Apicv::turned_off;
            host.vcpu.set_inhibits(turned);
        }
        raise(host, raised);
    };
}

/// What else the boundary may be looked at for.
inline void set_registers(state::Cpu& s, const Kind& kind) {
    s.gpr[0] = 'A';
    s.gpr[1] = 3;
    s.gpr[2] = answered_port;
    s.gpr[3] = Host::device;
    s.gpr[6] = kind.from_device ? Host::device : Host::data;
    s.gpr[7] = kind.to_device ? Host::device : Host::data;
    s.xcr0 = 7;
    s.vector[4] = u64{1} << 32; // XMM1: 0, 1, 2, 3
    s.vector[5] = 2 | u64{3} << 32;
    s.vector[8] = s.vector[9] = ~u64{0}; // XMM2
}

// --- what came of it -----------------------------------------------------------------------------

/// How many accesses belong to what has retired by this RIP and RCX.
inline std::size_t retired(const Kind& kind, u64 rip, u64 rcx) {
    if (rip == end_of(kind) || rip == end_of(kind) + 1) { // in front of or behind the HLT
        return kind.asks.size();
    }
    return kind.repeats && rip == Host::code ? 3 - rcx : 0;
}

inline void expect_asked(const Host& host, const Kind& kind, std::size_t n) {
    const std::vector<Asked> want(kind.asks.begin(),
                                  kind.asks.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_EQ(host.asked.size(), n);
    EXPECT_TRUE(host.asked == want);
}

/// Vector of the handler where the vCPU halted, or -1.
inline int halted_in(const state::Vcpu& v) {
    const u64 at = v.cpu.rip - 1 - Host::handlers;
    return at % 16 == 0 && at < 4096 ? static_cast<int>(at / 16) : -1;
}

/// The RIP that was interrupted, behind all frames of handlers on the stack.
inline u64 interrupted(const Host& host, u64 rsp) {
    constexpr u64 frame_rsp = 24;
    u64 rip = host.read(rsp);
    while (rip - Host::handlers < 4096) {
        rsp = host.read(rsp + frame_rsp);
        rip = host.read(rsp);
    }
    return rip;
}

} // namespace nestor::hv
