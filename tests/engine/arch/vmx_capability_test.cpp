// What the VMX capability MSRs say (SDM 3D appendix A).
#include <gtest/gtest.h>

#include "engine/arch/vmcs_field.hpp"
#include "engine/arch/vmx_capability.hpp"
#include "engine/arch/vmx_error.hpp"

namespace nestor::arch {
namespace {

const VmxCapabilities all = vmx_capabilities(VmxModel{});
constexpr ControlWord words[] = {ControlWord::pin, ControlWord::proc, ControlWord::proc2,
                                 ControlWord::exit, ControlWord::entry};

TEST(VmxCapability, WhatMustBe1MayBe1) {
    for (const ControlWord word : words) {
        EXPECT_EQ(all.must_be_1(word) & ~all.may_be_1(word), 0u);
    }
    EXPECT_EQ(static_cast<u32>(all.pinbased_ctls) & ~static_cast<u32>(all.pinbased_ctls >> 32), 0u);
}

TEST(VmxCapability, TheFormsDifferInDefault1ControlsThatHaveAName) {
    // SDM 3D A.3.2, A.4, A.5: CR3-load and CR3-store exiting; save and load debug controls.
    EXPECT_EQ(all.procbased_ctls ^ all.true_procbased_ctls,
              u64{proc_control::cr3_load_exiting | proc_control::cr3_store_exiting});
    EXPECT_EQ(all.exit_ctls ^ all.true_exit_ctls, u64{exit_control::save_debug_controls});
    EXPECT_EQ(all.entry_ctls ^ all.true_entry_ctls, u64{entry_control::load_debug_controls});
    EXPECT_EQ(all.pinbased_ctls, all.true_pinbased_ctls);
}

TEST(VmxCapability, WithoutTrueFormsDefault1ControlsMustBe1) {
    VmxCapabilities old = all;
    old.basic &= ~vmx_basic::true_controls;
    EXPECT_EQ(old.must_be_1(ControlWord::proc), 0x0401e172u);
    EXPECT_EQ(all.must_be_1(ControlWord::proc), 0x04006172u);
    EXPECT_EQ(old.must_be_1(ControlWord::entry), 0x11ffu);
    EXPECT_EQ(all.must_be_1(ControlWord::entry), 0x11fbu);
    EXPECT_EQ(old.must_be_1(ControlWord::exit), 0x36dffu);
    EXPECT_EQ(all.must_be_1(ControlWord::exit), 0x36dfbu);
    EXPECT_EQ(all.must_be_1(ControlWord::pin), 0x16u);
    EXPECT_EQ(all.must_be_1(ControlWord::proc2), 0u);
}

TEST(VmxCapability, AControlFollowsTheFeatureItComesWith) {
    VmxModel model;
    model.xsaves = false;
    model.invpcid = false;
    model.gigabyte_pages = false;
    const VmxCapabilities less = vmx_capabilities(model);
    EXPECT_EQ(all.procbased_ctls2 ^ less.procbased_ctls2,
              u64{proc2_control::enable_xsaves | proc2_control::enable_invpcid} << 32);
    EXPECT_EQ(all.ept_vpid_cap ^ less.ept_vpid_cap, ept_vpid::page_1g);
}

TEST(VmxCapability, MsrsAreFoundByIndex) {
    ASSERT_NE(all.find(0x480), nullptr);
    EXPECT_EQ(*all.find(0x480), all.basic);
    EXPECT_EQ(*all.find(0x491), all.vmfunc);
    EXPECT_EQ(all.find(0x492), nullptr);
    EXPECT_EQ(all.find(0x47f), nullptr);
}

TEST(VmxCapability, BasicDescribesAPageOfWriteBackMemory) {
    EXPECT_EQ(bits(all.basic, 30, 0), 0x11e57ed0u);
    EXPECT_EQ(bits(all.basic, 44, 32), 4096u);
    EXPECT_EQ(bits(all.basic, 53, 50), 6u);
    EXPECT_EQ(bits(all.basic, 31, 31), 0u);
}

TEST(VmxCapability, TheHighestFieldIndexIsThatOfTheFieldsThatExist) {
    u64 highest = 0;
    const auto& rows = state::vmcs_rows<state::Vmcs>;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (vmcs_fields[i].exists(all)) {
            highest = std::max<u64>(highest, VmcsEncoding{rows[i].encoding}.index());
        }
    }
    EXPECT_EQ(bits(all.vmcs_enum, 9, 1), highest);
}

TEST(VmxCapability, ControlsAndErrorsHaveNames) {
    EXPECT_EQ(control_name(ControlWord::proc2, proc2_control::enable_ept), "enable_ept");
    EXPECT_EQ(control_name(ControlWord::proc2, 0x6), "enable_ept"); // the lowest
    EXPECT_EQ(control_name(ControlWord::pin, 2), "reserved");
    EXPECT_EQ(text_of(VmxError::invalid_controls), "VM entry with invalid control fields");
    EXPECT_EQ(text_of(VmxError{14}), "reserved");
}

} // namespace
} // namespace nestor::arch
