// Reaching situations and comparing what becomes of them.
//
// A situation is looked for: from L1's mark on, the machine is run count by count until the state
// shows what the case asks for. So nothing depends on how many instructions lead there, and a case
// whose situation never holds fails instead of testing something else.
#include "tests/matrix/situation.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "engine/cpu/guest_memory.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/check.hpp"
#include "tests/matrix/conditions.hpp"

namespace nestor::matrix {

using machine::Machine;
using machine::Stop;

namespace {

constexpr u64 memory_size = u64{6} << 20;
constexpr u64 to_mark = 200000, to_situation = 4000, to_end = 200000; ///< counts, at most
/// An instruction and a period of the preemption timer have no common factor, so deadlines mostly
/// lie strictly in the past when they are seen.
constexpr u32 ticks_per_instruction = 7;

/// What decides how a machine gets into the situation, and what becomes of it there.
std::string saved_key(const Levels& levels) {
    return fmt::format("{} {} {} {} {}", parameters(levels), level(levels, Factor::event),
                       level(levels, Factor::update), level(levels, Factor::apicv),
                       level(levels, Factor::logging));
}
std::string unbroken_key(const Levels& levels) {
    return fmt::format("{} {} {}", saved_key(levels), level(levels, Factor::apicv_since),
                       level(levels, Factor::logging_since));
}

/// Calls visit(address, bytes) for every page that was written since all were made clean.
template <class Visit>
void each_written(Machine& machine, const Visit& visit) {
    for (const auto& region : machine.memory().regions()) {
        for (u64 i = 0; i < region.size >> page_shift; ++i) {
            if ((region.state[i] & cpu::page_state::clean) == 0) {
                const u64 at = i << page_shift;
                visit(region.start.value() + at, std::span<const u8>(region.host + at, page_size));
            }
        }
    }
}

bool zero(std::span<const u8> page) {
    return std::all_of(page.begin(), page.end(), [](u8 byte) { return byte == 0; });
}

/// Digests of all pages that are not zero, from what they were and what was written.
std::map<u64, Digest> digests_of(Machine& machine, std::map<u64, Digest> before) {
    each_written(machine, [&](u64 gpa, std::span<const u8> page) {
        before.erase(gpa);
        if (!zero(page)) {
            before[gpa] = sha256(std::as_bytes(page));
        }
    });
    return before;
}

End end_of(Machine& machine, const Stop& stop, const std::map<u64, Digest>& before) {
    End end;
    end.stop = fmt::format("stop {} with status {}", static_cast<int>(stop.kind), stop.exit_status);
    end.count = machine.count().value();
    end.vcpu = machine.vcpu(VcpuIndex(0));
    end.vcpu_digest = state::digest(end.vcpu);
    end.guest_digest = state::guest_digest(end.vcpu);
    for (const machine::Unit& unit : machine.units()) {
        if (!unit.name.starts_with("vcpu[")) {
            end.units[unit.name] = unit.bytes;
        }
    }
    end.pages = digests_of(machine, before);
    return end;
}

void put_page(Machine& machine, const Image& image, Gfn gfn) {
    const auto page = machine.memory().page(gfn);
    CHECK(page.host != nullptr);
    if (const auto found = image.find(gfn.value() << page_shift); found != image.end()) {
        std::memcpy(page.host, found->second.data(), page_size);
    }
    *page.state &= static_cast<u8>(~cpu::page_state::absent);
}

/// All pages: at once, or each when it is asked for.
void bring_memory(Machine& machine, const Image& image, bool lazy) {
    const u8 states = cpu::page_state::clean | (lazy ? cpu::page_state::absent : u8{0});
    CHECK(machine.fill_page_states(states).has_value());
    for (const auto& [gpa, bytes] : image) {
        if (!lazy) {
            put_page(machine, image, Gfn(gpa >> page_shift));
        }
    }
}

std::vector<std::string> compare(const End& got, const End& wanted) {
    std::vector<std::string> out;
    if (got.stop != wanted.stop || got.count != wanted.count) {
        out.push_back(fmt::format("{} at count {}; unbroken: {} at {}", got.stop, got.count,
                                  wanted.stop, wanted.count));
    }
    if (got.guest_digest != wanted.guest_digest) {
        out.emplace_back("a guest can see the difference");
    }
    if (got.vcpu_digest != wanted.vcpu_digest) {
        for (const auto& d : state::diff(got.vcpu, wanted.vcpu)) {
            out.push_back(fmt::format("vcpu[0].{}: {}; unbroken: {}", d.path, d.left, d.right));
        }
    }
    for (const auto& [name, bytes] : wanted.units) {
        if (got.units.at(name) != bytes) {
            out.push_back("unit " + name);
        }
    }
    if (got.pages != wanted.pages) {
        for (const auto& [gpa, digest] : wanted.pages) {
            const auto found = got.pages.find(gpa);
            if (found == got.pages.end() || found->second != digest) {
                out.push_back(fmt::format("page {:#x}", gpa));
            }
        }
        out.push_back("pages differ");
    }
    return out;
}

} // namespace

Situations::Situations(std::vector<u8> guest) : guest_(std::move(guest)) {}

std::unique_ptr<Machine> Situations::boot(const Levels& levels) const {
    state::MachineConfig config;
    config.memory = memory_size;
    config.ticks_per_instruction = ticks_per_instruction;
    auto machine = Machine::create(config);
    CHECK(machine.has_value());
    machine::BootImages images;
    images.kernel = {"l2_matrix", guest_};
    images.command_line = parameters(levels);
    CHECK((*machine)->fill_page_states(cpu::page_state::clean).has_value());
    CHECK((*machine)->boot(images).has_value());
    set_conditions(**machine, {}, at_start(levels));
    return std::move(*machine);
}

Result<Saved> Situations::make_saved(const Levels& levels) const {
    const auto machine = boot(levels);
    const auto marked = machine->run({.until = Icount(to_mark), .until_serial = "M"});
    const u64 mark = machine->count().value();
    bool reached = false;
    for (u64 i = 1; marked.kind == Stop::Kind::serial_text && i <= to_situation && !reached; ++i) {
        if (machine->run({.until = Icount(mark + i)}).kind != Stop::Kind::count) {
            break;
        }
        reached = event_holds(levels, *machine, i) &&
                  (!update_is_l2s(levels) ||
                   is_pending(levels, machine->vcpu(VcpuIndex(0)).nested.pending));
    }
    if (!reached) {
        return fail(ErrorCode::failed, "not reached");
    }
    set_conditions(*machine, at_start(levels), when_saved(levels));
    Saved saved;
    saved.count = machine->count().value();
    saved.vcpu = machine->vcpu(VcpuIndex(0));
    if (!is_pending(levels, saved.vcpu.nested.pending)) {
        return fail(ErrorCode::failed, "not reached: the update is not pending");
    }
    for (machine::Unit& unit : machine->units()) {
        if (!unit.name.starts_with("vcpu[")) {
            saved.others.push_back(std::move(unit));
        }
    }
    each_written(*machine, [&](u64 gpa, std::span<const u8> page) {
        saved.memory[gpa].assign(page.begin(), page.end());
    });
    saved.pages = digests_of(*machine, {});
    return saved;
}

Result<const Saved*> Situations::reach(const Levels& levels) {
    const std::string key = saved_key(levels);
    auto found = saved_.find(key);
    if (found == saved_.end()) {
        found = saved_.emplace(key, make_saved(levels)).first;
    }
    if (!found->second) {
        return Failure(found->second.error());
    }
    return &*found->second;
}

Result<const End*> Situations::unbroken(const Levels& levels, u64 count) {
    const std::string key = unbroken_key(levels);
    auto found = unbroken_.find(key);
    if (found == unbroken_.end()) {
        const auto machine = boot(levels);
        if (const Conditions from = at_start(levels), to = when_restored(levels); from != to) {
            if (machine->run({.until = Icount(count)}).kind != Stop::Kind::count) {
                return fail(ErrorCode::failed, "the machine ends in front of the situation");
            }
            set_conditions(*machine, from, when_saved(levels));
            set_conditions(*machine, when_saved(levels), to);
        }
        const Stop stop = machine->run({.until = Icount(count + to_end)});
        if (stop.kind != Stop::Kind::debug_exit || stop.exit_status != 1) {
            return fail(ErrorCode::failed, "the machine that is not stopped ends in a failure");
        }
        found = unbroken_.emplace(key, end_of(*machine, stop, {})).first;
    }
    return &found->second;
}

Result<End> Situations::restored(const Levels& levels, const Saved& saved,
                                 const Change& change) const {
    state::Vcpu vcpu = saved.vcpu;
    if (change) {
        change(vcpu);
    }
    std::vector<machine::Unit> units = saved.others;
    const auto& fields = state::Meta<state::Vcpu>::info.fields;
    for (const u8 i : orders()[level(levels, Factor::order)]) {
        const auto* const at = reinterpret_cast<const std::byte*>(&vcpu) + fields[i].offset;
        units.push_back({std::string("vcpu[0].") + fields[i].name, fields[i].type->id,
                         state::erased::encode(at, *fields[i].type)});
    }
    const state::MachineConfig config = TRY(Machine::config_of(units));
    const auto machine = TRY(Machine::create(config));
    bring_memory(*machine, saved.memory, is(levels, memory::lazy));
    TRY(machine->load_units(units));
    // Inhibits are state; what is logged is decided anew.
    set_conditions(*machine, {.apicv = when_saved(levels).apicv}, when_restored(levels));
    Stop stop;
    for (;;) {
        stop = machine->run({.until = Icount(saved.count + to_end)});
        if (stop.kind != Stop::Kind::page_needed) {
            break;
        }
        put_page(*machine, saved.memory, stop.page);
    }
    return end_of(*machine, stop, saved.pages);
}

Result<std::vector<std::string>> Situations::differences(const Levels& levels,
                                                         const Change& change) {
    const Saved& saved = *TRY(reach(levels));
    const End& wanted = *TRY(unbroken(levels, saved.count));
    const auto got = restored(levels, saved, change);
    if (!got) {
        return std::vector<std::string>{"refused: " + got.error().message};
    }
    return compare(*got, wanted);
}

} // namespace nestor::matrix
