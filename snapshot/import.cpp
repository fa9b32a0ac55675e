// Taking in an export stream. Owns that nothing in it is believed: pages, nodes and units have the
// digests they came under, what a node or manifest refers to came before it or is in the store, and
// every map has the shape that its region asks for, before a tag says that it is there.
//
// The order of writes is that of a save: packs, index, manifests, references. What an import that
// fails had written so far is removed.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "snapshot/items.hpp"
#include "snapshot/load.hpp"
#include "snapshot/save.hpp"
#include "snapshot/store.hpp"
#include "snapshot/stream_reader.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t page_payload = 64 * page_size;
constexpr std::size_t unit_payload = 1u << 20;
constexpr unsigned max_map_level = 7; // 2^52 bytes
/// Memory of one machine, at most: what a map says costs nothing, but reading it would.
constexpr u64 max_memory = u64{1} << 44;

Failure corrupt(std::string what) {
    return fail(ErrorCode::corrupt, "export stream: " + std::move(what));
}

class Importer final {
public:
    Importer(const Store::Impl& store, int fd, const ImportOptions& options)
        : store_(store), layout_(store.layout), packs_(store.packs), options_(options),
          reader_(fd, options.progress) {}

    Result<ImportReport> run() {
        heads_ = TRY(reader_.heads());
        TRY(check_heads());
        const WriterLock lock = TRY(store_.begin_write(options_.wait_for_writer));
        remove_leftovers(layout_);
        packs_->refresh();
        TRY(check_tags());
        index_ = TRY(Index::open(layout_, *packs_));
        writer_ = std::make_unique<PackWriter>(layout_.packs(), index_->next_pack_id(),
                                               SaveJob::pack_limit);
        pages_ = std::make_unique<RecordBuilder>(RecordKind::pages, page_payload, *writer_);
        nodes_ = std::make_unique<RecordBuilder>(RecordKind::nodes, page_payload, *writer_);
        units_ = std::make_unique<RecordBuilder>(RecordKind::units, unit_payload, *writer_);
        finder_ = std::make_unique<Finder>(TRY(index_->view()), *packs_);
        TRY(take_records());
        TRY(flush());
        TRY(commit());
        report_.bytes_read = reader_.bytes_read();
        report_.bytes_written = writer_->bytes_written();
        return report_;
    }

private:
    Result<> check_heads() {
        if (!options_.as_tag.empty()) {
            if (heads_.size() != 1) {
                return fail(ErrorCode::usage, "the stream holds " + std::to_string(heads_.size()) +
                                                  " snapshots, which cannot all be " +
                                                  options_.as_tag);
            }
            heads_[0].tag = options_.as_tag;
        }
        for (std::size_t i = 0; i < heads_.size(); ++i) {
            const auto same = [&](const auto& other) { return other.tag == heads_[i].tag; };
            if (!is_valid_tag(heads_[i].tag)) {
                return options_.as_tag.empty()
                           ? corrupt("a tag is none")
                           : fail(ErrorCode::usage, "'" + options_.as_tag + "' is no tag",
                                  "use 1 to 100 of A-Z a-z 0-9 . _ -");
            }
            if (std::any_of(heads_.begin() + static_cast<std::ptrdiff_t>(i) + 1, heads_.end(),
                            same)) {
                return corrupt("tag " + heads_[i].tag + " is there twice");
            }
            u64 memory = 0;
            for (const RegionEntry& region : heads_[i].placed.manifest.regions) {
                memory += region.size;
            }
            if (memory > max_memory) {
                return corrupt("snapshot " + heads_[i].tag + " has more than 16 TiB of memory");
            }
        }
        return {};
    }

    Result<> check_tags() const {
        for (const auto& head : heads_) {
            if (!options_.replace && tag_exists(layout_, head.tag)) {
                return fail(ErrorCode::failed, "there is a snapshot " + head.tag + " already",
                            "choose another tag, or move that one");
            }
        }
        return {};
    }

    Result<> take_records() {
        while (true) {
            const RecordBuffer* const record = TRY(reader_.next());
            if (record == nullptr) {
                return {};
            }
            for (u32 i = 0; i < record->count(); ++i) {
                const Digest& digest = record->items()[i].digest;
                if (record->kind() == RecordKind::pages) {
                    TRY(take_page(digest, record->item(i)));
                } else if (record->kind() == RecordKind::nodes) {
                    TRY(take_node(digest, record->item(i)));
                } else {
                    TRY(take_unit(digest, record->item(i)));
                }
            }
        }
    }

    Result<> take_page(const Digest& digest, std::span<const std::byte> bytes) {
        if (is_zero_page(reinterpret_cast<const u8*>(bytes.data()))) {
            return corrupt("a zero page is stored as if it were none");
        }
        ++report_.pages;
        if (TRY(finder_->find(RecordKind::pages, digest)) == Location{} && items_.claim(digest)) {
            ++report_.new_pages;
            TRY(pages_->add(digest, bytes, &unused_, &items_));
        }
        return {};
    }

    /// Where a node lies that came before; zero where none did.
    [[nodiscard]] Location find_node(const Digest& digest) {
        const auto kept = kept_.find(digest);
        return kept != kept_.end() ? kept->second : items_.find(digest);
    }

    Result<> place_child(MapNode& node, std::size_t i) {
        const Digest& digest = node.digests[i];
        const auto level = levels_.find(digest);
        if (node.level > 1) {
            node.locations[i] = find_node(digest);
            return level != levels_.end() && level->second + 1 == node.level
                       ? Result<>{}
                       : Result<>(corrupt("a map node refers to what did not come before it"));
        }
        const Location fresh = items_.find(digest);
        node.locations[i] =
            fresh != Location{} ? fresh : TRY(finder_->find(RecordKind::pages, digest));
        if (node.locations[i] == Location{} || level != levels_.end()) {
            return corrupt("a map node refers to a page that did not come before it");
        }
        return {};
    }

    /// The node in the store, where it says of its children what is known here; zero otherwise: the
    /// store may have one whose children are gone.
    Result<Location> stored_node(const Digest& digest, const MapNode& wanted) {
        const Location location = TRY(finder_->find(RecordKind::nodes, digest));
        if (location == Location{}) {
            return location;
        }
        const auto bytes = cache_.item(location);
        MapNode node;
        const bool same = bytes && decode_node(*bytes, digest, wanted.level, fanout, node) &&
                          node.locations == wanted.locations;
        return same ? location : Location{};
    }

    Result<> take_node(const Digest& digest, std::span<const std::byte> bytes) {
        const u64 level = bytes.size() < 16 ? 0 : load_at<u64>(bytes, 8);
        MapNode node;
        if (level == 0 || level > max_map_level) {
            return corrupt("a map node is damaged");
        }
        TRY(decode_node(bytes, digest, static_cast<unsigned>(level), fanout, node),
            "export stream");
        if (level != level_) {
            TRY(flush());
            level_ = level;
        }
        if (levels_.contains(digest)) {
            return {};
        }
        for (std::size_t i = 0; i < fanout; ++i) {
            if (node.digests[i] != zero_digest) {
                TRY(place_child(node, i));
            }
        }
        levels_.emplace(digest, node.level);
        if (const Location there = TRY(stored_node(digest, node)); there != Location{}) {
            kept_.emplace(digest, there);
            return {};
        }
        if (!items_.claim(digest)) {
            return corrupt("a map node has the digest of a page");
        }
        encoded_.clear();
        encode_node(node, encoded_);
        return nodes_->add(digest, encoded_, &unused_, &items_);
    }

    Result<> take_unit(const Digest& digest, std::span<const std::byte> bytes) {
        const auto [at, fresh] = unit_places_.try_emplace(digest);
        return fresh ? units_->add(digest, bytes, &at->second, nullptr) : Result<>{};
    }

    Result<> flush() {
        TRY(pages_->flush());
        TRY(nodes_->flush());
        return units_->flush();
    }

    Result<Location> place_root(const Digest& root) {
        const Location found = root == zero_digest ? Location{} : find_node(root);
        return found == Location{} && root != zero_digest
                   ? Result<Location>(corrupt("a map of memory or of a boot image is missing"))
                   : found;
    }

    Result<> place(PlacedManifest& placed) {
        for (std::size_t i = 0; i < placed.manifest.units.size(); ++i) {
            const UnitEntry& unit = placed.manifest.units[i];
            const auto found = unit_places_.find(unit.digest);
            if (unit.size != 0 && found == unit_places_.end()) {
                return corrupt("unit " + unit.name + " is missing");
            }
            placed.units[i] = unit.size != 0 ? found->second : Location{};
        }
        const Manifest& manifest = placed.manifest;
        for (std::size_t i = 0; i < manifest.regions.size(); ++i) {
            placed.region_roots[i] = TRY(place_root(manifest.regions[i].root));
        }
        for (std::size_t i = 0; i < manifest.images.size(); ++i) {
            placed.image_roots[i] = TRY(place_root(manifest.images[i].root));
        }
        return {};
    }

    /// The right edge of each map: all else was checked when its nodes came.
    Result<> check_edges(const PlacedManifest& placed) {
        RecordCache cache(*packs_, RecordKind::nodes, 2);
        for (const PlacedMap& map : maps_of(placed)) {
            const u64 pages = map.pages;
            Digest digest = map.root;
            Location location = map.location;
            for (unsigned level = map_levels(pages); level > 0 && digest != zero_digest; --level) {
                MapNode node;
                const u64 index = map_width(pages, level) - 1;
                TRY(read_node(cache, location, digest, pages, level, index, node),
                    "export stream: " + map.describe(index << (fanout_shift * level)) +
                        " and after");
                const auto last =
                    static_cast<std::size_t>((map_width(pages, level - 1) - 1) & (fanout - 1));
                digest = node.digests[last];
                location = node.locations[last];
            }
        }
        return {};
    }

    /// The manifest's file with its places in this store.
    Result<std::vector<std::byte>> placed_file(StreamReader::Head& head) {
        TRY(place(head.placed));
        TRY(check_edges(head.placed));
        TRY(read_units(head.placed, *packs_));
        const Digest digest = head.placed.manifest.digest;
        auto bytes = encode_manifest(head.placed);
        if (head.placed.manifest.digest != digest) {
            return corrupt("the manifest is not in canonical form");
        }
        return bytes;
    }

    Result<> commit() {
        TRY(writer_->seal());
        std::vector<std::vector<std::byte>> files;
        for (StreamReader::Head& head : heads_) {
            files.push_back(TRY(placed_file(head), "snapshot " + head.tag));
        }
        auto entries = items_.entries();
        finder_.reset(); // it holds a view
        TRY(index_->commit(entries, writer_->sealed()));
        writer_->keep();
        for (std::size_t i = 0; i < heads_.size(); ++i) {
            const Digest& digest = heads_[i].placed.manifest.digest;
            TRY(replace_file(layout_.manifests(), to_hex(digest), files[i]));
            TRY(write_reference(layout_, {heads_[i].tag, digest}));
            report_.tags.push_back(heads_[i].tag);
        }
        return {};
    }

    const Store::Impl& store_;
    const Layout& layout_;
    std::shared_ptr<Packs> packs_;
    const ImportOptions& options_;
    StreamReader reader_;
    std::vector<StreamReader::Head> heads_;
    std::unique_ptr<Index> index_;
    std::unique_ptr<PackWriter> writer_;
    std::unique_ptr<RecordBuilder> pages_;
    std::unique_ptr<RecordBuilder> nodes_;
    std::unique_ptr<RecordBuilder> units_;
    std::unique_ptr<Finder> finder_;
    RecordCache cache_{*packs_, RecordKind::nodes, 4};
    NewItems items_;
    std::map<Digest, unsigned> levels_; ///< of the nodes that came
    std::map<Digest, Location> kept_;   ///< those of them that the store has already
    std::map<Digest, Location> unit_places_;
    std::vector<std::byte> encoded_;
    Location unused_; ///< where RecordBuilder tells what items_ knows better
    u64 level_ = 0;   ///< of the nodes that come now
    ImportReport report_;
};

} // namespace

Result<ImportReport> Store::import_from(int fd, const ImportOptions& options) {
    return Importer(*impl_, fd, options).run();
}

} // namespace nestor::snapshot
