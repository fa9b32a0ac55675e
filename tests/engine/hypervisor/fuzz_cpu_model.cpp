// Any bytes as the unit vcpu[n].model: refused, or a vCPU whose CPUID the engine can be, which then
// runs as any other and is saved as it was loaded.
//
// Input: byte 0 how the rest is read, byte 1 the vCPU's place. Read as a whole unit, or as edits of
// the entries of a model, of which what lies behind the last whole one is code that is run:
// edit: entry, what (0-3 register, 4 leaf, 5 subleaf, 6 which subleaves, 7 twice, 8 away), value.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "engine/state/codec.hpp"
#include "nested_fixture.hpp"

namespace {

using namespace nestor;
using hv::NestedHost;

constexpr std::size_t edit_size = 6;
constexpr u64 most_counts = 200;

void edit(std::vector<state::CpuidEntry>& entries, const std::uint8_t* data) {
    if (entries.empty()) {
        return;
    }
    const std::size_t at = data[0] % entries.size();
    state::CpuidEntry& e = entries[at];
    u32 value;
    std::memcpy(&value, data + 2, sizeof value);
    switch (data[1] % 10) {
    case 0:
        e.eax = value;
        break;
    case 1:
        e.ebx = value;
        break;
    case 2:
        e.ecx = value;
        break;
    case 3:
        e.edx = value;
        break;
    case 4:
        e.leaf = value;
        break;
    case 5:
        e.subleaf = value;
        break;
    case 6:
        e.has_subleaf = !e.has_subleaf;
        break;
    case 7:
        entries.insert(entries.begin() + static_cast<std::ptrdiff_t>(at), state::CpuidEntry(e));
        break;
    case 8:
        entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(at));
        break;
    default: // single bits go through where whole values do not
        (value & 1 ? e.ecx : e.ebx) ^= u32{1} << (value >> 8 & 31);
        break;
    }
}

/// What was accepted is within what the engine can do, and is answered as it says.
void check_accepted(const state::CpuModel& model) {
    for (std::size_t w = 0; w < arch::cpuid_words; ++w) {
        const arch::CpuidRegister& r = arch::cpuid_registers[w];
        const auto* const e = hv::find_cpuid(model.cpuid, r.leaf, r.subleaf);
        const u32 beyond =
            e == nullptr ? 0 : hv::cpuid_register(*e, r.reg) & ~hv::engine_offer().features[w];
        CHECK(beyond == 0, {w, beyond});
    }
    const cpu::Features f = hv::silicon_features(model.cpuid);
    CHECK(f.physical_bits >= hv::least_physical_bits && f.physical_bits <= 46, {f.physical_bits});
    for (std::size_t i = 0; i < model.cpuid.size(); ++i) {
        const state::CpuidEntry& e = model.cpuid[i];
        CHECK(hv::find_cpuid(model.cpuid, e.leaf, e.subleaf) == &e, {e.leaf, e.subleaf});
    }
}

/// 64-bit code at CPL 0 under this model.
void run(const state::CpuModel& model, hv::CpuidPlace place, std::span<const u8> code) {
    static const cpu::Entry entry = cpu::valid_entry(cpu::ValidEntry::everything);
    std::vector<u8> ram = NestedHost::memory_of(const_cast<cpu::Entry&>(entry));
    std::vector<u8> states(ram.size() >> page_shift);
    const std::size_t size = std::min<std::size_t>(code.size(), 0x1000);
    std::copy_n(code.begin(), size, ram.begin() + NestedHost::l1_code);
    cpu::GuestMemory memory;
    memory.add_region({Gpa(0), ram.size(), ram.data(), states.data()});
    const auto first = hv::cpu_model_cpuid(hv::default_model(), place.index, place.count);
    cpu::Package package(memory, {hv::silicon_features(first), 64});
    hv::Vcpu vcpu({.index = VcpuIndex(place.index),
                   .vcpu_count = place.count,
                   .package = &package,
                   .board = nullptr,
                   .cpuid = first});
    package.set_features(hv::silicon_features(model.cpuid));
    const auto loaded = vcpu.load(model);
    CHECK(loaded.has_value());
    state::Vcpu s = vcpu.save();
    CHECK(s.model == model);
    const NestedHost host(std::move(ram));
    state::Vcpu ready = host.before_launch(entry.v);
    ready.model = model;
    ready.lapic = s.lapic;
    ready.nested = s.nested;
    ready.vmcs01 = s.vmcs01;
    if (!vcpu.load(ready)) {
        return; // registers that do not go with the model
    }
    for (u64 left = most_counts; left > 0;) {
        const u64 count = vcpu.count().value();
        const hv::Exit exit = vcpu.run({.count = Icount(count)}, Icount(count + left));
        left -= std::min(left, vcpu.count().value() - count);
        if (std::holds_alternative<hv::PortAccess>(exit) ||
            std::holds_alternative<hv::MmioAccess>(exit)) {
            vcpu.complete(~u64{0});
        } else if (!std::holds_alternative<hv::Yielded>(exit)) {
            break;
        }
    }
    CHECK(vcpu.save().model == model);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) {
        return 0;
    }
    const bool whole = (data[0] & 1) != 0;
    const auto count = static_cast<u16>(1 + (data[1] & 15));
    const hv::CpuidPlace place{static_cast<u16>((data[1] >> 4) % count), count};
    unsigned edits = data[0] >> 1 & 15;
    data += 2;
    size -= 2;
    state::CpuModel model;
    if (whole) {
        auto decoded = state::decode<state::CpuModel>(std::as_bytes(std::span(data, size)));
        if (!decoded) {
            return 0;
        }
        model = std::move(*decoded);
        size = 0;
    } else {
        model.cpuid = hv::cpu_model_cpuid(hv::default_model(), place.index, place.count);
        for (; edits > 0 && size >= edit_size; --edits, data += edit_size, size -= edit_size) {
            edit(model.cpuid, data);
        }
    }
    const auto faults = hv::cpuid_faults(model.cpuid, place, hv::engine_offer());
    const auto checked = hv::check_cpuid(model.cpuid, place, hv::engine_offer());
    CHECK(checked.has_value() == faults.empty());
    if (!faults.empty()) {
        CHECK(!checked.error().message.empty() && !faults.front().path.empty());
        return 0;
    }
    check_accepted(model);
    run(model, place, {data, size});
    return 0;
}
