// VMCS fields by encoding, in the live struct and in a region in memory (SDM 3C 25.11.2, 31.3).
//
// Owns nothing: rows are the schema's (state::vmcs_rows), existence and place are vmcs_field.def's.
#include "engine/cpu/vmcs_fields.hpp"

#include <cstring>

#include "src/base/bits.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// Access rights: what VMWRITE keeps (bits 11:8 and 31:17 do not exist).
constexpr u64 rights_kept = 0x1f0ff;
constexpr u32 first_rights = 0x4814, last_rights = 0x4822; // ES to TR, in steps of 2

u64 load(const u8* from, u8 size) {
    u64 value = 0;
    std::memcpy(&value, from, size); // little-endian, as the guest is
    return value;
}
void store(u8* to, u8 size, u64 value) { std::memcpy(to, &value, size); }

const u8* bytes_of(const state::Vmcs& vmcs, const state::VmcsRow& row) {
    return reinterpret_cast<const u8*>(&vmcs) + row.offset;
}
u8* bytes_of(state::Vmcs& vmcs, const state::VmcsRow& row) {
    return reinterpret_cast<u8*>(&vmcs) + row.offset;
}

const state::VmcsRow* existing_row(u32 encoding, const VmxCapabilities& capabilities) {
    if (!VmcsEncoding{encoding}.valid()) {
        return nullptr;
    }
    const state::VmcsRow* row = vmcs_row(encoding);
    return row != nullptr && field_of(*row).exists(capabilities) ? row : nullptr;
}

} // namespace

std::optional<u64> vmread(const state::Vmcs& vmcs, u32 encoding,
                          const VmxCapabilities& capabilities, bool mode64) {
    const state::VmcsRow* row = existing_row(encoding, capabilities);
    if (row == nullptr) {
        return std::nullopt;
    }
    const u64 value = load(bytes_of(vmcs, *row), row->size);
    if (VmcsEncoding{encoding}.high()) {
        return value >> 32;
    }
    return mode64 ? value : static_cast<u32>(value);
}

std::optional<VmxError> vmwrite(state::Vmcs& vmcs, u32 encoding, u64 value,
                                const VmxCapabilities& capabilities, bool mode64) {
    const VmcsEncoding field{encoding};
    const state::VmcsRow* row = existing_row(encoding, capabilities);
    if (row == nullptr) {
        return VmxError::unsupported_component;
    }
    if (field.type() == VmcsType::read_only && (capabilities.misc & vmx_misc::vmwrite_any) == 0) {
        return VmxError::read_only_component;
    }
    u8* const to = bytes_of(vmcs, *row);
    if (field.high()) {
        store(to + 4, 4, value);
        return std::nullopt;
    }
    if (!mode64) {
        value = static_cast<u32>(value);
    }
    if (row->encoding >= first_rights && row->encoding <= last_rights) {
        value &= rights_kept;
    }
    store(to, row->size, value);
    return std::nullopt;
}

std::optional<RegionPlace> region_place(u32 encoding, const VmxCapabilities& capabilities) {
    const state::VmcsRow* row = existing_row(encoding, capabilities);
    if (row == nullptr) {
        return std::nullopt;
    }
    const u16 offset = field_of(*row).offset;
    return VmcsEncoding{encoding}.high() ? RegionPlace{static_cast<u16>(offset + 4), 4}
                                         : RegionPlace{offset, row->size};
}

u32 region_revision(ConstRegion region) {
    return static_cast<u32>(load(region.data() + region::revision, 4));
}

void write_region(const state::Vmcs& vmcs, Region region) {
    for (const state::VmcsRow& row : state::vmcs_rows<state::Vmcs>) {
        if (const u16 offset = field_of(row).offset; offset != 0) {
            store(region.data() + offset, row.size, load(bytes_of(vmcs, row), row.size));
        }
    }
    store(region.data() + region::launch_state, 4, vmcs.launch_state ? 1 : 0);
}

state::Vmcs read_region(ConstRegion region) {
    state::Vmcs vmcs;
    for (const state::VmcsRow& row : state::vmcs_rows<state::Vmcs>) {
        if (const u16 offset = field_of(row).offset; offset != 0) {
            store(bytes_of(vmcs, row), row.size, load(region.data() + offset, row.size));
        }
    }
    vmcs.launch_state = load(region.data() + region::launch_state, 4) != 0;
    return vmcs;
}

} // namespace nestor::cpu
