// Starts qemu-i386 with the driver and hands it cases through a page that both have mapped.
//
// The data pages are shared too, so that all of memory can be compared without being copied. Code
// is put in place by the driver: QEMU sees what its guest writes, not what others do.
#include "tests/engine/cpu/oracle/qemu.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/check.hpp"

namespace nestor::test {

namespace {

constexpr std::size_t data_size = 0x3000;
constexpr std::size_t shared_size = data_size + 0x1000;
constexpr int longest_ms = 20'000; ///< of a case; a slow machine included

/// As qemu_driver.asm has it.
struct Mailbox {
    u32 gpr[8]; ///< the order of state::Cpu.gpr
    u32 eip;
    u32 eflags;
    u32 code_size;
    u32 vector; ///< whether `image` is loaded and stored
    u32 signal;
    u32 error;
    u32 address;
    u32 reason; ///< si_code
    u8 code[128];
    u8 image[832]; ///< XSAVE area in the standard form (SDM 1 13.4)
};
static_assert(offsetof(Mailbox, signal) == 48 && offsetof(Mailbox, code) == 64 &&
              offsetof(Mailbox, image) == 192);

void load(Mailbox& m, const Case& c) {
    for (unsigned i = 0; i < 8; ++i) {
        m.gpr[i] = static_cast<u32>(c.start.gpr[i]);
    }
    m.eip = static_cast<u32>(c.start.rip);
    m.eflags = static_cast<u32>(c.start.rflags);
    m.code_size = static_cast<u32>(c.code.size());
    CHECK(c.code.size() <= sizeof m.code);
    std::memcpy(m.code, c.code.data(), c.code.size());
    m.vector = c.vector ? 1 : 0;
    if (c.vector) {
        put_xsave_image(c.start, m.image);
    }
}

/// The exception behind a signal: QEMU's frames do not have its number.
u8 vector_of(const Mailbox& m) {
    switch (m.signal) {
    case SIGTRAP:
        return 3;
    case SIGFPE:
        return m.reason == FPE_INTDIV ? 0 : 16;
    case SIGILL:
        return 6;
    case SIGSEGV: // the reasons are that a page is absent, or protected, or none
        return m.reason == SEGV_MAPERR || m.reason == SEGV_ACCERR ? 14 : 13;
    default:
        return 0xff;
    }
}

Result store(const Mailbox& m, const Case& c) {
    Result r;
    r.end = c.start; // what 32-bit code does not have stays
    for (unsigned i = 0; i < 8; ++i) {
        r.end.gpr[i] = m.gpr[i];
    }
    r.vector = vector_of(m);
    r.error = m.error;
    r.address = m.address;
    if (r.vector == 14 && m.address == m.eip) {
        r.error |= 0x10; // QEMU leaves out that it was a fetch (SDM 3A 4.7)
    }
    r.end.rip = m.eip - (r.vector == 3 ? 1 : 0); // reported on the int3, as Cpu does
    r.end.rflags = m.eflags;
    if (c.vector) {
        const auto kept = c.start.vector;
        take_xsave_image(r.end, m.image);
        std::copy(kept.begin() + 32, kept.end(), r.end.vector.begin() + 32);
    }
    return r;
}

std::string find_program(const char* name) {
    const char* path = std::getenv("PATH");
    std::string rest = path == nullptr ? "/usr/bin:/bin" : path;
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find(':'), rest.size());
        const std::string candidate = rest.substr(0, end) + "/" + name;
        if (access(candidate.c_str(), X_OK) == 0) {
            return candidate;
        }
        rest.erase(0, end + 1);
    }
    return {};
}

} // namespace

bool QemuSide::present() { return !find_program("qemu-i386").empty(); }

QemuSide::QemuSide() : file_(memfd_create("oracle", 0)) {
    CHECK(file_ >= 0 && ftruncate(file_, shared_size) == 0);
    void* p = mmap(nullptr, shared_size, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    CHECK(p != MAP_FAILED);
    shared_ = static_cast<u8*>(p);
    start();
}

QemuSide::~QemuSide() {
    stop();
    munmap(shared_, shared_size);
    close(file_);
}

void QemuSide::start() {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    // From copies with high numbers: any of the originals may be what another is to become.
    const int copies[] = {fcntl(ends[1], F_DUPFD, 100), fcntl(file_, F_DUPFD, 100)};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, copies[0], 0);
    posix_spawn_file_actions_adddup2(&actions, copies[0], 1);
    posix_spawn_file_actions_adddup2(&actions, copies[1], 3);
    for (const int copy : copies) {
        posix_spawn_file_actions_addclose(&actions, copy);
    }
    const std::string program = find_program("qemu-i386");
    const char* arguments[] = {program.c_str(), "-cpu", "max", NESTOR_ORACLE_DRIVER, nullptr};
    const int error = posix_spawn(&child_, program.c_str(), &actions, nullptr,
                                  const_cast<char**>(arguments), environ);
    CHECK(error == 0, {static_cast<u64>(error)});
    posix_spawn_file_actions_destroy(&actions);
    close(copies[0]);
    close(copies[1]);
    close(ends[1]);
    socket_ = ends[0];
}

void QemuSide::stop() {
    close(socket_);
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
}

bool QemuSide::exchange() {
    char byte = 0;
    pollfd answer{socket_, POLLIN, 0};
    if (send(socket_, &byte, 1, MSG_NOSIGNAL) == 1 && poll(&answer, 1, longest_ms) == 1 &&
        recv(socket_, &byte, 1, 0) == 1) {
        return true;
    }
    stop();
    start();
    return false;
}

void QemuSide::fill_data(const u8* pattern) { std::memcpy(shared_, pattern, data_size); }

Result QemuSide::run(const Case& c) {
    CHECK(c.mode32);
    u8* window = shared_ + (window_address - data_address);
    std::memcpy(window, c.start.window.data(), window_size);
    auto& mailbox = *reinterpret_cast<Mailbox*>(shared_ + data_size);
    load(mailbox, c);
    Result r;
    if (exchange()) {
        r = store(mailbox, c);
    } else {
        r.stopped = false;
    }
    std::memcpy(r.end.window.data(), window, window_size);
    return r;
}

} // namespace nestor::test
