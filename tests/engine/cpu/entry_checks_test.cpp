// Every row of the table of entry checks, broken one at a time and in pairs.
#include <algorithm>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "engine/state/codec.hpp"
#include "entry_breaks.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

const EntryCheck& row(EntryCheckId id) { return entry_checks()[static_cast<std::size_t>(id)]; }

Entry broken_entry(const Break& b) {
    Entry e = valid_entry(b.from);
    b.apply(e.v, e.c, e.msr, e.ram);
    return e;
}

std::string names(const std::vector<EntryCheckId>& ids) {
    std::string text;
    for (const EntryCheckId id : ids) {
        text += std::string(row(id).name) + " ";
    }
    return text;
}

/// Rows of the MSR lists look at the same entry, so what one list refuses the other may too.
bool same_family(EntryCheckId a, EntryCheckId b) {
    const auto list = [](EntryCheckId id) {
        return row(id).kind == EntryCheckKind::msr_load ||
               row(id).kind == EntryCheckKind::msr_store;
    };
    return row(a).kind == row(b).kind || !list(a) || !list(b);
}

std::vector<EntryCheckId> broken_of_family(Entry& e, EntryCheckId id) {
    std::vector<EntryCheckId> broken = broken_rows(e);
    std::erase_if(broken, [&](EntryCheckId other) { return !same_family(id, other); });
    return broken;
}

/// Fields of the VMCS that a break writes.
std::set<std::string> touched(const Break& b) {
    const Entry valid = valid_entry(b.from);
    const Entry broken = broken_entry(b);
    std::set<std::string> fields;
    for (const state::Difference& d : state::diff(valid.v, broken.v)) {
        fields.insert(d.path);
    }
    if (valid.c.capabilities != broken.c.capabilities || valid.c.in_smm != broken.c.in_smm ||
        valid.msr.index != broken.msr.index) {
        fields.insert("processor");
    }
    return fields;
}

bool touch_the_same(const Break& a, const Break& b) {
    const auto first = touched(a), second = touched(b);
    return std::any_of(first.begin(), first.end(),
                       [&](const std::string& field) { return second.contains(field); });
}

/// Rows that look at two of activity, blocking, injection and RFLAGS: breaks of two others can
/// break them together.
bool joint(EntryCheckId id) {
    switch (id) {
    case EntryCheckId::rflags_if:
    case EntryCheckId::inactive_blocking:
    case EntryCheckId::inactive_injection:
    case EntryCheckId::sipi_entry_to_smm:
    case EntryCheckId::blocking_sti_if:
    case EntryCheckId::interrupt_blocked:
    case EntryCheckId::nmi_blocked_by_mov_ss:
    case EntryCheckId::nmi_blocked_by_sti:
        return true;
    default:
        return false;
    }
}

/// The second break of a pair takes away what the row is about.
struct Mended {
    EntryCheckId row, by;
};
constexpr Mended mended[] = {
    {EntryCheckId::delivery_needs_interrupt_exiting, EntryCheckId::posted_needs_delivery},
    {EntryCheckId::guest_efer_lme, EntryCheckId::guest_cr0_fixed},          // PG is 0
    {EntryCheckId::guest_efer_lme, EntryCheckId::guest_ia32e_needs_paging}, // PG is 0
    {EntryCheckId::smi_blocked_outside_smm, EntryCheckId::smi_blocked_entry_to_smm},
    {EntryCheckId::smi_blocked_entry_to_smm, EntryCheckId::smi_blocked_outside_smm},
    {EntryCheckId::link_shadow, EntryCheckId::link_revision}, // the first is the answer
    {EntryCheckId::pending_debug_bs_missing, EntryCheckId::pending_debug_bs_spurious},
    {EntryCheckId::pending_debug_bs_spurious, EntryCheckId::pending_debug_bs_missing},
};

bool mends(EntryCheckId row, EntryCheckId by) {
    return std::any_of(std::begin(mended), std::end(mended),
                       [&](const Mended& m) { return m.row == row && m.by == by; });
}

TEST(EntryChecks, TheStartingPointsAreValid) {
    for (const ValidEntry kind : valid_entries) {
        Entry entry = valid_entry(kind);
        const auto broken = broken_rows(entry);
        EXPECT_TRUE(broken.empty()) << "kind " << static_cast<int>(kind) << ": " << names(broken);
    }
}

TEST(EntryChecks, EveryRowCanBeBroken) {
    std::set<EntryCheckId> covered;
    for (const Break& b : breaks) {
        covered.insert(b.id);
    }
    for (const EntryCheck& check : entry_checks()) {
        EXPECT_TRUE(covered.contains(check.id)) << check.name << " has no way to break it";
    }
}

TEST(EntryChecks, ABrokenRowIsExactlyWhatFails) {
    for (const Break& b : breaks) {
        Entry e = broken_entry(b);
        const auto broken = broken_of_family(e, b.id);
        EXPECT_EQ(names(broken), names({b.id})) << "entry_breaks.def:" << b.line;
        const auto failure = answer(e, row(b.id).kind);
        ASSERT_TRUE(failure) << row(b.id).name;
        EXPECT_EQ(failure->id, b.id);
        EXPECT_EQ(failure->qualification, row(b.id).qualification);
        EXPECT_EQ(failure->text, row(b.id).text);
    }
}

TEST(EntryChecks, TheFirstBrokenRowOfAKindIsTheAnswer) {
    for (const Break& first : breaks) {
        for (const Break& second : breaks) {
            if (first.from != second.from || row(first.id).kind != row(second.id).kind) {
                continue;
            }
            Entry e = broken_entry(first);
            second.apply(e.v, e.c, e.msr, e.ram);
            const auto failure = answer(e, row(first.id).kind);
            const auto all = broken_of_family(e, first.id);
            const auto same_kind = std::find_if(all.begin(), all.end(), [&](EntryCheckId id) {
                return row(id).kind == row(first.id).kind;
            });
            ASSERT_EQ(failure.has_value(), same_kind != all.end());
            if (failure) {
                EXPECT_EQ(failure->id, *same_kind)
                    << row(first.id).name << " with " << row(second.id).name;
            }
        }
    }
}

TEST(EntryChecks, PairsThatTouchDifferentFieldsBreakTheirRowsAndWhatTheyMakeTogether) {
    unsigned pairs = 0;
    for (const Break& first : breaks) {
        for (const Break& second : breaks) {
            if (first.from != second.from || first.id >= second.id ||
                row(first.id).kind != row(second.id).kind || touch_the_same(first, second)) {
                continue;
            }
            ++pairs;
            Entry e = broken_entry(first);
            second.apply(e.v, e.c, e.msr, e.ram);
            auto broken = broken_of_family(e, first.id);
            std::vector<EntryCheckId> expected;
            for (const auto& [id, other] :
                 {std::pair(first.id, second.id), std::pair(second.id, first.id)}) {
                if (!mends(id, other)) {
                    expected.push_back(id);
                }
            }
            std::erase_if(broken, [&](EntryCheckId id) {
                return joint(id) && id != first.id && id != second.id;
            });
            EXPECT_EQ(names(broken), names(expected))
                << "entry_breaks.def:" << first.line << " and " << second.line;
        }
    }
    EXPECT_GT(pairs, 5000u);
}

/// What may be injected into which state, as SDM 3C 27.3.1.5 puts it, in other words than the
/// table.
struct Situation {
    u32 activity, blocked, event;
    bool if_, tf, btf, bs, virtual_nmis;

    [[nodiscard]] bool legal() const {
        const bool sti = (blocked & 1) != 0, mov_ss = (blocked & 2) != 0;
        const bool interrupt = event == inject(0, 0x30), nmi = event == inject(2, 2);
        if ((sti && (mov_ss || !if_)) || (blocked & 4) != 0 || (activity != 0 && (sti || mov_ss))) {
            return false;
        }
        if (interrupt && (!if_ || sti || mov_ss)) {
            return false;
        }
        if (nmi && (sti || mov_ss || (virtual_nmis && (blocked & 8) != 0))) {
            return false;
        }
        const bool machine_check = event == inject(3, 18);
        const bool wakes_hlt =
            interrupt || nmi || machine_check || event == inject(3, 1) || event == inject(7, 0);
        if (event != 0 && ((activity == 1 && !wakes_hlt) || activity == 3 ||
                           (activity == 2 && !nmi && !machine_check))) {
            return false;
        }
        return !(sti || mov_ss || activity == 1) || bs == (tf && !btf);
    }
};

TEST(EntryChecks, EveryStateOfActivityBlockingAndInjectionIsJudgedAsTheSdmSays) {
    const u32 events[] = {0,
                          inject(0, 0x30),
                          inject(2, 2),
                          inject(3, 1),
                          inject(3, 6),
                          inject(3, 18),
                          inject(4, 3),
                          inject(7, 0)};
    unsigned legal = 0;
    for (u32 n = 0; n < 4 * 16 * 32 * 8; ++n) {
        const Situation x{n & 3,          n >> 2 & 15,    events[n >> 11], (n & 64) != 0,
                          (n & 128) != 0, (n & 256) != 0, (n & 512) != 0,  (n & 1024) != 0};
        Entry e = valid_entry(ValidEntry::long64);
        e.v.guest_activity_state = x.activity;
        e.v.guest_interruptibility_state = x.blocked;
        e.v.vm_entry_intr_info = x.event;
        e.v.vm_entry_instruction_len = 2;
        e.v.guest_rflags = rflags::fixed1 | (x.if_ ? rflags::if_ : 0) | (x.tf ? rflags::tf : 0);
        e.v.guest_ia32_debugctl = x.btf ? 2 : 0;
        e.v.guest_pending_debug_exceptions = x.bs ? pending_debug::bs : 0;
        if (!x.virtual_nmis) {
            e.v.pin_based_vm_exec_control &= ~pin_control::virtual_nmis;
        }
        ASSERT_EQ(!check_guest(e.v, e.c).has_value(), x.legal())
            << n << ": " << names(broken_rows(e));
        ASSERT_FALSE(check_controls(e.v, e.c));
        legal += x.legal() ? 1 : 0;
    }
    EXPECT_GT(legal, 1000u);
}

TEST(EntryChecks, AMissingPageIsAskedFor) {
    for (const auto& [kind, missing] :
         {std::pair(ValidEntry::everything, shadow_vmcs), std::pair(ValidEntry::pae32, pdpt)}) {
        Entry e = valid_entry(kind);
        std::vector<u8> states(EntryRam::size >> page_shift);
        states[missing >> page_shift] = page_state::absent;
        GuestMemory memory;
        memory.add_region({Gpa(0), EntryRam::size, e.ram.data(), states.data()});
        const EntryMemory found = check_guest_memory(e.v, e.c, memory);
        EXPECT_EQ(found.page_needed, gfn_of(Gpa(missing)));
        EXPECT_FALSE(found.failure);
        states[missing >> page_shift] = 0;
        const EntryMemory again = check_guest_memory(e.v, e.c, memory);
        EXPECT_FALSE(again.page_needed || again.failure);
        EXPECT_EQ(again.pdptes[1], kind == ValidEntry::pae32 ? 0x7001u : 0u);
    }
}

TEST(EntryChecks, SectionsAreThoseOfTheSdm) {
    for (const EntryCheck& check : entry_checks()) {
        EXPECT_TRUE(check.section.starts_with("27.") || check.section == "28.4") << check.name;
        EXPECT_EQ(row(check.id).name, check.name);
    }
}

} // namespace
} // namespace nestor::cpu
