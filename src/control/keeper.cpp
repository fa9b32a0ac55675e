// Joins machine and store: neither knows the other.
//
// Owns the page digests and the reader of a lazy restore. Which pages were written is told by the
// page mechanism: after a digest every page is `clean`, and a write through it takes that away. A
// restored machine begins that way, so its first save costs what it wrote.
#include "src/control/keeper.hpp"

#include <cstring>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/check.hpp"
#include "src/control/contract.hpp"

namespace nestor::control {
namespace {

using cpu::GuestMemory;
namespace page_state = cpu::page_state;

/// From so many pages on, dropping all fast paths at once is cheaper than page by page.
constexpr u64 many_pages = 2048;

bool is_zero(std::span<const std::byte, page_size> page) {
    return page[0] == std::byte{} && std::memcmp(page.data(), page.data() + 1, page_size - 1) == 0;
}

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
                            std::span<const snapshot::Unit> units, const Digest& memory_root) {
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
    return snapshot::machine_digest(contract, entries, memory_root);
}

Keeper::Keeper(std::unique_ptr<machine::Machine> machine) : machine_(std::move(machine)) {}

Result<std::unique_ptr<Keeper>> Keeper::load(const snapshot::Store& store,
                                             const snapshot::Snapshot& snapshot,
                                             const LoadOptions& options) {
    const std::vector<machine::Unit> units = to_machine(snapshot.units());
    const state::MachineConfig config = TRY(machine::Machine::config_of(units));
    auto keeper = std::make_unique<Keeper>(TRY(machine::Machine::create(config, options.machine)));
    GuestMemory& memory = keeper->machine_->memory();
    TRY(check_shape(snapshot.manifest(), memory));
    const u8 page_bits = page_state::clean | (options.lazy ? page_state::absent : 0);
    std::vector<snapshot::RegionTarget> targets;
    for (const GuestMemory::Region& region : memory.regions()) {
        std::memset(region.state, page_bits, region.size >> page_shift);
        targets.push_back({region.start, region.size, region.host});
    }
    if (options.lazy) {
        keeper->reader_ = snapshot.page_reader();
    } else {
        snapshot::ReadOptions read;
        read.target_is_zero = true;
        read.progress = options.progress;
        TRY(snapshot.read_all(targets, read));
    }
    keeper->source_ = snapshot;
    keeper->source_store_ = store.directory();
    keeper->tracked_ = true;
    TRY(keeper->machine_->load_units(units));
    return keeper;
}

Result<> Keeper::fill(u8* host, u8* state, Gfn page) {
    CHECK(reader_.has_value());
    const auto bytes = TRY(reader_->page(page));
    if (!is_zero(bytes)) {
        std::memcpy(host, bytes.data(), page_size);
    }
    *state &= static_cast<u8>(~page_state::absent);
    return {};
}

Result<> Keeper::fill_page(Gfn page) {
    const GuestMemory::Page p = machine_->memory().page(page);
    CHECK(p.host != nullptr && (*p.state & page_state::absent) != 0, {page.value()});
    return fill(p.host, p.state, page);
}

Result<> Keeper::prefetch(u64 pages) {
    const auto regions = machine_->memory().regions();
    while (reader_ && pages != 0) {
        if (next_region_ == regions.size()) {
            reader_.reset();
            return {};
        }
        const GuestMemory::Region& region = regions[next_region_];
        if (next_page_ == region.size >> page_shift) {
            ++next_region_;
            next_page_ = 0;
            continue;
        }
        const u64 i = next_page_++;
        if ((region.state[i] & page_state::absent) != 0) {
            TRY(fill(region.host + (i << page_shift), region.state + i, gfn_of(region.start) + i));
            --pages;
        }
    }
    return {};
}

Result<> Keeper::fill_all() { return prefetch(~u64{0}); }

std::vector<snapshot::Region> Keeper::regions() {
    std::vector<snapshot::Region> out;
    for (const GuestMemory::Region& region : machine_->memory().regions()) {
        out.push_back({region.start, region.size, region.host});
    }
    return out;
}

/// Tells the digester which pages were written since it last looked; writes from here on are
/// visible in the state bytes again.
Result<> Keeper::note_written() {
    if (source_) {
        TRY(source_->seed(digester_));
        source_.reset();
    }
    GuestMemory& memory = machine_->memory();
    u64 left = many_pages;
    for (const GuestMemory::Region& region : memory.regions()) {
        for (u64 i = 0; i < region.size >> page_shift; ++i) {
            if (tracked_ && (region.state[i] & page_state::clean) != 0) {
                continue;
            }
            const Gfn page = gfn_of(region.start) + i;
            digester_.mark_dirty(page);
            if (left != 0) {
                --left;
                memory.set_state(page, page_state::clean);
            } else {
                region.state[i] |= page_state::clean;
            }
        }
    }
    if (left == 0) {
        machine_->memory_replaced();
    }
    tracked_ = true;
    return {};
}

Result<Digests> Keeper::digest() {
    TRY(note_written());
    const auto memory = regions();
    Digests digests;
    digests.memory_root = TRY(digester_.root(memory));
    const auto units = to_snapshot(machine_->units());
    const auto contract = encode_contract(TRY(contract_of(machine_->config())));
    digests.machine = snapshot::machine_digest(contract, units, digests.memory_root);
    return digests;
}

Result<snapshot::SaveReport> Keeper::save(snapshot::Store& store, const SaveOptions& options) {
    if (store.directory() != source_store_) {
        TRY(fill_all()); // the other store may not have them
    }
    TRY(note_written());
    const auto memory = regions();
    const auto units = to_snapshot(machine_->units());
    snapshot::SaveRequest request;
    request.tag = options.tag;
    request.replace = options.replace;
    request.units = units;
    request.regions = memory;
    request.contract = encode_contract(TRY(contract_of(machine_->config())));
    TRY(refuse("the machine has state that a snapshot cannot hold",
               findings(request.contract, units, this_host())));
    request.schema_set = schema_set_digest();
    request.engine_semantics = engine_semantics;
    request.tier = options.goes_on ? snapshot::Tier::clone : snapshot::Tier::resume;
    request.provenance.creator = "vm";
    request.provenance.machine = options.machine;
    request.provenance.count = machine_->count().value();
    request.wait_for_writer = std::chrono::seconds(5);
    request.digester = &digester_;
    request.progress = options.progress;
    return store.save(request);
}

} // namespace nestor::control
