// Marking. Owns: what counts as a root: every reference, and every manifest that a living process
// holds a lease on. References are read before leases: a reader takes its lease first and then
// looks whether the tag is still there, so one of the two is seen.
#include "snapshot/mark.hpp"

namespace nestor::snapshot {

Result<> Marker::mark_node(Location location, const Digest& digest, unsigned level, u64 index,
                           u64 pages) {
    if (digest == zero_digest || !live_.add(location) || level == 0) {
        return {};
    }
    MapNode node;
    TRY(read_node(cache_, location, digest, pages, level, index, node));
    for (u64 i = 0; i < fanout; ++i) {
        if (node.digests[i] != zero_digest) {
            TRY(mark_node(node.locations[i], node.digests[i], level - 1,
                          (index << fanout_shift) + i, pages));
        }
    }
    return {};
}

Result<> Marker::mark_manifest(const Digest& digest) {
    if (manifests_.contains(digest)) {
        return {};
    }
    const PlacedManifest placed = TRY(store_.manifest(digest));
    for (std::size_t i = 0; i < placed.units.size(); ++i) {
        if (placed.manifest.units[i].size != 0) {
            live_.add(placed.units[i]);
        }
    }
    for (const PlacedMap& map : maps_of(placed)) {
        TRY(mark_node(map.location, map.root, map_levels(map.pages), 0, map.pages));
    }
    manifests_.insert(digest);
    return {};
}

Result<> Marker::mark() {
    constexpr const char* remedy = "vm store fsck tells more; vm snap rm removes the snapshot";
    constexpr const char* newer = "use a newer vm, also to collect: nothing is damaged";
    const Layout& layout = store_.layout;
    std::set<Digest> tagged;
    snapshots_ = 0;
    for (const std::string& tag : TRY(list_tags(layout))) {
        const auto reference = read_reference(layout, tag);
        const Result<> marked =
            reference ? mark_manifest(reference->manifest) : Failure(reference.error());
        if (!marked) {
            Error error = with_context(marked.error(), "snapshot " + tag);
            error.remedy = error.code == ErrorCode::incompatible ? newer : remedy;
            return Failure(std::move(error));
        }
        tagged.insert(reference->manifest);
        ++snapshots_;
    }
    leased_ = 0;
    for (const Digest& digest : TRY(live_leases(layout))) {
        // One that is gone already was not: its reader looks again and finds no tag.
        if (!tagged.contains(digest) && file_exists(layout.manifest(digest))) {
            TRY(mark_manifest(digest), "a snapshot without a tag that is being read");
            ++leased_;
        }
    }
    return {};
}

} // namespace nestor::snapshot
