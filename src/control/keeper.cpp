// Joins machine and store: neither knows the other.
//
// Owns the page digests and the loader of a lazy restore. Which pages were written is told by the
// page mechanism: after a digest every page is `clean`, and a write through it takes that away. A
// restored machine begins that way, so its first save costs what it wrote. What was taken from the
// page mechanism stays in `written_` until the digester has it, so nothing that fails loses a page.
#include "src/control/keeper.hpp"

#include <chrono>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/check.hpp"
#include "src/control/contract.hpp"

namespace nestor::control {
namespace {

using cpu::GuestMemory;
namespace page_state = cpu::page_state;

Result<> check_shape(const snapshot::Manifest& manifest, const GuestMemory& memory) {
    const auto regions = memory.regions();
    bool same = regions.size() == manifest.regions.size();
    for (std::size_t i = 0; same && i < regions.size(); ++i) {
        same = regions[i].start == manifest.regions[i].start &&
               regions[i].size == manifest.regions[i].size;
    }
    return same ? Result<>{}
                : fail(ErrorCode::corrupt, "memory regions are not those of the machine's config");
}

Result<> check_tier(const snapshot::Manifest& manifest, RestoreTier tier) {
    if (tier == RestoreTier::resume && manifest.tier == snapshot::Tier::clone) {
        return fail(ErrorCode::incompatible,
                    "the machine went on after this save, so it cannot be resumed from it",
                    "make another machine of it with --tier clone");
    }
    if (tier != RestoreTier::resume && manifest.clone_forbidden) {
        return fail(ErrorCode::incompatible, "the snapshot does not allow a second machine",
                    "continue the one machine with --tier resume");
    }
    return {};
}

std::string to_text(RestoreTier tier) {
    constexpr const char* names[] = {"again", "resume", "clone"};
    return names[static_cast<std::size_t>(tier)];
}

i64 unix_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

} // namespace

std::vector<snapshot::Unit> to_snapshot(std::span<const machine::Unit> units) {
    std::vector<snapshot::Unit> out;
    for (const machine::Unit& unit : units) {
        out.push_back({unit.name, unit.type, unit.bytes});
    }
    return out;
}

std::vector<machine::Unit> to_machine(std::span<const snapshot::Unit> units) {
    std::vector<machine::Unit> out;
    for (const snapshot::Unit& unit : units) {
        out.push_back({unit.name, unit.type, unit.bytes});
    }
    return out;
}

Result<Digest> guest_digest(const snapshot::Contract& contract,
                            std::span<const snapshot::Unit> units, const Digest& memory_root,
                            const Digest& images) {
    std::vector<snapshot::UnitEntry> entries;
    for (const snapshot::Unit& unit : units) {
        const state::StructInfo* const info = state::erased::find(unit.type);
        if (info == nullptr || info->create == nullptr) {
            return fail(ErrorCode::incompatible, "unit " + unit.name + " is of an unknown type",
                        "use the vm that saved it");
        }
        const std::unique_ptr<void, void (*)(void*)> value(info->create(), info->destroy);
        TRY(state::erased::decode(value.get(), *info, unit.bytes), "unit " + unit.name);
        const auto bytes = state::erased::encode(value.get(), *info, state::erased::Scope::guest);
        entries.push_back({unit.name, unit.type, bytes.size(), sha256(bytes)});
    }
    return snapshot::machine_digest(contract, entries, memory_root, images);
}

Keeper::Keeper(std::unique_ptr<machine::Machine> machine) : machine_(std::move(machine)) {}

Result<> Keeper::begin_zero() {
    TRY(machine_->fill_page_states(page_state::clean));
    const auto memory = regions();
    return digester_.assume_zero(memory);
}

Keeper::~Keeper() {
    live_.reset();
    end_loading();
}

// --- restoring ----------------------------------------------------------------------------------

Result<std::unique_ptr<Keeper>> Keeper::load(const snapshot::Store& store,
                                             const snapshot::Snapshot& snapshot,
                                             const LoadOptions& options) {
    TRY(check_tier(snapshot.manifest(), options.tier));
    const std::vector<machine::Unit> units = to_machine(snapshot.units());
    const state::MachineConfig config = TRY(machine::Machine::config_of(units));
    auto keeper = std::make_unique<Keeper>(TRY(machine::Machine::create(config, options.machine)));
    machine::Machine& machine = *keeper->machine_;
    TRY(check_shape(snapshot.manifest(), machine.memory()));
    TRY(machine.fill_page_states(options.lazy ? page_state::clean | page_state::absent
                                              : page_state::clean));
    if (options.lazy) {
        keeper->loader_ = std::make_unique<PageLoader>(snapshot, machine.memory());
        keeper->restored_from_ = snapshot;
    } else {
        std::vector<snapshot::RegionTarget> targets;
        for (const GuestMemory::Region& region : machine.memory().regions()) {
            targets.push_back({region.start, region.size, region.host});
        }
        snapshot::ReadOptions read;
        read.target_is_zero = true;
        read.progress = options.progress;
        TRY(snapshot.read_all(targets, read));
    }
    keeper->contract_ = snapshot.manifest().contract;
    keeper->source_ = snapshot;
    keeper->images_ = snapshot.images();
    keeper->settled_ = store.directory();
    keeper->from_store_ = store.directory();
    TRY(machine.load_units(units));
    if (options.tier == RestoreTier::clone) {
        TRY(make_clone(machine));
    } else if (options.tier == RestoreTier::resume) {
        keeper->to_be_claimed_ = snapshot;
    }
    keeper->how_restored_ = to_text(options.tier) + ", " +
                            set_clock(machine, options.clock,
                                      snapshot.manifest().provenance.created_unix_ns, unix_ns());
    if (const u32 saved = snapshot.manifest().engine_semantics; saved != hv::engine_semantics) {
        keeper->how_restored_ += ", engine semantics " + std::to_string(saved) + " to " +
                                 std::to_string(hv::engine_semantics);
    }
    return keeper;
}

Result<> Keeper::take_over(const std::string& by) {
    if (to_be_claimed_) {
        auto store = TRY(snapshot::Store::open(from_store_, snapshot::Store::Mode::existing));
        TRY(store.claim(*to_be_claimed_, by));
        to_be_claimed_.reset();
    }
    return {};
}

// --- pages that are not there yet ---------------------------------------------------------------

Result<> Keeper::fill_page(Gfn page) {
    CHECK(loader_ != nullptr, {page.value()});
    return loader_->need(page);
}

Result<> Keeper::prefetch() {
    if (loader_ && TRY(loader_->look())) {
        end_loading();
    }
    return {};
}

Result<> Keeper::finish_loading() {
    if (loader_) {
        TRY(loader_->finish());
        end_loading();
    }
    return {};
}

/// The order of first touches is a hint for the next restore, so it does not matter where it cannot
/// be written. A longer one says more.
void Keeper::end_loading() {
    if (!loader_) {
        return;
    }
    if (loader_->touched().size() > restored_from_->touch_order().size()) {
        if (auto store = snapshot::Store::open(from_store_, snapshot::Store::Mode::existing)) {
            (void)store->record_order(*restored_from_, loader_->touched());
        }
    }
    loader_.reset();
    restored_from_.reset();
}

// --- digests ------------------------------------------------------------------------------------

snapshot::Contract Keeper::contract() const {
    return contract_ ? *contract_ : encode_contract(contract_of(*machine_));
}

std::vector<snapshot::Region> Keeper::regions() const {
    std::vector<snapshot::Region> out;
    for (const GuestMemory::Region& region : machine_->memory().regions()) {
        out.push_back({region.start, region.size, region.host});
    }
    return out;
}

/// Takes note of the pages written so far; writes from here on are visible in the state bytes
/// again.
void Keeper::note_written() {
    const auto runs = machine_->memory().take_written();
    written_.insert(written_.end(), runs.begin(), runs.end());
}

/// Tells the digester what it does not know.
Result<> Keeper::apply_written() {
    if (source_) {
        TRY(source_->seed(digester_));
        source_.reset();
    }
    for (const cpu::PageRun& run : written_) {
        digester_.mark_dirty(run.first, run.count);
    }
    written_.clear();
    return {};
}

Result<Digests> Keeper::digest() {
    if (live_) {
        live_->wait();
    }
    note_written();
    if (!written_.empty()) {
        settled_.clear();
        unsettled_ = true;
    }
    TRY(apply_written());
    const auto memory = regions();
    Digests digests;
    digests.memory_root = TRY(digester_.root(memory));
    const auto units = to_snapshot(machine_->units());
    digests.images = snapshot::images_digest(TRY(images_.entries()));
    digests.machine =
        snapshot::machine_digest(contract(), units, digests.memory_root, digests.images);
    return digests;
}

} // namespace nestor::control
