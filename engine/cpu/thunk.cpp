// Thunk generation and the memory that thunks live in.
//
// Calling convention (System V): rdi = reg, rsi = rm, rdx = third, rcx = extra, r8d = forbidden.
// All vector registers and r9 are free. What is surprising: the MXCSR of the caller is used as it
// is; callers load the guest's when it matters. That keeps LDMXCSR off the fast path, where MXCSR
// is at its default and the exception flags an instruction raises are already set in the guest's.
#include "engine/cpu/thunk.hpp"

#include <cstddef>
#include <cstring>
#include <initializer_list>

#include <sys/mman.h>
#include <unistd.h>

#include "engine/state/cpu.hpp"
#include "src/base/bits.hpp"
#include "src/base/check.hpp"

namespace nestor::cpu {

namespace {

constexpr u8 rdi = 7, rsi = 6, rdx = 2, rcx = 1;
constexpr u64 arena_bytes = u64{64} << 20;
constexpr u32 xmm0_offset = offsetof(state::Cpu, vector);

class Assembler final {
public:
    void put(std::initializer_list<int> bytes) {
        for (const int b : bytes) {
            code_[size_++] = static_cast<u8>(b);
        }
    }
    void put(const u8* bytes, unsigned n) {
        std::memcpy(code_ + size_, bytes, n);
        size_ += n;
    }
    void put32(u32 v) {
        std::memcpy(code_ + size_, &v, sizeof v);
        size_ += sizeof v;
    }
    void patch8(unsigned at, unsigned v) { code_[at] = static_cast<u8>(v); }
    [[nodiscard]] unsigned size() const { return size_; }
    [[nodiscard]] const u8* data() const { return code_; }

private:
    u8 code_[192];
    unsigned size_ = 0;
};

/// Moves an operand between its pointer and its thunk register.
void move(Assembler& a, const ThunkSpec& spec, ThunkOperand kind, bool store, u8 reg, u8 pointer) {
    const u8 modrm = static_cast<u8>(reg << 3 | pointer);
    const int direction = store ? 1 : 0;
    switch (kind) {
    case ThunkOperand::none:
    case ThunkOperand::memory:
        break;
    case ThunkOperand::gpr:
        a.put({0x48, store ? 0x89 : 0x8b, thunk_reg::gpr << 3 | pointer});
        break;
    case ThunkOperand::mmx:
        a.put({0x0f, store ? 0x7f : 0x6f, modrm});
        break;
    case ThunkOperand::xmm:
        if (!spec.vex) {
            a.put({0x0f, 0x10 | direction, modrm});
        } else {
            // A VEX destination is written whole: bits 255:128 are zero (SDM 1 14.1.3).
            a.put({0xc5, store ? 0xfc : 0xf8, 0x10 | direction, modrm});
        }
        break;
    case ThunkOperand::ymm:
        a.put({0xc5, 0xfc, 0x10 | direction, modrm});
        break;
    }
}

void load_operands(Assembler& a, const ThunkSpec& spec) {
    if (spec.lengths_in || spec.rcx_out || spec.xmm0_out) {
        a.put({0x49, 0x89, 0xc9}); // mov r9, rcx
    }
    if (spec.xmm0_in) {
        a.put({0x0f, 0x10, 0x81}); // movups xmm0, [rcx + xmm0_offset]
        a.put32(xmm0_offset);
    }
    const auto load = [&](const ThunkSpec::Role& role, u8 reg, u8 pointer) {
        if (role.read) {
            move(a, spec, role.kind, false, reg, pointer);
        }
    };
    load(spec.reg, thunk_reg::reg, rdi);
    load(spec.rm, thunk_reg::rm, rsi);
    load(spec.third, thunk_reg::third, rdx);
    if (spec.fourth) {
        move(a, spec, spec.reg.kind, false, thunk_reg::fourth, rcx);
    }
    if (spec.lengths_in) {
        a.put({0x48, 0x8b, 0x51, 0x10}); // mov rdx, [rcx + 16]
        a.put({0x48, 0x8b, 0x01});       // mov rax, [rcx]
    }
}

void store_operands(Assembler& a, const ThunkSpec& spec) {
    const auto store = [&](const ThunkSpec::Role& role, u8 reg, u8 pointer) {
        if (role.write) {
            move(a, spec, role.kind, true, reg, pointer);
        }
    };
    store(spec.reg, thunk_reg::reg, rdi);
    store(spec.rm, thunk_reg::rm, rsi);
    store(spec.third, thunk_reg::third, rdx);
    if (spec.xmm0_out) {
        if (spec.vex) {
            a.put({0xc4, 0xc1, 0x7c, 0x11, 0x81}); // vmovups [r9 + xmm0_offset], ymm0
        } else {
            a.put({0x41, 0x0f, 0x11, 0x81}); // movups [r9 + xmm0_offset], xmm0
        }
        a.put32(xmm0_offset);
    }
    if (spec.rcx_out) {
        a.put({0x49, 0x89, 0x49, 0x08}); // mov [r9 + 8], rcx
    }
}

void assemble(Assembler& a, const ThunkSpec& spec) {
    load_operands(a, spec);
    a.put(spec.bytes, spec.length);
    if (spec.flags) {
        a.put({0x0f, 0x90, 0xc0, 0x9f}); // seto al; lahf
    }
    unsigned jump = 0;
    if (spec.mxcsr) {
        a.put({0x0f, 0xae, 0x5c, 0x24, 0xf8}); // stmxcsr [rsp - 8]
        a.put({0x44, 0x8b, 0x4c, 0x24, 0xf8}); // mov r9d, [rsp - 8]
        a.put({0x45, 0x85, 0xc1});             // test r9d, r8d
        a.put({0x75, 0});                      // jnz to the end
        jump = a.size();
        if (spec.flags) {
            a.put({0x89, 0x01}); // mov [rcx], eax
        }
    }
    store_operands(a, spec);
    if (spec.mxcsr) {
        a.patch8(jump - 1, a.size() - jump);
        a.put({0x44, 0x89, 0xc8}); // mov eax, r9d
    }
    const auto is = [&](ThunkOperand k) {
        return spec.reg.kind == k || spec.rm.kind == k || spec.third.kind == k;
    };
    if (is(ThunkOperand::ymm)) {
        a.put({0xc5, 0xf8, 0x77}); // vzeroupper
    }
    if (is(ThunkOperand::mmx)) {
        a.put({0x0f, 0x77}); // emms
    }
    a.put({0xc3});
}

} // namespace

u64 ThunkSpec::key() const {
    u64 k = 0;
    std::memcpy(&k, bytes, sizeof bytes);
    CHECK(length <= 7);
    return k | u64{length} << 56;
}

CodeMemory::CodeMemory(u64 capacity) : capacity_(capacity) {
    const int fd = memfd_create("nestor-code", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, static_cast<off_t>(capacity)) == 0);
    void* w = mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    void* x = mmap(nullptr, capacity, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_NORESERVE, fd, 0);
    CHECK(w != MAP_FAILED && x != MAP_FAILED);
    close(fd);
    writable_ = static_cast<u8*>(w);
    executable_ = static_cast<const u8*>(x);
}

CodeMemory::~CodeMemory() {
    munmap(writable_, capacity_);
    munmap(const_cast<u8*>(executable_), capacity_);
}

const u8* CodeMemory::add(const u8* code, u64 size) {
    const u64 at = align_up(used_, 16);
    CHECK(at + size <= capacity_, {at, size});
    std::memcpy(writable_ + at, code, size);
    used_ = at + size;
    return executable_ + at;
}

ThunkCache::ThunkCache() : memory_(arena_bytes) {}

ThunkCache& ThunkCache::instance() {
    static ThunkCache cache;
    return cache;
}

ThunkFn ThunkCache::get(const ThunkSpec& spec) {
    const std::lock_guard lock(mutex_);
    ThunkFn& fn = thunks_[spec.key()];
    if (fn == nullptr) {
        Assembler a;
        assemble(a, spec);
        fn = reinterpret_cast<ThunkFn>(reinterpret_cast<u64>(memory_.add(a.data(), a.size())));
    }
    return fn;
}

} // namespace nestor::cpu
