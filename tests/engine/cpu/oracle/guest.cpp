// Cpu's side of the oracle: builds the page tables, loads and stores UserState.
//
// Between two cases the Cpu is not rehydrated: its TLB and blocks live on, as they do in a machine.
// Code is written through GuestMemory, so stale blocks would be found here.
#include "tests/engine/cpu/oracle/guest.hpp"

#include <cstring>

#include <sys/mman.h>

#include "src/base/check.hpp"

namespace nestor::test {

using namespace arch;

namespace {

constexpr u32 user_code64 = 0xa0fb;
constexpr u32 user_code32 = 0xc0fb;
constexpr state::Segment flat_data{0, 0xffffffff, 0xc0f3, 0x2b};

cpu::Package::Config package_config() {
    cpu::Package::Config config;
    config.features.isa.set();
    config.tlb_entries = 1024;
    return config;
}

} // namespace

GuestSide::GuestSide(Device device)
    : ram_(static_cast<u8*>(
          mmap(nullptr, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
      states_(ram_size / page_size) {
    CHECK(ram_ != MAP_FAILED);
    memory_.add_region({Gpa(0), ram_size, ram_, states_.data()});
    const auto entry = [this](u64 table, u64 index, u64 value) {
        write(table + index * 8, &value, 8);
    };
    constexpr u64 user = pte::p | pte::w | pte::u;
    entry(0x1000, 0, 0x2000 | user);
    entry(0x2000, data_address >> 30 & 511, 0x3000 | user);
    entry(0x3000, data_address >> 21 & 511, 0x4000 | user);
    entry(0x3000, code_address >> 21 & 511, 0x4000 | user);
    for (u64 i = 0; i < 2; ++i) {
        const bool outside = (static_cast<unsigned>(device) >> i & 1) != 0;
        entry(0x4000, (data_address >> 12 & 511) + i,
              ((outside ? device_frame : data_frame) + i * page_size) | user);
        entry(0x4000, (code_address >> 12 & 511) + i, (code_frame + i * page_size) | user);
    }
    entry(0x4000, read_only_address >> 12 & 511, (data_frame + 0x2000) | pte::p | pte::u);
    const std::vector<u8> traps(2 * page_size, 0xcc);
    write(code_frame, traps.data(), traps.size());
    package_ = std::make_unique<cpu::Package>(memory_, package_config());
    cpu_ = std::make_unique<cpu::Cpu>(*package_, 0, 1024);
    state::Cpu& s = cpu_->s;
    s.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg;
    s.cr3 = 0x1000;
    s.cr4 = cr4::pae | cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave;
    s.xcr0 = 7;
    s.efer = efer::lme | efer::lma | efer::nxe | efer::sce;
    cpu_->controls.exception_bitmap = ~u32{0};
    s.segments.fill(flat_data);
    set_mode(false);
    cpu_->rehydrate();
}

GuestSide::~GuestSide() {
    cpu_.reset();
    package_.reset();
    munmap(ram_, ram_size);
}

void GuestSide::write(u64 physical, const void* bytes, u64 size) {
    const auto status = memory_.write(Gpa(physical), {static_cast<const u8*>(bytes), size});
    CHECK(status == cpu::MemoryStatus::ok);
}
void GuestSide::reset(const u8* pattern) {
    write(data_frame, pattern, 0x3000);
    const std::vector<u8> traps(2 * page_size, 0xcc);
    if (std::memcmp(ram_ + code_frame, traps.data(), traps.size()) != 0) {
        write(code_frame, traps.data(), traps.size());
    }
    // What a case can change and does not state.
    state::X87& x87 = cpu_->s.x87;
    x87.instruction_pointer = x87.data_pointer = x87.opcode = 0;
    for (const Seg seg : {Seg::es, Seg::ds, Seg::fs, Seg::gs}) {
        cpu_->seg(seg) = flat_data;
    }
}

void GuestSide::set_mode(bool mode32) {
    if (mode32 == mode32_) {
        return;
    }
    mode32_ = mode32;
    cpu_->seg(Seg::cs) = {0, 0xffffffff, mode32 ? user_code32 : user_code64,
                          static_cast<u16>(mode32 ? 0x23 : 0x33)};
    cpu_->update_mode();
}

void GuestSide::load(const Case& c) {
    set_mode(c.mode32);
    const UserState& u = c.start;
    state::Cpu& s = cpu_->s;
    s.gpr = u.gpr;
    s.rip = u.rip;
    s.rflags = u.rflags;
    cpu_->lazy.settle();
    if (c.vector) {
        s.vector = u.vector;
        s.mxcsr = u.mxcsr;
        std::memcpy(&s.x87.control, &u.x87[0], 2);
        std::memcpy(&s.x87.status, &u.x87[2], 2);
        s.x87.empty_mask = static_cast<u8>(~u.x87[4]);
        for (unsigned i = 0; i < 8; ++i) {
            std::memcpy(&s.x87.significand[i], &u.x87[32 + 16 * i], 8);
            std::memcpy(&s.x87.sign_exponent[i], &u.x87[40 + 16 * i], 2);
        }
    }
    write(data_frame + (window_address - data_address), u.window.data(), window_size);
    write(code_frame + (u.rip - code_address), c.code.data(), c.code.size());
}

Result GuestSide::finish(const Case& c, cpu::Cpu::Stop stop) {
    cpu_->materialize();
    const state::Cpu& s = cpu_->s;
    Result r;
    r.stopped = stop == cpu::Cpu::Stop::exit && cpu_->exit.reason == ExitReason::exception_or_nmi;
    r.end.gpr = s.gpr;
    r.end.rip = s.rip;
    r.end.rflags = s.rflags;
    if (r.stopped) {
        r.vector = static_cast<u8>(cpu_->exit.interruption_info);
        r.error = cpu_->exit.interruption_error;
        r.address = cpu_->exit.qualification;
    }
    if (c.vector) {
        r.end.vector = s.vector;
        r.end.mxcsr = s.mxcsr;
        r.end.x87.fill(0);
        std::memcpy(&r.end.x87[0], &s.x87.control, 2);
        std::memcpy(&r.end.x87[2], &s.x87.status, 2);
        r.end.x87[4] = static_cast<u8>(~s.x87.empty_mask);
        for (unsigned i = 0; i < 8; ++i) {
            std::memcpy(&r.end.x87[32 + 16 * i], &s.x87.significand[i], 8);
            std::memcpy(&r.end.x87[40 + 16 * i], &s.x87.sign_exponent[i], 2);
        }
    }
    std::memcpy(r.end.window.data(), data() + (window_address - data_address), window_size);
    const std::vector<u8> traps(c.code.size(), 0xcc);
    write(code_frame + (c.start.rip - code_address), traps.data(), traps.size());
    return r;
}

/// The device's bytes are those of the data pages.
void GuestSide::answer() {
    const cpu::PendingAccess& a = cpu_->access;
    u8* const at = ram_ + (a.address - device_frame + data_frame);
    asked_.push_back({a.address - device_frame + data_address, a.size, a.write});
    u64 data = a.data;
    std::memcpy(a.write ? static_cast<void*>(at) : &data, a.write ? &data : static_cast<void*>(at),
                a.size);
    cpu_->answer_access(data);
}

Result GuestSide::run(const Case& c, bool stepwise) {
    constexpr u64 most = 10000;
    asked_.clear();
    load(c);
    cpu::Cpu::Stop stop = cpu::Cpu::Stop::count;
    for (u64 done = 0; done < most && stop == cpu::Cpu::Stop::count;) {
        stop = cpu_->run(done, stepwise ? 1 : most);
        done += stepwise ? 1 : most;
        while (stop == cpu::Cpu::Stop::yield || stop == cpu::Cpu::Stop::access) {
            if (stop == cpu::Cpu::Stop::access) {
                answer();
            }
            stop = cpu_->run(done, stepwise ? 1 : most);
        }
    }
    return finish(c, stop);
}

} // namespace nestor::test
