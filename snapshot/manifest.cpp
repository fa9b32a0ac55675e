// The one place that turns manifests into Cap'n Proto messages and back, and the seam where KJ's
// exceptions end. A message is read only after its digest was compared, but a forged file may have
// right digests, so nothing in it is relied on unchecked either.
#include "snapshot/manifest.hpp"

#include <cstdio>
#include <cstring>

#include <capnp/message.h>
#include <capnp/serialize.h>

#include "snapshot/format.hpp"
#include "snapshot/memory_map.hpp"
#include "snapshot/snapshot.capnp.h"

namespace nestor::snapshot {

namespace {

struct FileHeader {
    char magic[8];
    u32 version;
    u32 manifest_words;
    u32 placement_words;
    u32 zero;
};
static_assert(sizeof(FileHeader) == 24);
constexpr char manifest_magic[8] = {'n', 'e', 's', 't', 'm', 'a', 'n', 'i'};

Failure corrupt_manifest(std::string what) {
    return fail(ErrorCode::corrupt, "manifest: " + std::move(what));
}

capnp::Data::Reader data(const Digest& digest) {
    return {digest.bytes.data(), digest.bytes.size()};
}
capnp::Data::Reader optional_data(const Digest& digest) {
    return digest == Digest{} ? capnp::Data::Reader() : data(digest);
}
capnp::Data::Reader data(const std::vector<std::byte>& bytes) {
    return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}

Result<Digest> take_digest(capnp::Data::Reader bytes) {
    Digest digest;
    if (bytes.size() != digest.bytes.size()) {
        return corrupt_manifest("a digest has the wrong length");
    }
    std::memcpy(digest.bytes.data(), bytes.begin(), bytes.size());
    return digest;
}

std::string text(capnp::Text::Reader reader) { return {reader.begin(), reader.size()}; }

void append(std::vector<std::byte>& out, kj::ArrayPtr<const capnp::word> words) {
    const auto bytes = words.asBytes();
    const auto* const first = reinterpret_cast<const std::byte*>(bytes.begin());
    out.insert(out.end(), first, first + bytes.size());
}

kj::Array<capnp::word> manifest_words(const Manifest& manifest) {
    capnp::MallocMessageBuilder message;
    auto m = message.initRoot<schema::Manifest>();
    m.setFormat(manifest.format);
    m.setSchemaSet(data(manifest.schema_set));
    m.setEngineSemantics(manifest.engine_semantics);
    auto contract = m.initContract();
    contract.setType(manifest.contract.type);
    contract.setBytes(data(manifest.contract.bytes));
    auto units = m.initUnits(static_cast<unsigned>(manifest.units.size()));
    for (unsigned i = 0; i < units.size(); ++i) {
        const UnitEntry& unit = manifest.units[i];
        units[i].setName(unit.name);
        units[i].setType(unit.type);
        units[i].setSize(unit.size);
        units[i].setDigest(data(unit.digest));
    }
    auto regions = m.initRegions(static_cast<unsigned>(manifest.regions.size()));
    for (unsigned i = 0; i < regions.size(); ++i) {
        const RegionEntry& region = manifest.regions[i];
        regions[i].setStart(region.start.value());
        regions[i].setSize(region.size);
        regions[i].setRoot(optional_data(region.root));
    }
    if (!manifest.images.empty()) { // otherwise the bytes are those of format 1
        auto images = m.initImages(static_cast<unsigned>(manifest.images.size()));
        for (unsigned i = 0; i < images.size(); ++i) {
            const ImageEntry& image = manifest.images[i];
            images[i].setKind(static_cast<schema::ImageKind>(image.kind));
            images[i].setName(image.name);
            images[i].setNamed(image.named);
            images[i].setArguments(image.arguments);
            images[i].setSize(image.size);
            images[i].setRoot(optional_data(image.root));
        }
    }
    m.setMemoryRoot(data(manifest.memory_root));
    m.setMachineDigest(data(manifest.machine_digest));
    if (manifest.parent) {
        m.setParent(data(*manifest.parent));
    }
    m.setParentTag(manifest.parent_tag);
    m.setTier(static_cast<schema::Tier>(manifest.tier));
    m.setCloneForbidden(manifest.clone_forbidden);
    auto provenance = m.initProvenance();
    provenance.setCreatedUnixNs(manifest.provenance.created_unix_ns);
    provenance.setHost(manifest.provenance.host);
    provenance.setCreator(manifest.provenance.creator);
    provenance.setMachine(manifest.provenance.machine);
    provenance.setCount(manifest.provenance.count);
    provenance.setPauseNs(manifest.provenance.pause_ns);
    provenance.setSaveNs(manifest.provenance.save_ns);
    provenance.setRestored(manifest.provenance.restored);
    return capnp::canonicalize(m.asReader());
}

kj::Array<capnp::word> placement_words(const PlacedManifest& placed) {
    capnp::MallocMessageBuilder message;
    auto p = message.initRoot<schema::Placement>();
    auto units = p.initUnits(static_cast<unsigned>(placed.units.size()));
    for (unsigned i = 0; i < units.size(); ++i) {
        units.set(i, placed.units[i].value());
    }
    auto roots = p.initRegionRoots(static_cast<unsigned>(placed.region_roots.size()));
    for (unsigned i = 0; i < roots.size(); ++i) {
        roots.set(i, placed.region_roots[i].value());
    }
    if (!placed.image_roots.empty()) {
        auto images = p.initImageRoots(static_cast<unsigned>(placed.image_roots.size()));
        for (unsigned i = 0; i < images.size(); ++i) {
            images.set(i, placed.image_roots[i].value());
        }
    }
    return capnp::canonicalize(p.asReader());
}

Result<> read_units(schema::Manifest::Reader m, Manifest& manifest) {
    for (const auto entry : m.getUnits()) {
        UnitEntry unit{text(entry.getName()), entry.getType(), entry.getSize(),
                       TRY(take_digest(entry.getDigest()))};
        if (unit.name.empty() || unit.size > max_raw_size) {
            return corrupt_manifest("a unit has no name or an impossible size");
        }
        if (!manifest.units.empty() && manifest.units.back().name >= unit.name) {
            return corrupt_manifest("the units are out of order");
        }
        manifest.units.push_back(std::move(unit));
    }
    return {};
}

Result<> read_regions(schema::Manifest::Reader m, Manifest& manifest) {
    std::vector<Extent> extents;
    for (const auto entry : m.getRegions()) {
        RegionEntry region{Gpa(entry.getStart()), entry.getSize(), {}};
        if (entry.getRoot().size() != 0) {
            region.root = TRY(take_digest(entry.getRoot()));
        }
        extents.push_back({region.start, region.size});
        manifest.regions.push_back(region);
    }
    const auto order = order_regions(extents);
    if (!order) {
        return corrupt_manifest(order.error().message);
    }
    for (std::size_t i = 0; i < order->size(); ++i) {
        if ((*order)[i] != i) {
            return corrupt_manifest("the memory regions are out of order");
        }
    }
    return {};
}

/// Errors as of the sizes that a machine may be given.
Result<> read_images(schema::Manifest::Reader m, Manifest& manifest) {
    if (m.getImages().size() > max_images) {
        return corrupt_manifest("it names more than " + std::to_string(max_images) +
                                " boot images");
    }
    u64 left = max_image_bytes;
    for (const auto entry : m.getImages()) {
        if (entry.getKind() > schema::ImageKind::MODULE) {
            return fail(ErrorCode::incompatible,
                        "manifest: kind of a boot image: written by a newer version",
                        "use a newer vm");
        }
        ImageEntry image{static_cast<ImageKind>(entry.getKind()),
                         text(entry.getName()),
                         entry.getNamed(),
                         text(entry.getArguments()),
                         entry.getSize(),
                         {}};
        if ((image.kind == ImageKind::kernel) != manifest.images.empty()) {
            return corrupt_manifest("its boot images are not one kernel and then modules");
        }
        if (image.size > left) {
            return corrupt_manifest("its boot images are larger than 4 GiB together");
        }
        left -= image.size;
        if (entry.getRoot().size() != 0) {
            image.root = TRY(take_digest(entry.getRoot()));
        }
        if (image.size == 0 && image.root != Digest{}) {
            return corrupt_manifest("a boot image of no bytes has some");
        }
        manifest.images.push_back(std::move(image));
    }
    if (manifest.images.empty() != (manifest.format == format_without_images)) {
        return corrupt_manifest("its format does not fit its boot images");
    }
    return {};
}

Result<Manifest> read_manifest(schema::Manifest::Reader m) {
    Manifest manifest;
    manifest.format = m.getFormat();
    if (manifest.format < format_without_images || manifest.format > format_version) {
        return fail(ErrorCode::incompatible,
                    "manifest: format " + std::to_string(manifest.format) +
                        "; this version knows formats " + std::to_string(format_without_images) +
                        " to " + std::to_string(format_version),
                    "use a newer vm");
    }
    if (m.getTier() > schema::Tier::CLONE) {
        return fail(ErrorCode::incompatible, "manifest: tier: written by a newer version",
                    "use a newer vm");
    }
    manifest.schema_set = TRY(take_digest(m.getSchemaSet()));
    manifest.engine_semantics = m.getEngineSemantics();
    manifest.contract.type = m.getContract().getType();
    const auto bytes = m.getContract().getBytes();
    const auto* const first = reinterpret_cast<const std::byte*>(bytes.begin());
    manifest.contract.bytes.assign(first, first + bytes.size());
    TRY(read_units(m, manifest));
    TRY(read_regions(m, manifest));
    TRY(read_images(m, manifest));
    manifest.memory_root = TRY(take_digest(m.getMemoryRoot()));
    manifest.machine_digest = TRY(take_digest(m.getMachineDigest()));
    if (m.getParent().size() != 0) {
        manifest.parent = TRY(take_digest(m.getParent()));
    }
    manifest.parent_tag = text(m.getParentTag());
    manifest.tier = static_cast<Tier>(m.getTier());
    manifest.clone_forbidden = m.getCloneForbidden();
    const auto provenance = m.getProvenance();
    manifest.provenance = {provenance.getCreatedUnixNs(), text(provenance.getHost()),
                           text(provenance.getCreator()), text(provenance.getMachine()),
                           provenance.getCount(),         provenance.getPauseNs(),
                           provenance.getSaveNs(),        text(provenance.getRestored())};
    if (map_root(manifest.regions) != manifest.memory_root ||
        machine_digest(manifest.contract, manifest.units, manifest.memory_root,
                       images_digest(manifest.images)) != manifest.machine_digest) {
        return corrupt_manifest("its digests do not fit together");
    }
    return manifest;
}

/// The words of one message, aligned, and a reader with explicit limits over them.
class Message final {
public:
    explicit Message(std::span<const std::byte> bytes)
        : words_(kj::heapArray<capnp::word>(bytes.size() / sizeof(capnp::word))) {
        std::memcpy(words_.begin(), bytes.data(), words_.size() * sizeof(capnp::word));
        segments_[0] = words_.asPtr();
    }
    /// Canonical messages have no shared parts, so reading one traverses each word once.
    capnp::ReaderOptions limits() const {
        capnp::ReaderOptions options;
        options.traversalLimitInWords = 4 * words_.size() + 1024;
        options.nestingLimit = 16;
        return options;
    }
    kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments() const {
        return kj::arrayPtr(segments_, 1);
    }

private:
    kj::Array<capnp::word> words_;
    kj::ArrayPtr<const capnp::word> segments_[1];
};

Result<PlacedManifest> parse(std::span<const std::byte> manifest_bytes,
                             std::span<const std::byte> placement_bytes) {
    PlacedManifest placed;
    const Message manifest(manifest_bytes);
    capnp::SegmentArrayMessageReader manifest_reader(manifest.segments(), manifest.limits());
    placed.manifest = TRY(read_manifest(manifest_reader.getRoot<schema::Manifest>()));
    const Message placement(placement_bytes);
    capnp::SegmentArrayMessageReader placement_reader(placement.segments(), placement.limits());
    const auto p = placement_reader.getRoot<schema::Placement>();
    for (const u64 location : p.getUnits()) {
        placed.units.emplace_back(location);
    }
    for (const u64 location : p.getRegionRoots()) {
        placed.region_roots.emplace_back(location);
    }
    for (const u64 location : p.getImageRoots()) {
        placed.image_roots.emplace_back(location);
    }
    if (placed.units.size() != placed.manifest.units.size() ||
        placed.image_roots.size() != placed.manifest.images.size() ||
        placed.region_roots.size() != placed.manifest.regions.size()) {
        return corrupt_manifest("its placement does not fit");
    }
    return placed;
}

} // namespace

std::string PlacedMap::describe(u64 page) const {
    if (!image.empty()) {
        return "boot image " + image + ", page " + std::to_string(page);
    }
    char text[32];
    std::snprintf(text, sizeof(text), "page at 0x%llx",
                  static_cast<unsigned long long>((first.value() + page) << page_shift));
    return text;
}

std::vector<PlacedMap> maps_of(const PlacedManifest& placed) {
    std::vector<PlacedMap> maps;
    for (std::size_t i = 0; i < placed.manifest.regions.size(); ++i) {
        const RegionEntry& region = placed.manifest.regions[i];
        maps.push_back({region.size >> page_shift, region.root, placed.region_roots[i],
                        gfn_of(region.start), ""});
    }
    for (std::size_t i = 0; i < placed.manifest.images.size(); ++i) {
        const ImageEntry& image = placed.manifest.images[i];
        maps.push_back({image_pages(image.size), image.root, placed.image_roots[i], Gfn(0),
                        image.name.empty() ? std::to_string(i) : image.name});
    }
    return maps;
}

void drop_images(PlacedManifest& placed) {
    Manifest& manifest = placed.manifest;
    manifest.images.clear();
    placed.image_roots.clear();
    manifest.format = format_without_images;
    manifest.machine_digest =
        machine_digest(manifest.contract, manifest.units, manifest.memory_root);
}

std::vector<std::byte> encode_manifest(PlacedManifest& placed) {
    const auto manifest = manifest_words(placed.manifest);
    const auto placement = placement_words(placed);
    FileHeader header{};
    std::memcpy(header.magic, manifest_magic, sizeof(manifest_magic));
    header.version = 1;
    header.manifest_words = static_cast<u32>(manifest.size());
    header.placement_words = static_cast<u32>(placement.size());
    std::vector<std::byte> out;
    const auto head = bytes_of(header);
    out.insert(out.end(), head.begin(), head.end());
    append(out, manifest);
    placed.manifest.digest = sha256(std::span(out).subspan(sizeof(header)));
    append(out, placement);
    const Digest seal = sha256(out);
    const auto tail = bytes_of(seal);
    out.insert(out.end(), tail.begin(), tail.end());
    return out;
}

Result<PlacedManifest> decode_manifest(std::span<const std::byte> file, const Digest& expected) {
    if (file.size() < sizeof(FileHeader) + sizeof(Digest)) {
        return corrupt_manifest("the file is cut short");
    }
    const auto header = load_at<FileHeader>(file, 0);
    const auto body = file.first(file.size() - sizeof(Digest));
    if (std::memcmp(header.magic, manifest_magic, sizeof(manifest_magic)) != 0 ||
        sha256(body) != load_at<Digest>(file, body.size())) {
        return corrupt_manifest("the file is damaged");
    }
    if (header.version != 1) {
        return fail(ErrorCode::incompatible, "manifest: written by a newer version",
                    "use a newer vm");
    }
    const u64 manifest_size = u64{header.manifest_words} * sizeof(capnp::word);
    const u64 placement_size = u64{header.placement_words} * sizeof(capnp::word);
    if (header.zero != 0 || body.size() != sizeof(header) + manifest_size + placement_size) {
        return corrupt_manifest("the file has the wrong length");
    }
    const auto manifest_bytes = body.subspan(sizeof(header), manifest_size);
    if (sha256(manifest_bytes) != expected) {
        return corrupt_manifest("the file holds another manifest");
    }
    try {
        PlacedManifest placed =
            TRY(parse(manifest_bytes, body.subspan(sizeof(header) + manifest_size)));
        placed.manifest.digest = expected;
        return placed;
    } catch (const kj::Exception& e) {
        return corrupt_manifest(std::string("malformed: ") + e.getDescription().cStr());
    }
}

} // namespace nestor::snapshot
