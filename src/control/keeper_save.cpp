// How a machine is saved: standing still, or running on.
//
// Everything that must belong to one moment is taken in prepare() and begin(): units, the pages
// written since the last look, and, for a live save, which pages are frozen. A live save reads on a
// thread of its own; until it has ended nobody else touches digester_, images_, source_
// and written_.
#include "src/control/keeper.hpp"

#include <chrono>
#include <cstring>

#include "src/base/check.hpp"
#include "src/control/contract.hpp"

namespace nestor::control {
namespace {

namespace page_state = cpu::page_state;
using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// Memory of a machine that stands still and is not all loaded. What is absent was saved before.
class LoadedPages final : public snapshot::PageSource {
public:
    explicit LoadedPages(const cpu::GuestMemory& memory) : memory_(memory) {}

    Result<> read(Gfn page, std::span<std::byte, page_size> into) override {
        const auto p = memory_.page(page);
        if ((*p.state & page_state::absent) != 0) {
            return fail(ErrorCode::corrupt, "page " + std::to_string(page.value()) +
                                                " is not loaded yet, and the store has lost it");
        }
        std::memcpy(into.data(), p.host, page_size);
        return {};
    }

private:
    const cpu::GuestMemory& memory_;
};

} // namespace

/// A request and what it refers to.
struct Keeper::Prepared {
    std::vector<snapshot::Unit> units;
    std::vector<snapshot::Region> regions;
    snapshot::SaveRequest request;
};

Result<std::shared_ptr<Keeper::Prepared>> Keeper::prepare(const SaveOptions& options) const {
    auto prepared = std::make_shared<Prepared>();
    prepared->units = to_snapshot(machine_->units());
    prepared->regions = regions();
    snapshot::SaveRequest& request = prepared->request;
    request.tag = options.tag;
    request.parent = options.parent;
    request.replace = options.replace;
    request.units = prepared->units;
    request.regions = prepared->regions;
    request.contract = contract();
    TRY(refuse("the machine has state that a snapshot cannot hold",
               findings(request.contract, prepared->units, this_host())));
    request.schema_set = schema_set_digest();
    request.engine_semantics = hv::engine_semantics;
    request.tier = options.goes_on ? snapshot::Tier::clone : snapshot::Tier::resume;
    request.clone_forbidden = options.clone_forbidden;
    request.durability = options.durability;
    request.provenance.creator = "vm " NESTOR_VERSION;
    request.provenance.machine = options.machine;
    request.provenance.count = machine_->count().value();
    request.provenance.restored = how_restored_;
    request.wait_for_writer = std::chrono::seconds(5);
    request.progress = options.progress;
    return prepared;
}

Result<> Keeper::not_saving() const {
    if (!live_) {
        return {};
    }
    const LiveSave::Progress p = live_->progress();
    const std::string done =
        p.total == 0 ? "begun" : std::to_string(p.done * 100 / p.total) + " % done";
    return fail(ErrorCode::failed, "a live save of this machine goes on, " + done,
                "wait for its end and try again");
}

Result<snapshot::SaveReport> Keeper::save(snapshot::Store& store, const SaveOptions& options) {
    const Clock::time_point start = Clock::now();
    TRY(not_saving());
    if (store.directory() != from_store_) {
        TRY(finish_loading()); // the other store may not have what is absent
    }
    const auto prepared = TRY(prepare(options));
    note_written();
    settled_.clear();
    TRY(apply_written());
    LoadedPages loaded(machine_->memory());
    prepared->request.source = loader_ ? &loaded : nullptr;
    prepared->request.digester = &digester_;
    prepared->request.images = &images_;
    auto report = store.save(prepared->request);
    if (report) {
        settled_ = store.directory();
    }
    pause_ms_ = milliseconds_since(start);
    return report;
}

Result<> Keeper::begin_live_save(const std::string& directory, const SaveOptions& options) {
    TRY(not_saving());
    auto store = std::make_shared<snapshot::Store>(
        TRY(snapshot::Store::open(directory, snapshot::Store::Mode::create)));
    if (store->directory() != from_store_) {
        TRY(finish_loading());
    }
    const Clock::time_point start = Clock::now();
    auto prepared = TRY(prepare(options));
    note_written();
    // Where the store is known to have all that was not written since, the save asks for nothing
    // else. Otherwise it may ask for any page.
    const bool incremental = settled_ == store->directory();
    settled_.clear();
    unsettled_ = false;
    std::vector<cpu::PageRun> pages = incremental ? written_ : present_pages();
    const auto job = [this, prepared,
                      store](snapshot::PageSource& frozen,
                             const snapshot::Progress& progress) -> Result<snapshot::SaveReport> {
        TRY(apply_written());
        prepared->request.source = &frozen;
        prepared->request.progress = progress;
        prepared->request.digester = &digester_;
        prepared->request.images = &images_;
        return store->save(prepared->request);
    };
    saving_to_ = store->directory();
    const auto pause_so_far = Clock::now() - start;
    prepared->request.provenance.pause_ns = static_cast<u64>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(pause_so_far).count());
    live_ = TRY(LiveSave::start(machine_->memory(), std::move(pages), options.max_copies, job));
    machine_->set_dirty_logging(true); // of what is written from here on, which the save is not
    pause_ms_ = milliseconds_since(start);
    return {};
}

Result<snapshot::SaveReport> Keeper::finish_live_save() {
    CHECK(live_ != nullptr);
    auto report = live_->finish();
    live_.reset();
    machine_->set_dirty_logging(false);
    logged_pages_ = machine_->take_logged_pages().size();
    if (report && !unsettled_) {
        settled_ = saving_to_;
    }
    return report;
}

/// Every page that is there.
std::vector<cpu::PageRun> Keeper::present_pages() const {
    std::vector<cpu::PageRun> runs;
    for (const cpu::GuestMemory::Region& region : machine_->memory().regions()) {
        const u64 pages = region.size >> page_shift;
        const auto absent = [&](u64 i) { return (region.state[i] & page_state::absent) != 0; };
        for (u64 i = 0; i < pages;) {
            if (absent(i)) {
                ++i;
                continue;
            }
            const u64 first = i;
            while (i < pages && !absent(i)) {
                ++i;
            }
            runs.push_back({gfn_of(region.start) + first, i - first});
        }
    }
    return runs;
}

} // namespace nestor::control
