// Writing snapshots as one stream (stream.hpp). Each page is compared with its digest on its way,
// so what leaves a store is whole.
//
// The maps are walked once for the pages and once for each level of nodes, so that memory holds the
// digests of what was sent and nothing else.
#include <unordered_set>

#include "snapshot/items.hpp"
#include "snapshot/load.hpp"
#include "snapshot/store.hpp"
#include "snapshot/stream.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t extent_payload = 64 * page_size;
constexpr std::size_t unit_payload = 1u << 20;
constexpr unsigned max_levels = 8;

struct DigestHash {
    std::size_t operator()(const Digest& digest) const {
        return load_at<std::size_t>(std::as_bytes(std::span(digest.bytes)), 0);
    }
};

/// The snapshot as another version would have written it; the same one where it did.
std::shared_ptr<const SnapshotData> written_as(std::shared_ptr<const SnapshotData> snapshot,
                                               const WriteAs& version) {
    const Manifest& old = snapshot->placed.manifest;
    if (old.format == version.format && old.schema_set == version.schema_set &&
        old.engine_semantics == version.engine_semantics) {
        return snapshot;
    }
    auto other = std::make_shared<SnapshotData>(*snapshot);
    Manifest& manifest = other->placed.manifest;
    if (version.format == format_without_images && !manifest.images.empty()) {
        drop_images(other->placed);
    }
    manifest.format = version.format;
    manifest.schema_set = version.schema_set;
    manifest.engine_semantics = version.engine_semantics;
    manifest.parent.reset();
    manifest.parent_tag.clear();
    return other;
}

class Exporter final {
public:
    Exporter(std::vector<std::shared_ptr<const SnapshotData>> snapshots, int fd,
             const ExportOptions& options)
        : snapshots_(std::move(snapshots)), fd_(fd), options_(options) {}

    Result<ExportReport> run() {
        for (const auto& snapshot : snapshots_) {
            for (const PlacedMap& map : maps_of(snapshot->placed)) {
                total_ += map.pages << page_shift;
            }
        }
        TRY(put_heads());
        for (unsigned level = 0; level <= max_levels; ++level) {
            TRY(put_level(level));
        }
        TRY(put_units());
        TRY(put_trailer());
        report_.snapshots = snapshots_.size();
        report_.bytes = bytes_;
        return report_;
    }

private:
    Result<> put(std::span<const std::byte> bytes) {
        bytes_ += bytes.size();
        return write_all(fd_, bytes);
    }

    Result<> put_heads() {
        StreamHeader header{};
        std::memcpy(header.magic, stream_magic, sizeof(stream_magic));
        header.version = stream_version;
        header.snapshots = static_cast<u32>(snapshots_.size());
        header.digest = sha256(bytes_of(header).first(sizeof(header) - sizeof(Digest)));
        std::vector<std::byte> heads;
        const auto append = [&heads](std::span<const std::byte> bytes) {
            heads.insert(heads.end(), bytes.begin(), bytes.end());
        };
        append(bytes_of(header));
        for (const auto& snapshot : snapshots_) {
            PlacedManifest placed = snapshot->placed;
            placed.units.assign(placed.units.size(), Location{});
            placed.region_roots.assign(placed.region_roots.size(), Location{});
            placed.image_roots.assign(placed.image_roots.size(), Location{});
            const auto file = encode_manifest(placed); // gives it its digest
            const StreamEntry entry{placed.manifest.digest, static_cast<u32>(snapshot->tag.size()),
                                    static_cast<u32>(file.size())};
            append(bytes_of(entry));
            append(std::as_bytes(std::span(snapshot->tag)));
            append(file);
        }
        const Digest seal = sha256(heads);
        TRY(put(heads));
        return put(bytes_of(seal));
    }

    Result<> add(RecordKind kind, std::size_t payload, const Digest& digest,
                 std::span<const std::byte> bytes) {
        if (!raw_.empty() &&
            (raw_.size() + bytes.size() > payload || items_.size() > Location::max_slot)) {
            TRY(flush(kind));
        }
        raw_.insert(raw_.end(), bytes.begin(), bytes.end());
        items_.push_back({digest, static_cast<u32>(bytes.size())});
        return {};
    }

    Result<> flush(RecordKind kind) {
        if (items_.empty()) {
            return {};
        }
        const auto record = TRY(encoder_.encode(kind, items_, raw_));
        TRY(put(record));
        ++records_;
        raw_.clear();
        items_.clear();
        return {};
    }

    /// Everything of one level (0: pages) in all snapshots that was not sent yet.
    Result<> put_level(unsigned level) {
        for (const auto& snapshot : snapshots_) {
            RecordCache nodes(*snapshot->packs, RecordKind::nodes, max_levels);
            RecordCache pages(*snapshot->packs, RecordKind::pages, 4);
            for (const PlacedMap& map : maps_of(snapshot->placed)) {
                pages_ = map.pages;
                const Subtree root{map_levels(pages_), 0, map.location, map.root};
                if (root.level >= level) {
                    TRY(put_subtree(nodes, pages, root, level), "snapshot " + snapshot->tag);
                }
                if (level == 0) {
                    before_ += map.pages << page_shift;
                }
                TRY(tell(before_));
            }
        }
        seen_.clear();
        return flush(level == 0 ? RecordKind::pages : RecordKind::nodes);
    }

    struct Subtree {
        unsigned level = 0;
        u64 index = 0;
        Location location;
        Digest digest;
    };

    Result<> put_subtree(RecordCache& nodes, RecordCache& pages, const Subtree& tree,
                         unsigned wanted) {
        // What was met at this level of the walk was sent with all below it.
        if (tree.digest == zero_digest || !seen_.insert(tree.digest).second) {
            return {};
        }
        if (tree.level == 0) {
            ++report_.pages;
            return add(RecordKind::pages, extent_payload, tree.digest,
                       TRY(read_page(pages, tree.location, tree.digest)));
        }
        MapNode node;
        TRY(read_node(nodes, tree.location, tree.digest, pages_, tree.level, tree.index, node));
        if (tree.level == wanted) {
            node.locations.fill(Location{});
            std::vector<std::byte> bytes;
            encode_node(node, bytes);
            return add(RecordKind::nodes, extent_payload, tree.digest, bytes);
        }
        for (u64 i = 0; i < fanout; ++i) {
            TRY(put_subtree(nodes, pages,
                            {tree.level - 1, (tree.index << fanout_shift) + i, node.locations[i],
                             node.digests[i]},
                            wanted));
        }
        const u64 first = tree.index << (fanout_shift * tree.level);
        return tree.level == 2 && wanted == 0 ? tell(before_ + (first << page_shift)) : Result<>{};
    }

    Result<> put_units() {
        std::unordered_set<Digest, DigestHash> sent;
        for (const auto& snapshot : snapshots_) {
            for (std::size_t i = 0; i < snapshot->units.size(); ++i) {
                const Unit& unit = snapshot->units[i];
                const Digest& digest = snapshot->placed.manifest.units[i].digest;
                if (!unit.bytes.empty() && sent.insert(digest).second) {
                    TRY(add(RecordKind::units, unit_payload, digest, unit.bytes));
                }
            }
        }
        return flush(RecordKind::units);
    }

    Result<> put_trailer() {
        StreamTrailer trailer{};
        std::memcpy(trailer.magic, stream_end_magic, sizeof(stream_end_magic));
        trailer.version = stream_version;
        trailer.records = records_;
        trailer.bytes = bytes_ + sizeof(trailer);
        trailer.digest = sha256(bytes_of(trailer).first(sizeof(trailer) - sizeof(Digest)));
        return put(bytes_of(trailer));
    }

    Result<> tell(u64 done) const {
        if (options_.progress && !options_.progress(done, total_)) {
            return fail(ErrorCode::failed, "interrupted");
        }
        return {};
    }

    std::vector<std::shared_ptr<const SnapshotData>> snapshots_;
    int fd_;
    const ExportOptions& options_;
    ExportReport report_;
    u64 bytes_ = 0;
    u64 records_ = 0;
    u64 total_ = 0;  ///< bytes of memory and images
    u64 before_ = 0; ///< of these, in the maps that are done
    u64 pages_ = 0;  ///< of the map that is walked
    RecordEncoder encoder_;
    std::vector<std::byte> raw_;
    std::vector<Item> items_;
    std::unordered_set<Digest, DigestHash> seen_; ///< while one level is sent
};

} // namespace

Result<ExportReport> Store::export_to(std::span<const std::string> tags, int fd,
                                      const ExportOptions& options) const {
    if (tags.empty() || tags.size() > max_stream_snapshots) {
        return fail(ErrorCode::usage, "an export takes 1 to 65536 snapshots");
    }
    std::vector<std::shared_ptr<const SnapshotData>> snapshots;
    for (const std::string& tag : tags) {
        for (const auto& other : snapshots) {
            if (other->tag == tag) {
                return fail(ErrorCode::usage, "snapshot " + tag + " is named twice");
            }
        }
        auto snapshot = TRY(impl_->load(tag));
        snapshots.push_back(options.write_as ? written_as(std::move(snapshot), *options.write_as)
                                             : std::move(snapshot));
    }
    return Exporter(std::move(snapshots), fd, options).run();
}

} // namespace nestor::snapshot
