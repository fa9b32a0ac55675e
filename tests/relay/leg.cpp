// One leg of a relay, and what differs where a leg went wrong.
#include <cstdio>
#include <cstring>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/fd.hpp"
#include "tests/relay/relay.hpp"

namespace nestor::relay {
namespace {

constexpr std::size_t max_image = std::size_t{1} << 30;
constexpr int shown = 40;

machine::BootFile file(const std::string& name, const std::vector<std::byte>& bytes) {
    return {name, std::span(reinterpret_cast<const u8*>(bytes.data()), bytes.size())};
}

/// Saves what was just restored and compares it with where it came from.
Result<> save_again(control::Keeper& keeper, snapshot::Store& store, const Leg& leg,
                    const snapshot::Manifest& first) {
    std::vector<snapshot::Region> regions;
    for (const auto& region : keeper.machine().memory().regions()) {
        regions.push_back({region.start, region.size, region.host});
    }
    if (!leg.lazy && TRY(snapshot::memory_root(regions)) != first.memory_root) {
        return fail(ErrorCode::failed, "restored memory is not what was saved");
    }
    control::SaveOptions options;
    options.tag = leg.from_tag + "-again";
    TRY(keeper.save(store, options));
    const auto again = TRY(store.load(options.tag));
    const snapshot::Manifest& second = again.manifest();
    bool same = first.machine_digest == second.machine_digest &&
                first.memory_root == second.memory_root && first.contract == second.contract &&
                first.units.size() == second.units.size();
    for (std::size_t i = 0; same && i < first.units.size(); ++i) {
        same = first.units[i].name == second.units[i].name &&
               first.units[i].digest == second.units[i].digest;
    }
    return same ? Result<>{}
                : fail(ErrorCode::failed, "saving what was restored gives other bytes");
}

void freeze_all(cpu::GuestMemory& memory) {
    std::vector<cpu::PageRun> all;
    for (const auto& region : memory.regions()) {
        all.push_back({gfn_of(region.start), region.size >> page_shift});
    }
    memory.freeze(all);
}

Result<std::unique_ptr<control::Keeper>> start(const Options& options, const Leg& leg) {
    if (leg.from_store.empty()) {
        return TRY(boot(options, leg.tlb));
    }
    auto store = TRY(snapshot::Store::open(leg.from_store, snapshot::Store::Mode::existing));
    const auto snapshot = TRY(store.load(leg.from_tag));
    control::LoadOptions load;
    load.lazy = leg.lazy;
    load.machine.tlb_entries = leg.tlb;
    auto keeper = TRY(control::Keeper::load(store, snapshot, load));
    if (leg.twice) {
        TRY(save_again(*keeper, store, leg, snapshot.manifest()));
    }
    return keeper;
}

} // namespace

Result<std::unique_ptr<control::Keeper>> boot(const Options& options, unsigned tlb) {
    state::MachineConfig config;
    config.memory = options.memory;
    config.cpus = options.cpus;
    auto machine = TRY(machine::Machine::create(config, {.tlb_entries = tlb}));
    const auto kernel = TRY(read_file(options.kernel, max_image));
    std::vector<std::byte> initrd;
    machine::BootImages images;
    images.kernel = file(options.kernel, kernel);
    if (!options.initrd.empty()) {
        initrd = TRY(read_file(options.initrd, max_image));
        images.modules.push_back(file(options.initrd, initrd));
    }
    images.command_line = options.append;
    TRY(machine->boot(images));
    return std::make_unique<control::Keeper>(std::move(machine));
}

Result<machine::Stop> run_to(control::Keeper& keeper, u64 count) {
    machine::RunLimits limits;
    limits.until = Icount(count);
    for (;;) {
        const machine::Stop stop = keeper.machine().run(limits);
        if (stop.kind == machine::Stop::Kind::copy_needed) {
            const cpu::PageRun page{stop.page, 1};
            keeper.machine().memory().thaw({&page, 1});
        } else if (stop.kind == machine::Stop::Kind::page_needed) {
            TRY(keeper.fill_page(stop.page));
        } else {
            return stop;
        }
    }
}

Result<End> end_of(control::Keeper& keeper, const machine::Stop& stop) {
    return End{.count = keeper.machine().count().value(),
               .kind = static_cast<u64>(stop.kind),
               .exit_status = stop.exit_status,
               .digest = to_hex(TRY(keeper.digest()).machine)};
}

Result<End> run_leg(const Options& options, const Leg& leg) {
    const auto keeper = TRY(start(options, leg));
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> output(
        std::fopen(leg.output.c_str(), "ab"), std::fclose);
    if (!output) {
        return fail_errno("opening " + leg.output, errno);
    }
    keeper->machine().set_serial_sink([&output](std::span<const u8> bytes) {
        (void)std::fwrite(bytes.data(), 1, bytes.size(), output.get());
    });
    if (leg.frozen) {
        freeze_all(keeper->machine().memory());
    }
    const machine::Stop stop = TRY(run_to(*keeper, leg.to));
    const End end = TRY(end_of(*keeper, stop));
    if (!leg.to_tag.empty()) {
        auto store = TRY(snapshot::Store::open(leg.to_store, snapshot::Store::Mode::create));
        control::SaveOptions save;
        save.tag = leg.to_tag;
        save.goes_on = false;
        TRY(keeper->save(store, save));
    }
    return end;
}

Result<> explain(const Options& options, u64 count, const std::string& store_directory,
                 const std::string& tag) {
    const auto unbroken = TRY(boot(options));
    (void)TRY(run_to(*unbroken, count));
    const auto store = TRY(snapshot::Store::open(store_directory, snapshot::Store::Mode::existing));
    const auto snapshot = TRY(store.load(tag));
    int left = shown;
    for (const machine::Unit& unit : unbroken->machine().units()) {
        const auto* const other = snapshot.find_unit(unit.name);
        const auto* const info = state::erased::find(unit.type);
        if (other == nullptr || info == nullptr) {
            std::printf("  unit %s is missing\n", unit.name.c_str());
            continue;
        }
        for (const auto& d : TRY(state::erased::diff_bytes(*info, unit.bytes, other->bytes))) {
            if (left-- > 0) {
                std::printf("  %s.%s: unbroken %s, relay %s\n", unit.name.c_str(), d.path.c_str(),
                            d.left.c_str(), d.right.c_str());
            }
        }
    }
    auto reader = snapshot.page_reader();
    u64 pages = 0;
    for (const auto& region : unbroken->machine().memory().regions()) {
        for (u64 at = 0; at < region.size; at += page_size) {
            const auto page = TRY(reader.page(gfn_of(region.start + at)));
            for (u64 i = 0; i < page_size; ++i) {
                if (static_cast<u8>(page[i]) != region.host[at + i]) {
                    if (pages++ < shown) {
                        std::printf(
                            "  memory at 0x%llx: unbroken %02x, relay %02x\n",
                            static_cast<unsigned long long>((region.start + at + i).value()),
                            region.host[at + i], static_cast<u8>(page[i]));
                    }
                    break;
                }
            }
        }
    }
    std::printf("  %llu pages differ\n", static_cast<unsigned long long>(pages));
    return {};
}

} // namespace nestor::relay
