// Comparison, reports and the text form of cases.
#include "tests/engine/cpu/oracle/harness.hpp"

#include <cstdlib>
#include <cstring>
#include <span>
#include <sstream>
#include <stdexcept>

#include <Zydis/Zydis.h>
#include <fmt/format.h>

namespace nestor::test {

namespace {

constexpr const char* names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                   "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
/// Flags that a user program computes with.
constexpr u64 user_flags = arch::rflags::arithmetic | arch::rflags::df;

std::string hex(std::span<const u8> bytes) {
    std::string s;
    for (const u8 b : bytes) {
        s += fmt::format("{:02x}", b);
    }
    return s;
}
u64 from_environment(const char* name, u64 otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}
/// Hex without the zeros at the end.
std::string trimmed(std::span<const u8> bytes) {
    std::size_t n = bytes.size();
    while (n > 1 && bytes[n - 1] == 0) {
        --n;
    }
    return hex(bytes.first(n));
}
/// What the text leaves out is zero.
void unhex(const std::string& text, std::span<u8> out) {
    if (text.size() > out.size() * 2 || text.size() % 2 != 0) {
        throw std::runtime_error("wrong number of hex digits");
    }
    for (std::size_t i = 0; i < text.size() / 2; ++i) {
        out[i] = static_cast<u8>(std::stoul(text.substr(2 * i, 2), nullptr, 16));
    }
}
bool has_error_code(u8 vector) { return vector < 32 && arch::exceptions[vector].has_error_code; }

} // namespace

u64 cases_wanted(u64 otherwise) { return from_environment("NESTOR_ORACLE_CASES", otherwise); }
u64 seed_wanted() { return from_environment("NESTOR_ORACLE_SEED", 1); }

std::string compare(const Case& c, const Result& judge, const Result& guest, u64 undefined_flags) {
    std::string d;
    const auto check = [&](const std::string& name, u64 h, u64 g) {
        if (h != g) {
            d += fmt::format("  {}: judge {:#x}, Cpu {:#x}\n", name, h, g);
        }
    };
    if (!guest.stopped) {
        return "  Cpu did not come to an end\n";
    }
    if (!judge.stopped) {
        return "  the judge did not come to an end\n";
    }
    check("vector", judge.vector, guest.vector);
    check("rip", judge.end.rip, guest.end.rip);
    if (judge.vector == guest.vector && has_error_code(judge.vector)) {
        check("error code", judge.error, guest.error);
        if (judge.vector == 14) {
            check("fault address", judge.address, guest.address);
        }
    }
    for (unsigned i = 0; i < (c.mode32 ? 8 : 16); ++i) {
        const u64 mask = c.mode32 ? 0xffffffff : ~u64{0};
        check(names[i], judge.end.gpr[i] & mask, guest.end.gpr[i] & mask);
    }
    check("rflags", judge.end.rflags & user_flags & ~undefined_flags,
          guest.end.rflags & user_flags & ~undefined_flags);
    if (judge.end.window != guest.end.window) {
        for (unsigned i = 0; i < window_size; ++i) {
            check(fmt::format("byte at {:#x}", window_address + i), judge.end.window[i],
                  guest.end.window[i]);
        }
    }
    if (c.vector) {
        for (unsigned i = 0; i < 64; ++i) {
            check(fmt::format("ymm{} word {}", i / 4, i % 4), judge.end.vector[i],
                  guest.end.vector[i]);
        }
        check("mxcsr", judge.end.mxcsr, guest.end.mxcsr);
        // FOP, FIP and FDP (offsets 6 to 23) are left out; offsets 10 to 15 of a register are zero.
        for (unsigned i = 0; i < 160; ++i) {
            if (i < 5 || i >= 32) {
                check(fmt::format("fxsave byte {}", i), judge.end.x87[i], guest.end.x87[i]);
            }
        }
    }
    return d;
}

std::string report(const Case& c, const Result& judge, const Result& guest,
                   const std::string& differences) {
    std::string s = "code (" + std::string(c.mode32 ? "32" : "64") + " bit): " + hex(c.code) + "\n";
    std::size_t at = 0;
    while (at < c.code.size()) {
        ZydisDisassembledInstruction text;
        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(
                c.mode32 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LONG_64,
                c.start.rip + at, c.code.data() + at, c.code.size() - at, &text))) {
            s += "  (does not decode)\n";
            break;
        }
        s += fmt::format("  {:#x}: {}\n", c.start.rip + at, text.text);
        at += text.info.length;
    }
    s += "start, the judge's end, Cpu's end:\n";
    const auto row = [&](const char* name, u64 a, u64 h, u64 g) {
        s +=
            fmt::format("  {:6} {:016x} {:016x} {:016x}{}\n", name, a, h, g, h == g ? "" : "  <--");
    };
    for (unsigned i = 0; i < 16; ++i) {
        row(names[i], c.start.gpr[i], judge.end.gpr[i], guest.end.gpr[i]);
    }
    row("rip", c.start.rip, judge.end.rip, guest.end.rip);
    row("rflags", c.start.rflags, judge.end.rflags, guest.end.rflags);
    row("vector", 0, judge.vector, guest.vector);
    s += "differences:\n" + differences + "as a vector:\n" + to_text(c);
    return s;
}

std::string to_text(const Case& c) {
    std::string s = fmt::format("code {}\nmode {}\n", hex(c.code), c.mode32 ? 32 : 64);
    for (unsigned i = 0; i < 16; ++i) {
        if (c.start.gpr[i] != 0) {
            s += fmt::format("{} {:x}\n", names[i], c.start.gpr[i]);
        }
    }
    s += fmt::format("rip {:x}\nrflags {:x}\nwindow {}\n", c.start.rip, c.start.rflags,
                     trimmed(c.start.window));
    if (c.vector) {
        s += fmt::format("mxcsr {:x}\nx87 {}\nvector {}\n", c.start.mxcsr, trimmed(c.start.x87),
                         trimmed({reinterpret_cast<const u8*>(c.start.vector.data()), 512}));
    }
    return s;
}

Case from_text(const std::string& text) {
    Case c;
    std::istringstream lines(text);
    std::string key;
    std::string value;
    while (lines >> key) {
        if (key[0] == '#') {
            std::getline(lines, value);
            continue;
        }
        if (!(lines >> value)) {
            throw std::runtime_error("no value for " + key);
        }
        if (key == "code") {
            c.code.resize(value.size() / 2);
            unhex(value, c.code);
        } else if (key == "mode") {
            c.mode32 = value == "32";
        } else if (key == "rip") {
            c.start.rip = std::stoull(value, nullptr, 16);
        } else if (key == "rflags") {
            c.start.rflags = std::stoull(value, nullptr, 16);
        } else if (key == "window") {
            unhex(value, c.start.window);
        } else if (key == "mxcsr") {
            c.start.mxcsr = static_cast<u32>(std::stoul(value, nullptr, 16));
        } else if (key == "x87") {
            unhex(value, c.start.x87);
        } else if (key == "vector") {
            c.vector = true;
            unhex(value, {reinterpret_cast<u8*>(c.start.vector.data()), 512});
        } else {
            unsigned i = 0;
            while (i < 16 && key != names[i]) {
                ++i;
            }
            if (i == 16) {
                throw std::runtime_error("unknown key " + key);
            }
            c.start.gpr[i] = std::stoull(value, nullptr, 16);
        }
    }
    return c;
}

} // namespace nestor::test
