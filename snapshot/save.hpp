// One save, from the request to the reference. Internal to snapshot.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "snapshot/digest_tree.hpp"
#include "snapshot/files.hpp"
#include "snapshot/image_set.hpp"
#include "snapshot/index.hpp"
#include "snapshot/items.hpp"
#include "snapshot/load.hpp"
#include "snapshot/manifest.hpp"
#include "snapshot/pack_writer.hpp"
#include "snapshot/store.hpp"

namespace nestor::snapshot {

class SaveJob final {
public:
    SaveJob(const Store::Impl& store, const SaveRequest& request)
        : store_(store), layout_(store.layout), packs_(*store.packs), request_(request),
          sync_(request.durability == Durability::commit ? Sync::yes : Sync::no) {}

    [[nodiscard]] Result<SaveReport> run();

    /// Packs are closed at this size. Tests make it small.
    static u64 pack_limit;

private:
    struct Worker;
    using Clock = std::chrono::steady_clock;
    using LeafPlaces = std::array<Location, fanout>;

    // save.cpp
    [[nodiscard]] Result<> check_request() const;
    [[nodiscard]] Result<> prepare();
    [[nodiscard]] Result<> find_parent();
    void find_base();
    [[nodiscard]] Result<> save_units();
    [[nodiscard]] Result<> commit();
    [[nodiscard]] Result<> put_reference();
    void become_base();
    void add_tree(RegionTree& tree);

    // save_images.cpp
    [[nodiscard]] bool images_at_home() const;
    [[nodiscard]] Result<> prepare_images();
    [[nodiscard]] Result<> place_images();
    void images_are_home(const std::shared_ptr<const Lease>& lease);

    // save_pages.cpp
    [[nodiscard]] Result<> save_pages();
    [[nodiscard]] Result<> save_chunk(Worker& worker, std::size_t at, u64 first, u64 last);
    [[nodiscard]] Result<> save_leaf(Worker& worker, std::size_t at, u64 leaf);
    [[nodiscard]] Result<> save_page(Worker& worker, std::size_t at, u64 page, bool read);
    [[nodiscard]] Result<> places_in_base(Worker& worker, const RegionTree& tree, u64 leaf,
                                          LeafPlaces& places);
    [[nodiscard]] Result<Location> stored_leaf(Worker& worker, const RegionTree& tree, u64 leaf);
    [[nodiscard]] Result<> load_page(Worker& worker, const RegionTree& tree, u64 page);

    // save_map.cpp
    [[nodiscard]] Result<> save_nodes();
    void keep_nodes(std::size_t at);
    [[nodiscard]] Result<> save_level(std::size_t at, unsigned level, RecordBuilder& builder,
                                      std::vector<Location>& below);
    [[nodiscard]] Result<Location> stored_node(const RegionTree& tree, unsigned level, u64 index,
                                               const MapNode& wanted);
    [[nodiscard]] Result<Location> place(const Digest& digest, Location known);

    const Store::Impl& store_;
    const Layout& layout_;
    const Packs& packs_;
    const SaveRequest& request_;
    Sync sync_;
    Clock::time_point begin_;
    std::unique_ptr<Index> index_;
    std::unique_ptr<PackWriter> writer_;
    MemoryDigester own_digester_;
    MemoryDigester::Impl* trees_ = nullptr;
    bool base_ = false; ///< trees_ knows where what it has not changed lies
    /// What is saved: the trees of the regions, then those of boot images.
    std::vector<RegionTree*> all_;
    /// Per tree and leaf: where the pages of a leaf that is to be written lie; zero: ask items_.
    std::vector<std::vector<std::unique_ptr<LeafPlaces>>> places_;
    /// Per tree and level: where nodes lie. Leaves that are to be written are zero at first.
    std::vector<std::vector<std::vector<Location>>> nodes_;
    std::unique_ptr<Finder> node_finder_;
    std::unique_ptr<RecordCache> node_cache_;
    NewItems items_;
    [[nodiscard]] bool has_base(const RegionTree& tree) const { return base_ && !tree.image; }

    std::atomic<u64> new_pages_{0};
    std::atomic<u64> new_image_pages_{0};
    std::atomic<u64> dirty_pages_{0};
    PlacedManifest placed_;
    SaveReport report_;
};

} // namespace nestor::snapshot
