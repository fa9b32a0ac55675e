// A VMCS near the valid boundary: the checks of VM entry survive it, and what they accept can be
// entered, runs, and exits in a state that could be entered again. A run that is saved and restored
// into a fresh processor every few counts ends as the unbroken one does.
//
// Input: byte 0 the valid VMCS to start from, byte 1 the leg length, byte 2 the number of edits,
// then the edits of 11 bytes (row of the VMCS table, operation, value), then the guest's code.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "engine/cpu/package.hpp"
#include "engine/cpu/vmcs_state.hpp"
#include "engine/cpu/vmx_controls.hpp"
#include "engine/state/codec.hpp"
#include "entry_fixture.hpp"
#include "src/base/check.hpp"

namespace {

using namespace nestor;
using namespace nestor::cpu;
using namespace nestor::arch;

constexpr u64 ram_size = u64{256} << 10;
constexpr u64 code = 0x20000, gdt = 0x21000, idt = 0x22000, handler = 0x23000, tss = 0x24000,
              stack_top = 0x2f000, tables = 0x30000, ept_tables = 0x36000;
constexpr u64 most_counts = 300;

template <class T>
void put(std::vector<u8>& ram, u64 at, T value) {
    std::memcpy(ram.data() + at, &value, sizeof value);
}

/// Identity maps of 2 MiB for every kind of guest, descriptors, gates, a handler that returns.
void write_tables(std::vector<u8>& ram, bool long_guest) {
    put(ram, tables, u64{tables + 0x1007});
    put(ram, tables + 0x1000, u64{tables + 0x2007});
    put(ram, tables + 0x2000, u64{0x87});
    put(ram, tables + 0x3000, u64{tables + 0x2001}); // PDPT of PAE paging
    put(ram, tables + 0x4000, u32{0x87});            // page directory of 32-bit paging
    put(ram, ept_tables, u64{ept_tables + 0x1407});  // bit 10: pages of user mode too
    put(ram, ept_tables + 0x1000, u64{ept_tables + 0x2407});
    put(ram, ept_tables + 0x2000, u64{0x4b7});
    const u64 flat[] = {0,
                        0x00cf9b000000ffff, // 08 code 32
                        0x00af9b000000ffff, // 10 code 64
                        long_guest ? u64{0x00cf93000000ffff} : u64{0x00cffb000000ffff}, // 18
                        0x00cff3000000ffff, // 20 data, 3
                        0x00cf93000000ffff,
                        0,
                        0, // 28 data, 0
                        0x00008b0000000067 | (tss & 0xffffff) << 16 | tss >> 24 << 56}; // 40 TSS
    for (unsigned i = 0; i < std::size(flat); ++i) {
        put(ram, gdt + i * 8, flat[i]);
    }
    put(ram, tss + 4, long_guest ? u64{0x2e000} : 0x2e000 | u64{0x28} << 32);
    for (u64 v = 0; v < 32; ++v) {
        put(ram, idt + v * (long_guest ? 16 : 8),
            (handler & 0xffff) | u64{long_guest ? 0x10u : 0x08u} << 16 | u64{0xee00} << 32 |
                handler >> 16 << 48);
        put(ram, v * 4, u32{(code >> 4) << 16 | 0x3000}); // real mode: the same handler
    }
    ram[handler] = 0x48; // REX.W, or DEC EAX
    ram[handler + 1] = 0xcf;
}

/// Makes a valid VMCS run `code` in the RAM above.
void aim(state::Vmcs& v, ValidEntry kind) {
    v.guest_gdtr_base = gdt;
    v.guest_gdtr_limit = 0x4f;
    v.guest_idtr_base = idt;
    v.guest_idtr_limit = 0x1ff;
    v.guest_tr_base = tss;
    v.guest_rip = code;
    v.guest_rsp = stack_top;
    v.ept_pointer = (v.ept_pointer & page_mask) | ept_tables;
    v.guest_cr4 |= cr4::osfxsr | cr4::pse;
    v.guest_tr_access_rights = 0x8b;
    v.vmx_preemption_timer_value = 1000;
    v.pml_index = 511;
    // What would exit at once; edits turn them on again.
    v.cpu_based_vm_exec_control &=
        ~(proc_control::interrupt_window_exiting | proc_control::nmi_window_exiting |
          proc_control::monitor_trap_flag);
    switch (kind) {
    case ValidEntry::long64:
    case ValidEntry::everything:
        v.guest_cr3 = tables;
        break;
    case ValidEntry::pae32:
    case ValidEntry::pae32_ept:
    case ValidEntry::host32:
        v.guest_cr3 = tables + 0x3000;
        v.guest_pdpte0 = tables + 0x2001;
        v.guest_pdpte1 = v.guest_pdpte2 = v.guest_pdpte3 = 0;
        break;
    case ValidEntry::v8086:
        v.guest_cr3 = tables + 0x4000;
        [[fallthrough]];
    case ValidEntry::real:
        v.guest_cs_selector = code >> 4;
        v.guest_cs_base = code;
        v.guest_rip = 0;
        v.guest_rsp = 0xf000;
        if (kind == ValidEntry::real) {
            v.guest_idtr_base = 0;
        }
        break;
    }
}

/// A processor with its memory.
struct Host {
    std::vector<u8> ram;
    std::vector<u8> states = std::vector<u8>(ram_size >> page_shift);
    GuestMemory memory;
    Package package;
    Cpu cpu;

    Host(std::vector<u8> content, unsigned tlb)
        : ram(std::move(content)), package((attach(), memory), config(tlb)), cpu(package, 0, tlb) {}

private:
    static Package::Config config(unsigned tlb) {
        Package::Config c;
        const EntryContext context = valid_entry(ValidEntry::long64).c;
        c.features.isa.set();
        c.features.cr4_reserved = ~context.capabilities.cr4_fixed1;
        c.features.efer_reserved = ~context.efer_allowed;
        c.tlb_entries = tlb;
        return c;
    }
    void attach() { memory.add_region({Gpa(0), ram_size, ram.data(), states.data()}); }
};

/// What a processor between two counts is, derived structures aside.
struct Saved {
    state::Cpu s;
    state::Vmcs v;
    std::optional<Event> injected;
    bool monitor_trap = false;
    u64 deadline = 0;
};

Saved save(Cpu& cpu, state::Vmcs v) {
    cpu.materialize();
    store_controls(cpu, v);
    return {cpu.s, v, cpu.injected, cpu.monitor_trap_pending, cpu.preemption_deadline};
}

void restore(Cpu& cpu, const Saved& from) {
    cpu.s = from.s;
    set_controls(cpu, from.v, nullptr);
    cpu.rehydrate();
    if (from.injected) {
        cpu.inject(*from.injected);
    }
    cpu.monitor_trap_pending = from.monitor_trap;
    cpu.preemption_deadline = from.deadline;
}

/// Runs to `until` or to what ends the guest. True: there is more to run.
bool run(Cpu& cpu, u64& count, u64 until) {
    while (count < until) {
        const Cpu::Stop stop = cpu.run(count, until - count);
        count += cpu.retired_in_run();
        CHECK(count <= until);
        switch (stop) {
        case Cpu::Stop::count:
        case Cpu::Stop::yield:
            break;
        case Cpu::Stop::access:
            cpu.answer_access(0x5a5a5a5a5a5a5a5a);
            if (cpu.run(count, 1) == Cpu::Stop::access) {
                return false; // more than this answers
            }
            count += cpu.retired_in_run();
            break;
        default:
            return false;
        }
    }
    return true;
}

void enter(Host& host, const state::Vmcs& v, const std::array<u64, 4>& pdptes) {
    set_controls(host.cpu, v, nullptr);
    host.cpu.controls.assisted = false;
    load_guest(host.cpu, v, pdptes);
    begin_entry(host.cpu, v);
}

void same(const auto& whole, const auto& broken) {
    const auto differences = state::diff(whole, broken);
    for (const auto& d : differences) {
        std::fprintf(stderr, "%s: whole %s, broken %s\n", d.path.c_str(), d.left.c_str(),
                     d.right.c_str());
    }
    CHECK(differences.empty());
}

/// The state that an exit saves passes the checks of the next entry.
void enterable_again(Host& host, state::Vmcs v, const EntryContext& context) {
    save_guest(host.cpu, v);
    store_controls(host.cpu, v);
    v.vm_entry_intr_info = 0;
    if (const auto failure = check_guest(v, context)) {
        std::fprintf(stderr, "after exit %u: %s\n", static_cast<unsigned>(host.cpu.exit.reason),
                     entry_checks()[static_cast<std::size_t>(failure->id)].name.data());
        CHECK(false, {static_cast<u64>(host.cpu.exit.reason)});
    }
    load_host(host.cpu, v);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 4) {
        return 0;
    }
    const ValidEntry kind = valid_entries[data[0] % std::size(valid_entries)];
    const u64 leg = 1 + data[1] % 23;
    std::size_t edits = data[2] % 8;
    data += 3;
    size -= 3;
    Entry entry = valid_entry(kind);
    aim(entry.v, kind);
    for (; edits > 0 && size >= 11; --edits, data += 11, size -= 11) {
        edit_field(entry.v, data);
    }
    if (check_controls(entry.v, entry.c) || check_host(entry.v, entry.c) ||
        check_guest(entry.v, entry.c)) {
        return 0;
    }
    std::vector<u8> ram(ram_size);
    std::memcpy(ram.data(), entry.ram.data(), EntryRam::size);
    write_tables(ram, (entry.v.vm_entry_controls & entry_control::ia32e_mode_guest) != 0);
    std::memcpy(ram.data() + code, data, std::min<std::size_t>(size, gdt - code));

    Host whole(ram, 256);
    const EntryMemory found = check_guest_memory(entry.v, entry.c, whole.memory);
    CHECK(!found.page_needed);
    if (found.failure || check_controls_memory(entry.v, entry.c, whole.memory).failure) {
        return 0;
    }
    enter(whole, entry.v, found.pdptes);
    u64 whole_count = 0;
    run(whole.cpu, whole_count, most_counts);

    auto broken = std::make_unique<Host>(ram, 1);
    enter(*broken, entry.v, found.pdptes);
    state::Vmcs v = entry.v;
    u64 count = 0;
    while (run(broken->cpu, count, std::min(count + leg, most_counts)) && count < most_counts) {
        const Saved saved = save(broken->cpu, v);
        v = saved.v;
        auto fresh = std::make_unique<Host>(broken->ram, 1);
        restore(fresh->cpu, saved);
        fresh->cpu.controls.assisted = false;
        broken = std::move(fresh);
    }
    CHECK(count == whole_count, {count, whole_count});
    const Saved a = save(whole.cpu, entry.v), b = save(broken->cpu, v);
    same(a.s, b.s);
    same(a.v, b.v);
    CHECK(whole.ram == broken->ram);
    CHECK(whole.cpu.exit.reason == broken->cpu.exit.reason);
    enterable_again(whole, a.v, entry.c);
    return 0;
}
