// EPT: translation, rights, violations, misconfigurations, accessed and dirty flags, the
// page-modification log, #VE, mode-based execute control, coherence (SDM 3C 29.3).
#include "tests/engine/cpu/vmx_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

constexpr u64 r = 1, w = 2, x = 4, user_x = 1 << 10, accessed = 1 << 8, dirty = 1 << 9;
constexpr u64 other_page = 0x40000; ///< L1's page behind a guest-physical page

class EptTest : public VmxTest {
protected:
    EptTest() {
        proc2(proc2_control::enable_ept);
        cpu.s.gpr[0] = data;
    }
    void map_data(u64 rights, u64 page = data) { map(data, page | rights | write_back); }
    void expect_violation(u64 qualification, u64 guest_physical) {
        expect_exit(ExitReason::ept_violation, qualification);
        EXPECT_EQ(cpu.exit.guest_physical, guest_physical);
    }
};

/// Rights of the entry, kind of access (read, write, fetch), accessed and dirty flags, CPL 3.
class EptRights : public EptTest,
                  public ::testing::WithParamInterface<std::tuple<u64, int, bool, bool>> {};

} // namespace

TEST_F(EptTest, GuestPhysicalAddressesAreTranslated) {
    map_data(all_rights, other_page);
    write(other_page, u64{0x1122334455667788});
    run_guest({0x48, 0x8b, 0x18, 0xf4}); // mov rbx, [rax]
    EXPECT_TRUE(halted());
    EXPECT_EQ(cpu.s.gpr[3], 0x1122334455667788u);
}

TEST_F(EptTest, WritesReachThePageBehind) {
    map_data(all_rights, other_page);
    cpu.s.gpr[3] = 0xab;
    run_guest({0x48, 0x89, 0x18, 0xf4});
    EXPECT_EQ(read<u64>(other_page), 0xabu);
    EXPECT_EQ(read<u64>(data), 0u);
}

TEST_F(EptTest, WithoutPagingLinearIsGuestPhysical) {
    protected_mode();
    cpu.s.gpr[0] = data;
    map_data(all_rights, other_page);
    write(other_page, u32{77});
    run_guest({0x8b, 0x18, 0xf4});
    EXPECT_EQ(cpu.s.gpr[3], 77u);
}

TEST_F(EptTest, NotPresentEntryIsAViolationWithoutRights) {
    map_data(0);
    cpu.s.gpr[0] = data + 0x123;
    run_guest({0x8a, 0x18}); // mov bl, [rax]
    expect_violation(0x181, data + 0x123);
    EXPECT_EQ(cpu.exit.guest_linear, data + 0x123);
    EXPECT_EQ(cpu.exit.instruction_length, 2u);
    EXPECT_EQ(cpu.s.rip, code);
    EXPECT_NE(cpu.s.rflags & rflags::rf, 0u);
}

// SDM 3C 29.3.3.2: bit 1 always; bit 0 is the implementation's choice, and clear here.
TEST_F(EptTest, ReadModifyWriteIsAWriteWhateverIsMissing) {
    static constexpr std::initializer_list<int> forms[] = {
        {0x01, 0x08},                   // add [rax], ecx
        {0xfe, 0x00},                   // inc byte [rax]
        {0x48, 0xf7, 0x18},             // neg qword [rax]
        {0xd1, 0x20},                   // shl dword [rax], 1
        {0x0f, 0xa4, 0x08, 0x03},       // shld [rax], ecx, 3
        {0x87, 0x08},                   // xchg [rax], ecx
        {0xf0, 0x0f, 0xc1, 0x08},       // lock xadd [rax], ecx
        {0x0f, 0xb1, 0x08},             // cmpxchg [rax], ecx: writes back what it found
        {0xf0, 0x48, 0x0f, 0xc7, 0x08}, // lock cmpxchg16b [rax]
        {0xf0, 0x0f, 0xab, 0x08},       // lock bts [rax], ecx
    };
    for (const auto& form : forms) {
        for (const u64 rights : {u64{0}, u64{r}, r | x}) {
            map_data(rights);
            cpu.s.rip = code;
            run_guest(form);
            expect_violation(0x182 | rights << 3, data);
            EXPECT_EQ(cpu.s.rip, code);
        }
    }
    map_data(0);
    cpu.s.rip = code;
    run_guest({0x39, 0x08}); // cmp [rax], ecx
    expect_violation(0x181, data);
}

TEST_F(EptTest, FetchViolationSaysExecute) {
    map(code, code | r | w | write_back);
    run_guest({0x90});
    expect_violation(0x19c, code);
}

TEST_F(EptTest, PagingStructureViolationIsNotOfTheTranslation) {
    map(tables + 0x1000, 0);
    run_guest({0x90});
    expect_violation(0x81, tables + 0x1000);
    EXPECT_EQ(cpu.exit.guest_linear, code);
}

TEST_F(EptTest, SettingAnAccessedBitNeedsWriteRights) {
    map(tables, tables | r | write_back);
    run_guest({0x90});
    expect_violation(0x8b, tables);
}

TEST_F(EptTest, PagingStructuresAreWrittenWithAccessedAndDirtyFlags) {
    vmcs.ept_pointer |= 1 << 6;
    for (u64 i = 0; i < 512; ++i) {
        write(tables + i * 8, read<u64>(tables + i * 8) | pte::a);
    }
    map(tables, tables | r | write_back);
    run_guest({0x90});
    expect_violation(0x8b, tables);
}

TEST_F(EptTest, LargePagesTranslate) {
    write(ept_pd, u64{0x200000} | all_rights | write_back | large);
    // Guest-physical 0 is now L1's 2 MiB, with a copy of the guest there.
    std::copy(ram_.begin(), ram_.begin() + 0x100000, ram_.begin() + 0x200000);
    poke(0x200000 + code, {0x8a, 0x18, 0xf4});
    write(0x200000 + data, u8{0x5a});
    enter();
    stop = cpu.run(0, 100);
    EXPECT_TRUE(halted());
    EXPECT_EQ(cpu.s.gpr[3], 0x5au);
}

TEST_F(EptTest, GigabytePagesTranslate) {
    write(ept_pdpt, u64{0} | all_rights | write_back | large);
    write(data, u8{0x5b});
    run_guest({0x8a, 0x18, 0xf4});
    EXPECT_EQ(cpu.s.gpr[3], 0x5bu);
}

TEST_F(EptTest, ViolationDuringDeliveryHasIdtVectoring) {
    map(stack_top - 0x1000, 0); // the page below the stack's top
    inject(0x41);
    run_guest({0x90});
    expect_exit(ExitReason::ept_violation, 0x182);
    EXPECT_EQ(cpu.exit.idt_vectoring_info, 1u << 31 | 0x41);
}

TEST_F(EptTest, ViolationOfIretTellsThatNmisAreUnblocked) {
    map(stack_top, 0);
    cpu.s.blocking_by_nmi = true;
    run_guest({0x48, 0xcf});
    expect_violation(0x1181, stack_top);
    EXPECT_FALSE(cpu.s.blocking_by_nmi);
}

TEST_F(EptTest, PdpteLoadHasNoLinearAddress) {
    protected_mode();
    cpu.s.cr0 |= cr0::ne;
    cpu.s.cr4 = cr4::pae | cr4::vmxe;
    map(0x30000, 0);
    cpu.s.cr3 = 0x30000;
    cpu.s.gpr[0] = cpu.s.cr0 | cr0::pg;
    run_guest({0x0f, 0x22, 0xc0});
    expect_violation(1, 0x30000);
}

// --- every permission against every access ------------------------------------------------------

TEST_P(EptRights, DecideWhatAnAccessMay) {
    const auto [rights, kind, flags, user] = GetParam();
    if (user) {
        long_mode(3);
        cpu.s.gpr[0] = data;
    }
    vmcs.ept_pointer |= flags ? 1 << 6 : 0;
    map_data(rights);
    write(data, u8{0xf4});
    // At CPL 3 HLT ends in the handler of #GP, which halts too.
    if (kind == 0) {
        run_guest({0x8a, 0x18, 0xf4});
    } else if (kind == 1) {
        run_guest({0x88, 0x18, 0xf4});
    } else {
        run_guest({0xff, 0xe0}); // jmp rax
    }
    const bool allowed = (rights >> kind & 1) != 0;
    const u64 leaf = read<u64>(leaf_of(data));
    EXPECT_EQ(leaf & accessed, flags && allowed ? accessed : 0);
    EXPECT_EQ(leaf & dirty, flags && allowed && kind == 1 ? dirty : 0);
    if (allowed) {
        EXPECT_TRUE(halted());
    } else {
        expect_violation((u64{1} << kind) | rights << 3 | 0x180, data);
    }
}

INSTANTIATE_TEST_SUITE_P(Vmx, EptRights,
                         ::testing::Combine(::testing::Values(0, 1, 3, 4, 5, 7),
                                            ::testing::Range(0, 3), ::testing::Bool(),
                                            ::testing::Bool()));

// --- misconfigurations --------------------------------------------------------------------------

namespace {
class EptMisconfiguration : public EptTest, public ::testing::WithParamInterface<u64> {};
} // namespace

TEST_P(EptMisconfiguration, OfALeafExits) {
    map(data, data | GetParam());
    run_guest({0x8a, 0x18});
    expect_exit(ExitReason::ept_misconfiguration);
    EXPECT_EQ(cpu.exit.guest_physical, data);
}

INSTANTIATE_TEST_SUITE_P(Vmx, EptMisconfiguration,
                         ::testing::Values(w | 6 << 3, w | x | 6 << 3, r | 2 << 3, r | 3 << 3,
                                           r | 7 << 3, r | 6 << 3 | u64{1} << 50));

TEST_F(EptTest, ReservedBitsOfATableEntryAreAMisconfiguration) {
    write(ept_pd, ept_pt | all_rights | 1 << 4);
    run_guest({0x90});
    expect_exit(ExitReason::ept_misconfiguration);
}

// --- accessed and dirty flags, the log ----------------------------------------------------------

TEST_F(EptTest, ReadSetsAccessedOnly) {
    vmcs.ept_pointer |= 1 << 6;
    run_guest({0x8a, 0x18, 0xf4});
    EXPECT_EQ(read<u64>(leaf_of(data)) & (accessed | dirty), accessed);
    EXPECT_NE(read<u64>(ept) & accessed, 0u);
}

TEST_F(EptTest, WriteAfterAReadSetsDirty) {
    vmcs.ept_pointer |= 1 << 6;
    run_guest({0x8a, 0x18, 0x88, 0x18, 0xf4});
    EXPECT_EQ(read<u64>(leaf_of(data)) & (accessed | dirty), accessed | dirty);
}

TEST_F(EptTest, FlagsAreNotUsedWithoutTheirBit) {
    run_guest({0x88, 0x18, 0xf4});
    EXPECT_EQ(read<u64>(leaf_of(data)) & (accessed | dirty), 0u);
}

TEST_F(EptTest, WritesAreLoggedOnce) {
    vmcs.ept_pointer |= 1 << 6;
    proc2(proc2_control::enable_pml);
    map(tables, read<u64>(leaf_of(tables)) | dirty);
    map(tables + 0x1000, read<u64>(leaf_of(tables + 0x1000)) | dirty);
    map(tables + 0x2000, read<u64>(leaf_of(tables + 0x2000)) | dirty);
    run_guest({0x88, 0x18, 0x88, 0x58, 0x08, 0xf4});
    EXPECT_TRUE(halted());
    store_controls(cpu, vmcs);
    EXPECT_EQ(vmcs.pml_index, 510);
    EXPECT_EQ(read<u64>(pml + 511 * 8), data);
}

TEST_F(EptTest, FullLogExitsBeforeTheWrite) {
    vmcs.ept_pointer |= 1 << 6;
    proc2(proc2_control::enable_pml);
    for (const u64 table : {tables, tables + 0x1000, tables + 0x2000}) {
        map(table, read<u64>(leaf_of(table)) | dirty);
    }
    vmcs.pml_index = 0xffff;
    cpu.s.gpr[3] = 0x77;
    run_guest({0x88, 0x18});
    expect_exit(ExitReason::page_modification_log_full);
    EXPECT_EQ(read<u8>(data), 0u);
    EXPECT_EQ(read<u64>(leaf_of(data)) & dirty, 0u);
}

// --- mode-based execute control, execute-only ----------------------------------------------------

TEST_F(EptTest, UserExecutionHasItsOwnRight) {
    proc2(proc2_control::mode_based_execute);
    // All pages of the fixture are user pages.
    for (u64 i = 0; i < 512; ++i) {
        write(ept_pt + i * 8, i << page_shift | r | w | x | write_back);
    }
    for (const u64 entry : {ept, ept_pdpt, ept_pd}) {
        write(entry, read<u64>(entry) | user_x);
    }
    run_guest({0x90});
    expect_violation(0x184 | (r | w | x) << 3, code);
    map(code, code | r | w | user_x | write_back);
    run_guest({0xf4});
    EXPECT_TRUE(halted());
}

// --- #VE ----------------------------------------------------------------------------------------

TEST_F(EptTest, ConvertibleViolationIsAnException) {
    proc2(proc2_control::ept_violation_ve);
    map_data(0);
    vmcs.eptp_index = 3;
    run_guest({0x8a, 0x18});
    EXPECT_EQ(reached(), 20);
    EXPECT_EQ(read<u32>(ve_area), 48u);
    EXPECT_EQ(read<u32>(ve_area + 4), 0xffffffffu);
    EXPECT_EQ(read<u64>(ve_area + 8), 0x181u);
    EXPECT_EQ(read<u64>(ve_area + 16), data);
    EXPECT_EQ(read<u64>(ve_area + 24), data);
    EXPECT_EQ(read<u16>(ve_area + 32), 3u);
}

TEST_F(EptTest, AVeWhoseFrameWaitsForAPageIsMetAgain) {
    proc2(proc2_control::ept_violation_ve);
    map_data(0);
    memory_.set_state(gfn_of(Gpa(stack_top - 8)), page_state::absent);
    run_guest({0x8a, 0x18});
    EXPECT_EQ(stop, Cpu::Stop::page_needed);
    EXPECT_EQ(read<u32>(ve_area + 4), 0u);
    state_[(stack_top - 8) >> page_shift] = 0;
    stop = cpu.run(0, 100);
    EXPECT_EQ(reached(), 20);
    EXPECT_EQ(read<u32>(ve_area + 4), 0xffffffffu);
}

TEST_F(EptTest, BusyInformationAreaMeansAnExit) {
    proc2(proc2_control::ept_violation_ve);
    map_data(0);
    write(ve_area + 4, u32{1});
    run_guest({0x8a, 0x18});
    expect_violation(0x181, data);
}

TEST_F(EptTest, SuppressBitMeansAnExit) {
    proc2(proc2_control::ept_violation_ve);
    map(data, u64{1} << 63);
    run_guest({0x8a, 0x18});
    expect_violation(0x181, data);
}

// --- coherence ----------------------------------------------------------------------------------

TEST_F(EptTest, ChangedEntryIsSeenByTheNextAccess) {
    map_data(all_rights, data);
    write(data, u8{1});
    write(other_page, u8{2});
    run_guest({0x8a, 0x18, 0xf4});
    EXPECT_EQ(cpu.s.gpr[3], 1u);
    map_data(all_rights, other_page); // L1 on another processor; no INVEPT
    cpu.s.activity = state::ActivityState::active;
    cpu.s.rip = code;
    stop = cpu.run(50, 100);
    EXPECT_EQ(cpu.s.gpr[3], 2u);
}

TEST_F(EptTest, FilledInEntryNeedsNoFlush) {
    map_data(0);
    run_guest({0x8a, 0x18, 0xf4});
    EXPECT_EQ(stop, Cpu::Stop::exit);
    map_data(all_rights);
    stop = cpu.run(50, 100);
    EXPECT_TRUE(halted());
}

TEST_F(EptTest, GuestTableChangeIsSeenToo) {
    write(data, u8{1});
    write(0x200000 + data, u8{9});
    run_guest({0x8a, 0x18, 0xf4});
    EXPECT_EQ(cpu.s.gpr[3], 1u);
    write(tables + 0x2000, u64{0x200087}); // linear 0 is now guest-physical 2 MiB
    poke(0x200000 + code, {0x8a, 0x18, 0xf4});
    cpu.s.activity = state::ActivityState::active;
    cpu.s.rip = code;
    stop = cpu.run(50, 100);
    EXPECT_EQ(cpu.s.gpr[3], 9u);
}

TEST_F(EptTest, AbsentEptPageIsPageNeeded) {
    memory_.set_state(gfn_of(Gpa(ept_pt)), page_state::absent);
    run_guest({0x90});
    EXPECT_EQ(stop, Cpu::Stop::page_needed);
    EXPECT_EQ(cpu.wanted_page, ept_pt >> page_shift);
    EXPECT_EQ(cpu.retired_in_run(), 0u);
}

// --- two guests, one processor ------------------------------------------------------------------

namespace {

/// L0's own guest and the nested one take turns, with the same registers.
class TwoGuests : public EptTest {
protected:
    u8 read_as(bool nested) {
        if (nested) {
            set_controls(cpu, vmcs, nullptr);
        } else {
            const OwnPages own;
            set_controls(cpu, state::Vmcs{}, &own);
        }
        cpu.s.activity = state::ActivityState::active;
        cpu.s.rip = code;
        cpu.s.gpr[3] = 0;
        cpu.transition();
        stop = cpu.run(count_, 100);
        count_ += cpu.retired_in_run();
        EXPECT_TRUE(halted());
        return static_cast<u8>(cpu.s.gpr[3]);
    }
    void SetUp() override {
        poke(code, {0x8a, 0x18, 0xf4}); // mov bl, [rax]
        write(data, u8{1});
        write(other_page, u8{2});
        write(other_page + 0x1000, u8{3});
        map_data(all_rights, other_page);
    }
    u64 count_ = 0;
};

} // namespace

TEST_F(TwoGuests, SeeTheirOwnMemory) {
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(read_as(false), 1);
        EXPECT_EQ(read_as(true), 2);
    }
}

TEST_F(TwoGuests, EptChangedWhileTheOtherRunsIsSeen) {
    EXPECT_EQ(read_as(true), 2);
    EXPECT_EQ(read_as(false), 1);
    map_data(all_rights, other_page + 0x1000);
    EXPECT_EQ(read_as(true), 3);
}

TEST_F(TwoGuests, PageTableChangedWhileTheOtherRunsIsSeen) {
    write(0x200000 + data, u8{9});
    poke(0x200000 + code, {0x8a, 0x18, 0xf4});
    EXPECT_EQ(read_as(false), 1);
    vmcs.ept_pointer |= 1 << 6;
    EXPECT_EQ(read_as(true), 2);
    write(tables + 0x2000, u64{0x200087}); // the tables are those of both
    EXPECT_EQ(read_as(false), 9);
    EXPECT_EQ(read_as(true), 9);
}

TEST_F(TwoGuests, EptChangeIsSeenBehindAChangeOfCr3) {
    poke(code, {0x8a, 0x18, 0x0f, 0x22, 0xd9, 0x8a, 0x18, 0xf4}); // read; mov cr3, rcx; read
    cpu.s.gpr[1] = tables;
    EXPECT_EQ(read_as(true), 2);
    map_data(all_rights, other_page + 0x1000);
    EXPECT_EQ(read_as(true), 3);
}

TEST_F(TwoGuests, AChangeAboveTheLastEptTableIsSeen) {
    constexpr u64 second = 0x323000;
    for (u64 i = 0; i < 512; ++i) {
        write(second + i * 8, i << page_shift | all_rights | write_back);
    }
    EXPECT_EQ(read_as(true), 2);
    write(ept_pd, second | all_rights);
    EXPECT_EQ(read_as(true), 1);
    write(ept_pd, second | w | x); // a misconfiguration
    set_controls(cpu, vmcs, nullptr);
    cpu.s.activity = state::ActivityState::active;
    cpu.s.rip = code;
    cpu.transition();
    stop = cpu.run(count_, 100);
    expect_exit(ExitReason::ept_misconfiguration);
}

TEST_F(TwoGuests, AnotherEptpIsAnotherMemory) {
    EXPECT_EQ(read_as(true), 2);
    // A second EPT that shares all but the last table.
    constexpr u64 second = 0x320000;
    write(second, (second + 0x1000) | all_rights);
    write(second + 0x1000, (second + 0x2000) | all_rights);
    write(second + 0x2000, (second + 0x3000) | all_rights);
    for (u64 i = 0; i < 512; ++i) {
        write(second + 0x3000 + i * 8, i << page_shift | all_rights | write_back);
    }
    vmcs.ept_pointer = second | 3 << 3 | 6;
    EXPECT_EQ(read_as(true), 1);
}

} // namespace nestor::cpu
