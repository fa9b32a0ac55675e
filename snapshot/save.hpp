// One save, from the request to the reference. Internal to snapshot.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "snapshot/digest_tree.hpp"
#include "snapshot/files.hpp"
#include "snapshot/index.hpp"
#include "snapshot/items.hpp"
#include "snapshot/manifest.hpp"
#include "snapshot/pack_writer.hpp"

namespace nestor::snapshot {

class SaveJob final {
public:
    SaveJob(const Layout& layout, const Packs& packs, const SaveRequest& request)
        : layout_(layout), packs_(packs), request_(request) {}

    [[nodiscard]] Result<SaveReport> run();

    /// Packs are closed at this size. Tests make it small.
    static u64 pack_limit;

private:
    struct Worker;

    [[nodiscard]] Result<> check_request() const;
    [[nodiscard]] Result<> prepare();
    [[nodiscard]] Result<> save_pages();
    [[nodiscard]] Result<> save_chunk(Worker& worker, std::size_t region, u64 first, u64 last);
    [[nodiscard]] Result<> save_leaf(Worker& worker, std::size_t region, u64 leaf);
    [[nodiscard]] Result<> save_page(Worker& worker, std::size_t region, u64 page);
    [[nodiscard]] Result<> save_nodes();
    [[nodiscard]] Result<> save_level(std::size_t region, unsigned level, Finder& finder,
                                      RecordBuilder& builder, std::vector<Location>& below);
    [[nodiscard]] Result<> save_units();
    [[nodiscard]] Result<> commit();
    [[nodiscard]] Result<> write_reference();
    [[nodiscard]] Result<Location> place(const Digest& digest, Location known);

    const Layout& layout_;
    const Packs& packs_;
    const SaveRequest& request_;
    std::unique_ptr<Index> index_;
    std::unique_ptr<PackWriter> writer_;
    MemoryDigester own_digester_;
    MemoryDigester::Impl* trees_ = nullptr;
    std::vector<std::vector<Location>> locations_; ///< per region and page; zero: ask items_
    std::vector<std::vector<Location>> leaves_;    ///< per region: leaves the store has already
    NewItems items_;
    std::atomic<u64> new_pages_{0};
    PlacedManifest placed_;
    SaveReport report_;
};

} // namespace nestor::snapshot
