// Nested state in Linux's layout: round trips, and every check of KVM_SET_NESTED_STATE in its
// order.
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <set>

#include <gtest/gtest.h>

#include "engine/hypervisor/nested_layout.hpp"
#include "engine/state/codec.hpp"
#include "tests/engine/cpu/entry_fixture.hpp"

namespace nestor::hv {
namespace {

using namespace arch;
using cpu::ValidEntry;

/// What is imported: bytes and the vCPU that they are for.
struct Case {
    std::vector<u8> bytes;
    NestedTarget target;

    template <class T>
    void put(std::size_t offset, T value) {
        std::memcpy(bytes.data() + offset, &value, sizeof value);
    }
    template <class T>
    [[nodiscard]] T get(std::size_t offset) const {
        T value;
        std::memcpy(&value, bytes.data() + offset, sizeof value);
        return value;
    }
    [[nodiscard]] auto import() const { return import_nested(bytes, target); }
};

constexpr std::size_t flags = 0, format = 2, size = 4, vmxon = 8, vmcs12 = 16, smm = 24,
                      vmx_flags = 28, payload = 128, shadow = 128 + 4096;

NestedImage l2_image() {
    NestedImage image;
    image.vmxon_pointer = 0x1000;
    image.vmcs12_pointer = 0x2000;
    image.guest_mode = true;
    image.run_pending = true;
    image.mtf_pending = true;
    image.preemption_deadline = 0x123456789;
    image.vmcs12 = cpu::valid_entry(ValidEntry::everything).v;
    image.vmcs12->launch_state = true;
    image.shadow_vmcs12 = cpu::valid_entry(ValidEntry::long64).v;
    return image;
}

Case case_of(const NestedImage& image) {
    Case c;
    c.bytes.resize(nested_image_size(image));
    EXPECT_TRUE(export_nested(image, c.bytes));
    c.target.entry = cpu::valid_entry(ValidEntry::everything).c;
    c.target.evmcs_enabled = true;
    return c;
}

Case l2_case() { return case_of(l2_image()); }
/// VMX operation without a current VMCS.
Case vmxon_case() {
    NestedImage image;
    image.vmxon_pointer = 0x1000;
    return case_of(image);
}
Case off_case() { return case_of(NestedImage{}); }
Case in_smm_case() {
    NestedImage image;
    image.vmxon_pointer = 0x1000;
    image.vmcs12_pointer = 0x2000;
    image.smm_vmxon = image.smm_guest_mode = true;
    image.vmcs12 = l2_image().vmcs12;
    Case c = case_of(image);
    c.target.entry.in_smm = true;
    return c;
}

TEST(NestedLayout, AnActiveL2ComesBackAsItWas) {
    const auto image = l2_case().import();
    ASSERT_TRUE(image) << image.error().text;
    EXPECT_EQ(*image, l2_image());
}

TEST(NestedLayout, EveryOtherStateComesBackToo) {
    NestedImage image;
    EXPECT_EQ(*case_of(image).import(), image);
    image.vmxon_pointer = 0x1000;
    EXPECT_EQ(*case_of(image).import(), image);
    image.vmcs12_pointer = 0x2000;
    image.vmcs12 = state::Vmcs{};
    image.vmcs12->guest_rip = 5;
    EXPECT_EQ(*case_of(image).import(), image);
    EXPECT_TRUE(in_smm_case().import());
    image = l2_image();
    image.evmcs = true;
    image.vmcs12_pointer = NestedImage::none;
    EXPECT_EQ(*case_of(image).import(), image);
}

TEST(NestedLayout, TheHeaderIsWhereLinuxHasIt) {
    const Case c = l2_case();
    EXPECT_EQ(c.bytes.size(), 128u + 2 * 4096);
    EXPECT_EQ(c.get<u16>(flags), 1 | 2 | 8);
    EXPECT_EQ(c.get<u16>(format), 0);
    EXPECT_EQ(c.get<u32>(size), 128u + 2 * 4096);
    EXPECT_EQ(c.get<u64>(vmxon), 0x1000u);
    EXPECT_EQ(c.get<u64>(vmcs12), 0x2000u);
    EXPECT_EQ(c.get<u16>(smm), 0);
    EXPECT_EQ(c.get<u32>(vmx_flags), 1u);
    EXPECT_EQ(c.get<u64>(32), 0x123456789u);
    EXPECT_EQ(c.get<u32>(payload), 0x11e57ed0u);
    EXPECT_EQ(c.get<u32>(payload + 8), 1u); // launched
    EXPECT_EQ(c.get<u64>(payload + 544), l2_image().vmcs12->guest_rip);
    EXPECT_EQ(c.get<u32>(shadow), 0x91e57ed0u);
    EXPECT_EQ(off_case().get<u64>(vmxon), ~u64{0});
    EXPECT_EQ(off_case().get<u64>(vmcs12), ~u64{0});
}

TEST(NestedLayout, ABufferThatIsTooSmallIsLeftAlone) {
    const NestedImage image = l2_image();
    std::vector<u8> buffer(nested_image_size(image) - 1, 0xee);
    EXPECT_FALSE(export_nested(image, buffer));
    EXPECT_EQ(buffer, std::vector<u8>(buffer.size(), 0xee));
}

TEST(NestedLayout, LinuxsOwn998BytesAreEnough) {
    Case c = l2_case();
    c.bytes.resize(shadow + 998);
    c.put(size, static_cast<u32>(c.bytes.size()));
    ASSERT_TRUE(c.import());
}

TEST(NestedLayout, AnEventThatWasInjectedLongAgoDoesNotCount) {
    NestedImage image = l2_image();
    image.vmcs12->vm_entry_intr_info = cpu::inject(0, 0x30);
    image.vmcs12->guest_rflags = 2; // IF is 0 by now
    const auto refused = case_of(image).import();
    ASSERT_FALSE(refused);
    ASSERT_TRUE(refused.error().entry);
    EXPECT_EQ(refused.error().entry->id, cpu::EntryCheckId::rflags_if);
    image.run_pending = false;
    EXPECT_TRUE(case_of(image).import());
}

// --- the checks, in order -----------------------------------------------------------------------

struct Break {
    NestedCheck check;
    Case (*from)();
    void (*apply)(Case& c);
};

const Break breaks[] = {
    {NestedCheck::header_read, l2_case, [](Case& c) { c.bytes.resize(127); }},
    {NestedCheck::size_covers_header, l2_case, [](Case& c) { c.put<u32>(size, 127); }},
    {NestedCheck::flags_known, l2_case, [](Case& c) { c.put<u16>(flags, 0x13); }},
    {NestedCheck::run_pending_in_guest, l2_case, [](Case& c) { c.put<u16>(flags, 2); }},
    {NestedCheck::format, l2_case, [](Case& c) { c.put<u16>(format, 1); }},
    {NestedCheck::off_smm_flags, off_case, [](Case& c) { c.put<u16>(smm, 2); }},
    {NestedCheck::off_vmcs12, off_case, [](Case& c) { c.put<u64>(vmcs12, 0x2000); }},
    {NestedCheck::off_flags, off_case, [](Case& c) { c.put<u16>(flags, 1); }},
    {NestedCheck::vmx_allowed, l2_case, [](Case& c) { c.target.vmx_allowed = false; }},
    {NestedCheck::vmxon_page, l2_case, [](Case& c) { c.put<u64>(vmxon, 0x1001); }},
    {NestedCheck::vmxon_page, l2_case, [](Case& c) { c.put<u64>(vmxon, bit(46)); }},
    {NestedCheck::smm_guest_or_guest, l2_case, [](Case& c) { c.put<u16>(smm, 3); }},
    {NestedCheck::smm_flags_known, l2_case, [](Case& c) { c.put<u16>(smm, 4); }},
    {NestedCheck::header_flags_known, l2_case, [](Case& c) { c.put<u32>(vmx_flags, 2); }},
    {NestedCheck::smm_consistent, l2_case, [](Case& c) { c.target.entry.in_smm = true; }},
    {NestedCheck::smm_consistent, l2_case, [](Case& c) { c.put<u16>(smm, 2); }},
    {NestedCheck::smm_guest_needs_vmxon, in_smm_case, [](Case& c) { c.put<u16>(smm, 1); }},
    {NestedCheck::evmcs_allowed, l2_case,
     [](Case& c) {
         c.put<u16>(flags, 7);
         c.target.evmcs_enabled = false;
     }},
    {NestedCheck::payload_missing, l2_case, [](Case& c) { c.put<u32>(size, 128 + 997); }},
    {NestedCheck::payload_missing, vmxon_case, [](Case& c) { c.put<u64>(vmcs12, 0x2000); }},
    {NestedCheck::payload_missing, vmxon_case, [](Case& c) { c.put<u16>(flags, 4); }},
    {NestedCheck::vmcs12_pointer, l2_case, [](Case& c) { c.put<u64>(vmcs12, 0x1000); }},
    {NestedCheck::vmcs12_pointer, l2_case, [](Case& c) { c.put<u64>(vmcs12, 0x2001); }},
    {NestedCheck::vmcs12_unnamed, l2_case, [](Case& c) { c.put<u64>(vmcs12, ~u64{0}); }},
    {NestedCheck::vmcs12_read, l2_case, [](Case& c) { c.bytes.resize(payload + 997); }},
    {NestedCheck::vmcs12_revision, l2_case, [](Case& c) { c.bytes[payload] ^= 1; }},
    {NestedCheck::shadow_size, l2_case, [](Case& c) { c.put<u32>(size, shadow + 997); }},
    {NestedCheck::shadow_read, l2_case, [](Case& c) { c.bytes.resize(shadow + 997); }},
    {NestedCheck::shadow_header, l2_case, [](Case& c) { c.bytes[shadow] ^= 1; }},
    {NestedCheck::shadow_header, l2_case, [](Case& c) { c.bytes[shadow + 3] ^= 0x80; }},
    {NestedCheck::controls, l2_case, [](Case& c) { c.put<u16>(payload + 960, 0); }}, // VPID
    {NestedCheck::host_state, l2_case, [](Case& c) { c.put<u16>(payload + 984, 0); }},
    {NestedCheck::guest_state, l2_case, [](Case& c) { c.put<u64>(payload + 552, 0); }},
};

int error_of(NestedCheck check) {
    return check == NestedCheck::header_read || check == NestedCheck::vmcs12_read ||
                   check == NestedCheck::shadow_read
               ? EFAULT
               : EINVAL;
}

TEST(NestedLayout, EveryCheckCanBeBroken) {
    std::set<NestedCheck> broken;
    for (const Break& b : breaks) {
        broken.insert(b.check);
    }
    EXPECT_EQ(broken.size(), static_cast<std::size_t>(NestedCheck::guest_state) + 1);
}

TEST(NestedLayout, ABrokenCheckIsTheOneThatRefuses) {
    for (const Break& b : breaks) {
        Case c = b.from();
        ASSERT_TRUE(c.import());
        b.apply(c);
        const auto refused = c.import();
        ASSERT_FALSE(refused) << static_cast<int>(b.check);
        EXPECT_EQ(static_cast<int>(refused.error().check), static_cast<int>(b.check))
            << refused.error().text;
        EXPECT_EQ(refused.error().error, error_of(b.check));
        EXPECT_EQ(refused.error().entry.has_value(), b.check >= NestedCheck::controls);
    }
}

TEST(NestedLayout, TheEarlierOfTwoBrokenChecksRefuses) {
    unsigned pairs = 0;
    for (const Break& early : breaks) {
        for (const Break& late : breaks) {
            if (early.from != l2_case || late.from != l2_case || early.check >= late.check) {
                continue;
            }
            Case c = l2_case();
            late.apply(c);
            if (early.check == NestedCheck::header_read || c.bytes.size() < shadow + 4096) {
                continue; // cut short: nothing else can be broken there
            }
            early.apply(c);
            const auto refused = c.import();
            ASSERT_FALSE(refused);
            // A break may overwrite the field of the other one, never a later check go first.
            EXPECT_LE(static_cast<int>(refused.error().check), static_cast<int>(early.check))
                << refused.error().text;
            ++pairs;
        }
    }
    EXPECT_GT(pairs, 250u);
}

TEST(NestedLayout, OutsideVmxOperationTheRestIsNotLookedAt) {
    Case c = off_case();
    c.put<u16>(flags, 4); // EVMCS alone: asks for the capability
    EXPECT_TRUE(c.import());
    c.put<u32>(vmx_flags, 2);
    const auto refused = c.import();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().check, NestedCheck::header_flags_known);
}

// --- state units --------------------------------------------------------------------------------

TEST(NestedLayout, AStateUnitComesBackFromItsImage) {
    state::Nested nested;
    nested.vmxon = true;
    nested.vmxon_pointer = 0x1000;
    nested.current = 0x2000;
    nested.vmcs12 = *l2_image().vmcs12;
    nested.guest_mode = true;
    nested.mtf_pending = true;
    nested.timer_deadline = 64 * 5 + 7;
    const u64 offset = 32 * 100 - 7;
    const NestedImage image = nested_image(nested, nested.vmcs12, false, offset);
    EXPECT_EQ(image.preemption_deadline, 110u);
    EXPECT_TRUE(state::diff(nested_state(image, offset), nested).empty());
}

TEST(NestedLayout, AVcpuOutsideVmxOperationHasAnEmptyImage) {
    EXPECT_EQ(nested_image(state::Nested{}, state::Vmcs{}, false, 0), NestedImage{});
    EXPECT_EQ(nested_state(NestedImage{}, 0), state::Nested{});
}

TEST(NestedLayout, InSmmVmxOperationIsRemembered) {
    const auto image = in_smm_case().import();
    ASSERT_TRUE(image);
    const state::Nested nested = nested_state(*image, 0);
    EXPECT_FALSE(nested.vmxon);
    EXPECT_TRUE(nested.smm.vmxon && nested.smm.guest_mode);
    EXPECT_EQ(nested_image(nested, nested.vmcs12, false, 0), *image);
}

} // namespace
} // namespace nestor::hv
