// The host side of the oracle: runs a case in this process.
//
// The entry stub gets into the case without the kernel. The case ends in a signal (int3 or a
// fault), whose frame is the result; the handler lets the stub go on behind it. SDM 1 10.5.1 has
// the FXSAVE layout, SDM 1 13.4 that of XSAVE; the kernel's frame uses the standard form. A signal
// that comes when no case runs is a bug of this program and ends it.
#include "tests/engine/cpu/oracle/host.hpp"

#include <cstring>
#include <new>

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "src/base/check.hpp"
#include "tests/engine/cpu/oracle/host_entry.hpp"

namespace nestor::test {

namespace {

constexpr u16 user32_cs = 0x23;
constexpr unsigned trial_seconds = 10;

struct Shared {
    volatile bool running = false;
    const Case* current = nullptr;
    Result* result = nullptr;
    u16 driver_cs = 0;
};
Shared shared;

// The order of state::Cpu.gpr.
constexpr int greg_order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

u8* frame_bytes(ucontext_t* context) { return reinterpret_cast<u8*>(context->uc_mcontext.fpregs); }

/// What the driver expects after a function call: default controls, empty x87 stack.
void reset_controls(u8* frame) {
    std::memset(frame, 0, 24);
    frame[0] = 0x7f;
    frame[1] = 0x03;
    const u32 mxcsr = 0x1f80;
    std::memcpy(frame + 24, &mxcsr, 4);
}

void leave_case(ucontext_t* context) {
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
    if (shared.current->vector) {
        take_xsave_image(r.end, frame_bytes(context));
        reset_controls(frame_bytes(context));
    }
    g[REG_RIP] = static_cast<greg_t>(nestor_oracle_entry.landing);
    g[REG_RSP] = static_cast<greg_t>(nestor_oracle_entry.driver_rsp);
    g[REG_EFL] = 0x202;
    const auto selectors = static_cast<u64>(g[REG_CSGSFS]) & ~u64{0xffff};
    g[REG_CSGSFS] = static_cast<greg_t>(selectors | shared.driver_cs);
}

void handler(int signal, siginfo_t*, void* opaque) {
    if (shared.running) {
        shared.running = false;
        leave_case(static_cast<ucontext_t*>(opaque));
    } else {
        ::signal(signal, SIG_DFL); // not ours: happen again, and end the process
    }
}

constexpr int signals[] = {SIGTRAP, SIGSEGV, SIGFPE, SIGILL, SIGBUS};
struct sigaction previous_actions[std::size(signals)];

void* map(u64 address, u64 size, int protection) {
    void* p = mmap(reinterpret_cast<void*>(address), size, protection,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(p == reinterpret_cast<void*>(address), {address});
    return p;
}

} // namespace

HostSide::HostSide() {
    map(data_address - 4096, 0x5000, PROT_NONE);
    map(code_address - 4096, 0x4000, PROT_NONE);
    auto* data = reinterpret_cast<void*>(data_address);
    CHECK(mprotect(data, 0x3000, PROT_READ | PROT_WRITE) == 0);
    CHECK(mprotect(reinterpret_cast<void*>(code_address), 0x2000,
                   PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
    std::memset(reinterpret_cast<void*>(code_address), 0xcc, 0x2000);
    // Frames grow with the processor's state: AT_MINSIGSTKSZ. A sanitizer's handler needs more.
    stack_.ss_size = getauxval(AT_MINSIGSTKSZ) + 0x40000;
    stack_.ss_sp = mmap(nullptr, stack_.ss_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(stack_.ss_sp != MAP_FAILED);
    CHECK(sigaltstack(&stack_, &previous_stack_) == 0);
    struct sigaction action{};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    for (unsigned i = 0; i < std::size(signals); ++i) {
        CHECK(sigaction(signals[i], &action, &previous_actions[i]) == 0);
    }
    asm("mov %%cs, %0" : "=r"(shared.driver_cs));
}

HostSide::~HostSide() {
    for (unsigned i = 0; i < std::size(signals); ++i) {
        sigaction(signals[i], &previous_actions[i], nullptr);
    }
    sigaltstack(&previous_stack_, nullptr);
    munmap(stack_.ss_sp, stack_.ss_size);
    munmap(reinterpret_cast<void*>(data_address - 4096), 0x5000);
    munmap(reinterpret_cast<void*>(code_address - 4096), 0x4000);
}

const u8* HostSide::data() const { return reinterpret_cast<const u8*>(data_address); }

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
    HostEntry& entry = nestor_oracle_entry;
    std::memcpy(entry.gpr, c.start.gpr.data(), sizeof entry.gpr);
    entry.rflags = c.start.rflags;
    entry.target = c.start.rip;
    entry.far_target = static_cast<u32>(c.start.rip);
    entry.far_segment = user32_cs;
    entry.vector = c.vector ? 1 : 0;
    if (c.vector) {
        put_xsave_image(c.start, entry.image);
    }
    shared.current = &c;
    shared.result = &r;
    shared.running = true;
    if (c.mode32) {
        nestor_oracle_enter32();
    } else {
        nestor_oracle_enter64();
    }
    std::memset(code, 0xcc, c.code.size());
    std::memcpy(r.end.window.data(), window, window_size);
    return r;
}

Result HostSide::try_out(const Case& c) {
    void* page =
        mmap(nullptr, sizeof(Result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    auto* r = new (page) Result;
    r->stopped = false;
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(trial_seconds); // a case that hangs ends here, and has not stopped
        *r = run(c);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    Result copy = *r;
    copy.stopped = copy.stopped && WIFEXITED(status);
    munmap(page, sizeof(Result));
    return copy;
}

} // namespace nestor::test
