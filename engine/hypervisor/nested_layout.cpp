// Nested state in Linux's layout (KVM_GET_NESTED_STATE, format 0) and the checks of
// KVM_SET_NESTED_STATE.
//
// Owns the layout of the header; that of a vmcs12 is arch/vmcs_field.def's, whose fields from byte
// 1024 on Linux neither writes nor reads. Linux copies 998 bytes of each vmcs12 and asks for no
// more, so fewer are a fault and what is missing beyond is zero.
#include "engine/hypervisor/nested_layout.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "engine/arch/vmx_control.hpp"
#include "engine/cpu/vmcs_fields.hpp"

namespace nestor::hv {

using cpu::EntryFailure;
using state::Vmcs;

namespace {

/// Offsets in the header.
namespace header {
constexpr std::size_t flags = 0, format = 2, size = 4, vmxon_pointer = 8, vmcs12_pointer = 16,
                      smm_flags = 24, vmx_flags = 28, deadline = 32, bytes = 128;
} // namespace header

constexpr std::size_t vmcs12_bytes = 998; ///< what Linux's struct has
constexpr std::size_t first_vmcs12 = header::bytes, second_vmcs12 = first_vmcs12 + page_size;

constexpr u16 flag_guest_mode = 1, flag_run_pending = 2, flag_evmcs = 4, flag_mtf_pending = 8,
              flag_gif = 0x100;
constexpr u16 smm_guest_mode = 1, smm_vmxon = 2;
constexpr u32 vmx_deadline = 1;

constexpr u32 revision = static_cast<u32>(arch::vmx_basic::revision);
constexpr unsigned deadline_shift = 5; // IA32_VMX_MISC[4:0]

NestedRefusal refusal(NestedCheck check, std::optional<EntryFailure> entry = {}) {
    switch (check) {
#define NESTED_CHECK(name, error, text)                                                            \
    case NestedCheck::name:                                                                        \
        return {check, error, text, entry};
#include "engine/hypervisor/nested_layout.def"
#undef NESTED_CHECK
    }
    return {check, EINVAL, "", entry};
}

template <class T>
T get(std::span<const u8> from, std::size_t offset) {
    T value;
    std::memcpy(&value, from.data() + offset, sizeof value);
    return value;
}
template <class T>
void put(std::span<u8> to, std::size_t offset, T value) {
    std::memcpy(to.data() + offset, &value, sizeof value);
}

bool shadowing(const Vmcs& v) {
    return (v.cpu_based_vm_exec_control & arch::proc_control::activate_secondary_controls) != 0 &&
           (v.secondary_vm_exec_control & arch::proc2_control::vmcs_shadowing) != 0;
}
bool has_shadow(const Vmcs& v) { return shadowing(v) && v.vmcs_link_pointer != NestedImage::none; }

bool in_vmx(const NestedImage& image) { return image.vmxon_pointer != NestedImage::none; }

/// The header as read, and where the checks are.
struct Import {
    std::span<const u8> bytes;
    const NestedTarget& target;
    u16 flags = 0, format = 0, smm = 0;
    u32 size = 0, vmx_flags = 0;
    u64 vmxon_pointer = 0, vmcs12_pointer = 0, deadline = 0;
    NestedImage image;

    [[nodiscard]] bool page(u64 address) const {
        return (address & page_mask) == 0 && address >> target.entry.physical_bits == 0;
    }
    [[nodiscard]] bool guest_mode() const { return (flags & flag_guest_mode) != 0; }
    [[nodiscard]] bool payload() const { return size >= first_vmcs12 + vmcs12_bytes; }

    std::optional<NestedCheck> generic();
    [[nodiscard]] std::optional<NestedCheck> operation() const;
    [[nodiscard]] std::optional<NestedCheck> consistency() const;
    [[nodiscard]] std::optional<NestedCheck> pointers() const;
    std::optional<NestedCheck> current();
    std::optional<NestedCheck> shadow();
    std::optional<NestedRefusal> entry();
    bool read(std::size_t offset, std::array<u8, page_size>& region) const;
};

std::optional<NestedCheck> Import::generic() {
    if (bytes.size() < header::bytes) {
        return NestedCheck::header_read;
    }
    flags = get<u16>(bytes, header::flags);
    format = get<u16>(bytes, header::format);
    size = get<u32>(bytes, header::size);
    vmxon_pointer = get<u64>(bytes, header::vmxon_pointer);
    vmcs12_pointer = get<u64>(bytes, header::vmcs12_pointer);
    smm = get<u16>(bytes, header::smm_flags);
    vmx_flags = get<u32>(bytes, header::vmx_flags);
    deadline = get<u64>(bytes, header::deadline);
    if (size < header::bytes) {
        return NestedCheck::size_covers_header;
    }
    constexpr u16 known =
        flag_guest_mode | flag_run_pending | flag_evmcs | flag_mtf_pending | flag_gif;
    if ((flags & ~known) != 0) {
        return NestedCheck::flags_known;
    }
    if ((flags & flag_run_pending) != 0 && !guest_mode()) {
        return NestedCheck::run_pending_in_guest;
    }
    return format != 0 ? std::optional(NestedCheck::format) : std::nullopt;
}

std::optional<NestedCheck> Import::operation() const {
    if (vmxon_pointer == NestedImage::none) {
        if (smm != 0) {
            return NestedCheck::off_smm_flags;
        }
        if (vmcs12_pointer != NestedImage::none) {
            return NestedCheck::off_vmcs12;
        }
        return (flags & ~flag_evmcs) != 0 ? std::optional(NestedCheck::off_flags) : std::nullopt;
    }
    if (!target.vmx_allowed) {
        return NestedCheck::vmx_allowed;
    }
    return !page(vmxon_pointer) ? std::optional(NestedCheck::vmxon_page) : std::nullopt;
}

std::optional<NestedCheck> Import::consistency() const {
    if ((smm & smm_guest_mode) != 0 && guest_mode()) {
        return NestedCheck::smm_guest_or_guest;
    }
    if ((smm & ~(smm_guest_mode | smm_vmxon)) != 0) {
        return NestedCheck::smm_flags_known;
    }
    if ((vmx_flags & ~vmx_deadline) != 0) {
        return NestedCheck::header_flags_known;
    }
    if (target.entry.in_smm ? (flags & (flag_guest_mode | flag_run_pending)) != 0 : smm != 0) {
        return NestedCheck::smm_consistent;
    }
    if ((smm & smm_guest_mode) != 0 && (smm & smm_vmxon) == 0) {
        return NestedCheck::smm_guest_needs_vmxon;
    }
    if ((flags & flag_evmcs) != 0 && !(target.vmx_allowed && target.evmcs_enabled)) {
        return NestedCheck::evmcs_allowed;
    }
    return std::nullopt;
}

std::optional<NestedCheck> Import::pointers() const {
    const bool evmcs = (flags & flag_evmcs) != 0;
    const bool named = vmcs12_pointer != NestedImage::none;
    if (!payload()) {
        return guest_mode() || evmcs || named ? std::optional(NestedCheck::payload_missing)
                                              : std::nullopt;
    }
    if (named) {
        const bool ok = vmcs12_pointer != vmxon_pointer && page(vmcs12_pointer);
        return ok ? std::nullopt : std::optional(NestedCheck::vmcs12_pointer);
    }
    return evmcs ? std::nullopt : std::optional(NestedCheck::vmcs12_unnamed);
}

bool Import::read(std::size_t offset, std::array<u8, page_size>& region) const {
    region.fill(0);
    if (bytes.size() < offset + vmcs12_bytes) {
        return false;
    }
    const auto there = bytes.subspan(offset);
    std::copy_n(there.begin(), std::min<std::size_t>(there.size(), page_size), region.begin());
    return true;
}

std::optional<NestedCheck> Import::current() {
    std::array<u8, page_size> region;
    if (!read(first_vmcs12, region)) {
        return NestedCheck::vmcs12_read;
    }
    // Linux compares the 31 bits of the identifier only.
    if ((cpu::region_revision(region) & ~cpu::region::shadow_indicator) != revision) {
        return NestedCheck::vmcs12_revision;
    }
    image.vmcs12 = cpu::read_region(region);
    return std::nullopt;
}

std::optional<NestedCheck> Import::shadow() {
    if (!has_shadow(*image.vmcs12)) {
        return std::nullopt;
    }
    if (size < second_vmcs12 + vmcs12_bytes) {
        return NestedCheck::shadow_size;
    }
    std::array<u8, page_size> region;
    if (!read(second_vmcs12, region)) {
        return NestedCheck::shadow_read;
    }
    if (cpu::region_revision(region) != (revision | cpu::region::shadow_indicator)) {
        return NestedCheck::shadow_header;
    }
    image.shadow_vmcs12 = cpu::read_region(region);
    return std::nullopt;
}

std::optional<NestedRefusal> Import::entry() {
    cpu::EntryContext context = target.entry;
    context.current_vmcs = vmcs12_pointer;
    Vmcs v = *image.vmcs12;
    // Linux compares it with IA32_EFER.LMA, which is L2's here, only when L1 enters.
    context.long_mode = (v.vm_exit_controls & arch::exit_control::host_address_space_size) != 0;
    if (auto failure = cpu::check_controls(v, context)) {
        return refusal(NestedCheck::controls, failure);
    }
    if (auto failure = cpu::check_host(v, context)) {
        return refusal(NestedCheck::host_state, failure);
    }
    if (!image.run_pending) {
        v.vm_entry_intr_info = 0;
    }
    if (auto failure = cpu::check_guest(v, context)) {
        return refusal(NestedCheck::guest_state, failure);
    }
    return std::nullopt;
}

} // namespace

std::size_t nested_image_size(const NestedImage& image) {
    if (!in_vmx(image) || !image.vmcs12) {
        return header::bytes;
    }
    const bool shadow = image.guest_mode && image.shadow_vmcs12 && has_shadow(*image.vmcs12);
    return shadow ? second_vmcs12 + page_size : second_vmcs12;
}

bool export_nested(const NestedImage& image, std::span<u8> buffer) {
    const std::size_t size = nested_image_size(image);
    if (buffer.size() < size) {
        return false;
    }
    buffer = buffer.first(size);
    std::fill(buffer.begin(), buffer.end(), u8{0});
    put(buffer, header::size, static_cast<u32>(size));
    put(buffer, header::vmxon_pointer, image.vmxon_pointer);
    put(buffer, header::vmcs12_pointer, NestedImage::none);
    if (!in_vmx(image)) {
        return true;
    }
    const bool guest = image.guest_mode;
    put(buffer, header::flags,
        static_cast<u16>(
            (guest ? flag_guest_mode : 0) | (guest && image.run_pending ? flag_run_pending : 0) |
            (guest && image.mtf_pending ? flag_mtf_pending : 0) | (image.evmcs ? flag_evmcs : 0)));
    put(buffer, header::vmcs12_pointer, image.vmcs12_pointer);
    put(buffer, header::smm_flags,
        static_cast<u16>((image.smm_guest_mode ? smm_guest_mode : 0) |
                         (image.smm_vmxon ? smm_vmxon : 0)));
    if (guest && image.preemption_deadline) {
        put(buffer, header::vmx_flags, vmx_deadline);
        put(buffer, header::deadline, *image.preemption_deadline);
    }
    const auto write = [&](const Vmcs& vmcs, std::size_t offset, u32 revision_dword) {
        const cpu::Region region(buffer.data() + offset, page_size);
        cpu::write_region(vmcs, region);
        put<u32>(region, cpu::region::revision, revision_dword);
    };
    if (size > header::bytes) {
        write(*image.vmcs12, first_vmcs12, revision);
    }
    if (size > second_vmcs12) {
        write(*image.shadow_vmcs12, second_vmcs12, revision | cpu::region::shadow_indicator);
    }
    return true;
}

tl::expected<NestedImage, NestedRefusal> import_nested(std::span<const u8> bytes,
                                                       const NestedTarget& target) {
    Import in{.bytes = bytes, .target = target};
    const auto refuse = [](NestedCheck check) { return tl::unexpected(refusal(check)); };
    if (const auto failed = in.generic()) {
        return refuse(*failed);
    }
    for (const auto check : {&Import::operation, &Import::consistency}) {
        if (const auto failed = (in.*check)()) {
            return refuse(*failed);
        }
    }
    NestedImage& image = in.image;
    image.vmxon_pointer = in.vmxon_pointer;
    if (!in_vmx(image)) {
        return image;
    }
    image.vmcs12_pointer = in.vmcs12_pointer;
    image.evmcs = (in.flags & flag_evmcs) != 0;
    image.smm_guest_mode = (in.smm & smm_guest_mode) != 0;
    image.smm_vmxon = (in.smm & smm_vmxon) != 0;
    if (const auto failed = in.pointers()) {
        return refuse(*failed);
    }
    if (!in.payload()) {
        return image;
    }
    if (const auto failed = in.current()) {
        return refuse(*failed);
    }
    if (!in.guest_mode()) {
        return image;
    }
    image.guest_mode = true;
    image.run_pending = (in.flags & flag_run_pending) != 0;
    image.mtf_pending = (in.flags & flag_mtf_pending) != 0;
    if ((in.vmx_flags & vmx_deadline) != 0) {
        image.preemption_deadline = in.deadline;
    }
    if (const auto failed = in.shadow()) {
        return refuse(*failed);
    }
    if (auto failed = in.entry()) {
        return tl::unexpected(*failed);
    }
    return image;
}

NestedImage nested_image(const state::Nested& nested, const Vmcs& vmcs12, bool run_pending,
                         u64 tsc_offset) {
    NestedImage image;
    if (!nested.vmxon && !nested.smm.vmxon) {
        return image;
    }
    image.vmxon_pointer = nested.vmxon_pointer;
    image.vmcs12_pointer = nested.current;
    image.smm_vmxon = nested.smm.vmxon;
    image.smm_guest_mode = nested.smm.guest_mode;
    image.guest_mode = nested.guest_mode;
    image.run_pending = nested.guest_mode && run_pending;
    image.mtf_pending = nested.mtf_pending;
    if (nested.timer_deadline != NestedImage::none) {
        const u64 tsc = nested.timer_deadline + tsc_offset;
        image.preemption_deadline = (tsc + 31) >> deadline_shift;
    }
    if (nested.current != NestedImage::none) {
        image.vmcs12 = vmcs12;
    }
    return image;
}

state::Nested nested_state(const NestedImage& image, u64 tsc_offset) {
    state::Nested nested;
    nested.vmxon_pointer = image.vmxon_pointer;
    nested.vmxon = in_vmx(image) && !image.smm_vmxon;
    nested.current = image.vmcs12_pointer;
    nested.smm.vmxon = image.smm_vmxon;
    nested.smm.guest_mode = image.smm_guest_mode;
    nested.guest_mode = image.guest_mode;
    nested.mtf_pending = image.mtf_pending;
    if (image.preemption_deadline) {
        nested.timer_deadline = (*image.preemption_deadline << deadline_shift) - tsc_offset;
    }
    if (image.vmcs12) {
        nested.vmcs12 = *image.vmcs12;
    }
    return nested;
}

} // namespace nestor::hv
