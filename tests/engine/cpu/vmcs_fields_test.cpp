// VMCS fields by encoding: every field's round trip, in the live struct and in a region.
#include <array>

#include <gtest/gtest.h>

#include "engine/cpu/vmcs_fields.hpp"
#include "engine/state/codec.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

const VmxCapabilities everything = vmx_capabilities(VmxModel{});
const auto& rows = state::vmcs_rows<state::Vmcs>;
constexpr u64 pattern = 0x8123456789abcdef;

u64 width_mask(const state::VmcsRow& row) {
    return row.size == 8 ? ~u64{0} : (u64{1} << (row.size * 8)) - 1;
}
bool is_rights(u32 encoding) { return encoding >= 0x4814 && encoding <= 0x4822; }
bool exists(const state::VmcsRow& row) { return field_of(row).exists(everything); }

TEST(VmcsFields, EveryFieldReadsBackWhatWasWrittenAndNoOtherChanges) {
    for (const state::VmcsRow& row : rows) {
        if (!exists(row)) {
            continue;
        }
        state::Vmcs vmcs;
        ASSERT_EQ(vmwrite(vmcs, row.encoding, pattern, everything, true), std::nullopt) << row.name;
        const u64 kept = pattern & width_mask(row) & (is_rights(row.encoding) ? 0x1f0ff : ~u64{0});
        EXPECT_EQ(vmread(vmcs, row.encoding, everything, true), kept) << row.name;
        EXPECT_EQ(state::diff(vmcs, state::Vmcs{}).size(), 1u) << row.name;
    }
}

TEST(VmcsFields, HighHalvesAreUpperHalvesOf64BitFieldsOnly) {
    for (const state::VmcsRow& row : rows) {
        if (!exists(row)) {
            continue;
        }
        state::Vmcs vmcs;
        const bool wide = VmcsEncoding{row.encoding}.width() == VmcsWidth::bits64;
        const auto error = vmwrite(vmcs, row.encoding | 1, 0xaabbccdd99887766, everything, true);
        EXPECT_EQ(error, wide ? std::nullopt : std::optional(VmxError::unsupported_component));
        if (wide) {
            EXPECT_EQ(vmread(vmcs, row.encoding, everything, true), u64{0x99887766} << 32)
                << row.name;
            EXPECT_EQ(vmread(vmcs, row.encoding | 1, everything, false), 0x99887766u) << row.name;
        }
    }
}

TEST(VmcsFields, Outside64BitModeOnlyLowHalvesMoveAndWritesClearTheUpper) {
    state::Vmcs vmcs;
    vmcs.guest_rip = ~u64{0};
    EXPECT_EQ(vmread(vmcs, 0x681e, everything, false), 0xffffffffu);
    EXPECT_EQ(vmwrite(vmcs, 0x681e, pattern, everything, false), std::nullopt);
    EXPECT_EQ(vmcs.guest_rip, static_cast<u32>(pattern));
    vmcs.tsc_offset = ~u64{0};
    EXPECT_EQ(vmwrite(vmcs, 0x2010, 5, everything, false), std::nullopt);
    EXPECT_EQ(vmcs.tsc_offset, 5u);
}

TEST(VmcsFields, EncodingsWithoutAFieldDoNotExist) {
    state::Vmcs vmcs;
    unsigned found = 0;
    for (u32 encoding = 0; encoding < 0x10000; ++encoding) {
        const state::VmcsRow* row = vmcs_row(encoding);
        const bool wide = VmcsEncoding{encoding}.width() == VmcsWidth::bits64;
        const bool expected =
            encoding < 0x8000 && row != nullptr && exists(*row) && ((encoding & 1) == 0 || wide);
        EXPECT_EQ(vmread(vmcs, encoding, everything, true).has_value(), expected)
            << std::hex << encoding;
        EXPECT_EQ(region_place(encoding, everything).has_value(), expected) << std::hex << encoding;
        found += expected ? 1 : 0;
    }
    EXPECT_GT(found, 150u);
    EXPECT_EQ(vmread(vmcs, 0x8000681e, everything, true), std::nullopt);
    EXPECT_EQ(vmread(vmcs, 0x7800, everything, true), std::nullopt);
}

TEST(VmcsFields, AFieldGoesWithTheControlItIsFor) {
    VmxCapabilities without_ept = everything;
    without_ept.procbased_ctls2 &= ~(u64{proc2_control::enable_ept} << 32);
    state::Vmcs vmcs;
    EXPECT_TRUE(vmread(vmcs, 0x201a, everything, true));
    EXPECT_FALSE(vmread(vmcs, 0x201a, without_ept, true)); // EPT pointer
    EXPECT_FALSE(vmread(vmcs, 0x2400, without_ept, true)); // guest-physical address
    EXPECT_TRUE(vmread(vmcs, 0x681e, without_ept, true));
    EXPECT_EQ(vmwrite(vmcs, 0x201a, 1, without_ept, true), VmxError::unsupported_component);
}

TEST(VmcsFields, ReadOnlyFieldsAreWrittenWhereMiscSaysSo) {
    VmxCapabilities strict = everything;
    strict.misc &= ~vmx_misc::vmwrite_any;
    state::Vmcs vmcs;
    EXPECT_EQ(vmwrite(vmcs, 0x4402, 7, strict, true), VmxError::read_only_component);
    EXPECT_EQ(vmcs.vm_exit_reason, 0u);
    EXPECT_EQ(vmwrite(vmcs, 0x4402, 7, everything, true), std::nullopt);
    EXPECT_EQ(vmcs.vm_exit_reason, 7u);
}

TEST(VmcsFields, ARegionHoldsEveryFieldThatExistsAndTheLaunchState) {
    state::Vmcs vmcs;
    u64 value = 0;
    for (const state::VmcsRow& row : rows) {
        if (exists(row)) {
            value = value * 0x9e3779b97f4a7c15 + 0x1234567;
            ASSERT_EQ(vmwrite(vmcs, row.encoding, value, everything, true), std::nullopt);
        }
    }
    vmcs.launch_state = true;
    std::array<u8, page_size> region;
    region.fill(0xee);
    write_region(vmcs, region);
    EXPECT_EQ(read_region(region), vmcs);
    EXPECT_EQ(region_revision(region), 0xeeeeeeeeu);
    EXPECT_EQ(region[page_size - 1], 0xee);
}

TEST(VmcsFields, ARegionIsLaidOutAsLinuxDoes) {
    state::Vmcs vmcs;
    vmcs.io_bitmap_a = 0x1122334455667788;
    vmcs.guest_rip = 0xfeedface;
    vmcs.vmx_preemption_timer_value = 0x01020304;
    vmcs.pml_index = 0x1ff;
    std::array<u8, page_size> region{};
    write_region(vmcs, region);
    EXPECT_EQ(region[40], 0x88);
    EXPECT_EQ(region[544], 0xce);
    EXPECT_EQ(region[928], 0x04);
    EXPECT_EQ(region[996], 0xff);
    EXPECT_EQ(region[997], 0x01);
}

TEST(VmcsFields, PlacesInARegionAreThoseThatReadingUses) {
    for (const state::VmcsRow& row : rows) {
        const auto place = region_place(row.encoding, everything);
        if (!place) {
            continue;
        }
        std::array<u8, page_size> region{};
        std::fill_n(region.begin() + place->offset, place->size, u8{0x5a});
        const state::Vmcs vmcs = read_region(region);
        EXPECT_EQ(vmread(vmcs, row.encoding, everything, true),
                  0x5a5a5a5a5a5a5a5a & width_mask(row))
            << row.name;
        if (const auto high = region_place(row.encoding | 1, everything)) {
            EXPECT_EQ(high->offset, place->offset + 4);
            EXPECT_EQ(high->size, 4);
        }
    }
}

} // namespace
} // namespace nestor::cpu
