// The host side of the oracle: runs a case in this process through signal frames.
//
// A trap in run() brings us into the handler, which keeps the driver's registers, loads the case
// into the signal frame and returns into the case. The case ends in a second signal (int3 or a
// fault), whose frame is the result; the driver's registers go back into that frame. SDM 1 10.5.1
// has the FXSAVE layout, SDM 1 13.4 that of XSAVE; the kernel's frame uses the standard form.
#include <csignal>
#include <cstring>

#include <sys/mman.h>
#include <ucontext.h>

#include "src/base/check.hpp"
#include "tests/engine/cpu/oracle/host.hpp"

namespace nestor::test {

namespace {

constexpr unsigned avx_offset = 576;
constexpr unsigned xstate_bv_offset = 512;
constexpr u16 user32_cs = 0x23;
constexpr u16 user64_cs = 0x33;

enum class Phase { idle, entering, running };

struct Shared {
    volatile Phase phase = Phase::idle;
    const Case* current = nullptr;
    Result* result = nullptr;
    gregset_t driver;
};
Shared shared;

// The order of state::Cpu.gpr.
constexpr int greg_order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

u8* frame_bytes(ucontext_t* context) { return reinterpret_cast<u8*>(context->uc_mcontext.fpregs); }
void set_code_segment(gregset_t& g, u16 cs) {
    auto all = static_cast<u64>(g[REG_CSGSFS]);
    all = (all & ~u64{0xffff}) | cs;
    g[REG_CSGSFS] = static_cast<greg_t>(all);
}

void load_vector(const UserState& s, u8* frame) {
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(frame + 160 + 16 * i, &s.vector[4 * i], 16);
        std::memcpy(frame + avx_offset + 16 * i, &s.vector[4 * i + 2], 16);
    }
    std::memcpy(frame, s.x87.data(), 24);
    std::memcpy(frame + 24, &s.mxcsr, 4);
    std::memcpy(frame + 32, s.x87.data() + 32, 128);
    u64 components;
    std::memcpy(&components, frame + xstate_bv_offset, 8);
    components |= 7;
    std::memcpy(frame + xstate_bv_offset, &components, 8);
}
void store_vector(UserState& s, const u8* frame) {
    u64 components;
    std::memcpy(&components, frame + xstate_bv_offset, 8);
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(&s.vector[4 * i], frame + 160 + 16 * i, 16);
        if ((components & 4) != 0) {
            std::memcpy(&s.vector[4 * i + 2], frame + avx_offset + 16 * i, 16);
        } else {
            s.vector[4 * i + 2] = s.vector[4 * i + 3] = 0;
        }
        if ((components & 2) == 0) {
            s.vector[4 * i] = s.vector[4 * i + 1] = 0;
        }
    }
    std::memcpy(s.x87.data(), frame, 160);
    std::memset(s.x87.data() + 24, 0, 8);
    std::memcpy(&s.mxcsr, frame + 24, 4);
    if ((components & 1) == 0) {
        s.x87.fill(0);
        s.x87[0] = 0x7f;
        s.x87[1] = 0x03;
    }
}
/// What the driver expects after a function call: default controls, empty x87 stack.
void reset_controls(u8* frame) {
    std::memset(frame, 0, 24);
    frame[0] = 0x7f;
    frame[1] = 0x03;
    const u32 mxcsr = 0x1f80;
    std::memcpy(frame + 24, &mxcsr, 4);
}

void enter_case(ucontext_t* context) {
    gregset_t& g = context->uc_mcontext.gregs;
    std::memcpy(&shared.driver, &g, sizeof g);
    const UserState& s = shared.current->start;
    for (unsigned i = 0; i < 16; ++i) {
        g[greg_order[i]] = static_cast<greg_t>(s.gpr[i]);
    }
    g[REG_RIP] = static_cast<greg_t>(s.rip);
    g[REG_EFL] = static_cast<greg_t>(s.rflags);
    set_code_segment(g, shared.current->mode32 ? user32_cs : user64_cs);
    if (shared.current->vector) {
        load_vector(s, frame_bytes(context));
    }
}
void leave_case(int signal, ucontext_t* context) {
    gregset_t& g = context->uc_mcontext.gregs;
    Result& r = *shared.result;
    for (unsigned i = 0; i < 16; ++i) {
        r.end.gpr[i] = static_cast<u64>(g[greg_order[i]]);
    }
    r.end.rip = static_cast<u64>(g[REG_RIP]);
    r.end.rflags = static_cast<u64>(g[REG_EFL]);
    r.vector = static_cast<u8>(g[REG_TRAPNO]);
    r.error = static_cast<u32>(g[REG_ERR]);
    r.address = static_cast<u64>(g[REG_CR2]);
    if (r.vector == 3) {
        r.end.rip -= 1; // reported on the int3, as Cpu does
    }
    r.stopped = signal != SIGALRM;
    if (shared.current->vector) {
        store_vector(r.end, frame_bytes(context));
        reset_controls(frame_bytes(context));
    }
    std::memcpy(&g, &shared.driver, sizeof g);
}

void handler(int signal, siginfo_t*, void* opaque) {
    auto* context = static_cast<ucontext_t*>(opaque);
    if (shared.phase == Phase::entering) {
        shared.phase = Phase::running;
        enter_case(context);
    } else if (shared.phase == Phase::running) {
        shared.phase = Phase::idle;
        leave_case(signal, context);
    } else {
        ::signal(signal, SIG_DFL); // not ours: happen again, and end the process
    }
}

constexpr int signals[] = {SIGTRAP, SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGALRM};
struct sigaction previous_actions[std::size(signals)];

void* map(u64 address, u64 size, int protection) {
    void* p = mmap(reinterpret_cast<void*>(address), size, protection,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(p == reinterpret_cast<void*>(address), {address});
    return p;
}

} // namespace

HostSide::HostSide() : stack_(65536) {
    map(data_address - 4096, 0x5000, PROT_NONE);
    map(code_address - 4096, 0x4000, PROT_NONE);
    auto* data = reinterpret_cast<void*>(data_address);
    CHECK(mprotect(data, 0x3000, PROT_READ | PROT_WRITE) == 0);
    CHECK(mprotect(reinterpret_cast<void*>(code_address), 0x2000,
                   PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
    std::memset(reinterpret_cast<void*>(code_address), 0xcc, 0x2000);
    const stack_t stack{stack_.data(), 0, stack_.size()};
    CHECK(sigaltstack(&stack, nullptr) == 0);
    struct sigaction action{};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    for (unsigned i = 0; i < std::size(signals); ++i) {
        CHECK(sigaction(signals[i], &action, &previous_actions[i]) == 0);
    }
    // Compatibility mode needs data segments; 64-bit mode ignores them. SDM 3A 3.4.4.
    asm volatile("movl $0x2b, %%eax; movl %%eax, %%ds; movl %%eax, %%es" ::: "eax");
}

HostSide::~HostSide() {
    for (unsigned i = 0; i < std::size(signals); ++i) {
        sigaction(signals[i], &previous_actions[i], nullptr);
    }
    stack_t off{};
    off.ss_flags = SS_DISABLE;
    sigaltstack(&off, nullptr);
    munmap(reinterpret_cast<void*>(data_address - 4096), 0x5000);
    munmap(reinterpret_cast<void*>(code_address - 4096), 0x4000);
}

void HostSide::fill_data(const u8* pattern) {
    auto* data = reinterpret_cast<u8*>(data_address);
    CHECK(mprotect(data, 0x3000, PROT_READ | PROT_WRITE) == 0);
    std::memcpy(data, pattern, 0x3000);
    CHECK(mprotect(data + 0x2000, 0x1000, PROT_READ) == 0);
}

Result HostSide::run(const Case& c) {
    Result r;
    auto* code = reinterpret_cast<u8*>(c.start.rip);
    auto* window = reinterpret_cast<u8*>(window_address);
    std::memcpy(window, c.start.window.data(), window_size);
    std::memcpy(code, c.code.data(), c.code.size());
    shared.current = &c;
    shared.result = &r;
    shared.phase = Phase::entering;
    // All vector registers are the case's business; the compiler keeps nothing in them here.
    asm volatile("int3" ::
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15");
    std::memset(code, 0xcc, c.code.size());
    std::memcpy(r.end.window.data(), window, window_size);
    return r;
}

} // namespace nestor::test
