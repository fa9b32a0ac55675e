// The order in which a restore touched its pages: orders/MANIFEST, "nestorde", u32 version, u32
// zero, u64 count, the page numbers, SHA-256 of all before. A hint: whoever reads a damaged one
// sees none.
#include "snapshot/touch_order.hpp"

#include <cstring>

#include "snapshot/format.hpp"
#include "snapshot/store.hpp"

namespace nestor::snapshot {

namespace {

struct OrderHeader {
    char magic[8];
    u32 version;
    u32 zero;
    u64 count;
};
static_assert(sizeof(OrderHeader) == 24);
constexpr char order_magic[8] = {'n', 'e', 's', 't', 'o', 'r', 'd', 'e'};

} // namespace

std::vector<std::byte> encode_order(std::span<const Gfn> order) {
    OrderHeader header{};
    std::memcpy(header.magic, order_magic, sizeof(order_magic));
    header.version = 1;
    header.count = order.size();
    std::vector<std::byte> out;
    out.reserve(sizeof(header) + order.size() * sizeof(u64) + sizeof(Digest));
    const auto append = [&out](std::span<const std::byte> bytes) {
        out.insert(out.end(), bytes.begin(), bytes.end());
    };
    append(bytes_of(header));
    for (const Gfn page : order) {
        append(bytes_of(page.value()));
    }
    const Digest seal = sha256(out);
    append(bytes_of(seal));
    return out;
}

std::optional<std::vector<Gfn>> decode_order(std::span<const std::byte> file) {
    if (file.size() < sizeof(OrderHeader) + sizeof(Digest)) {
        return std::nullopt;
    }
    const auto body = file.first(file.size() - sizeof(Digest));
    const auto header = load_at<OrderHeader>(file, 0);
    const u64 room = body.size() - sizeof(OrderHeader);
    if (std::memcmp(header.magic, order_magic, sizeof(order_magic)) != 0 || header.version != 1 ||
        header.zero != 0 || room % sizeof(u64) != 0 || header.count != room / sizeof(u64) ||
        sha256(body) != load_at<Digest>(file, body.size())) {
        return std::nullopt;
    }
    std::vector<Gfn> order;
    order.reserve(header.count);
    for (u64 i = 0; i < header.count; ++i) {
        order.emplace_back(load_at<u64>(file, sizeof(OrderHeader) + i * sizeof(u64)));
    }
    return order;
}

std::vector<Gfn> Snapshot::touch_order() const {
    if (!file_exists(data_->order)) {
        return {};
    }
    const auto file = read_file(data_->order, max_order_file);
    auto order = file ? decode_order(*file) : std::nullopt;
    if (!order) {
        return {};
    }
    std::erase_if(*order, [this](Gfn page) {
        for (const RegionEntry& region : manifest().regions) {
            const u64 first = gfn_of(region.start).value();
            if (page.value() >= first && page.value() - first < region.size >> page_shift) {
                return false;
            }
        }
        return true;
    });
    return std::move(*order);
}

Result<> Store::record_order(const Snapshot& snapshot, std::span<const Gfn> order) {
    const Layout& layout = impl_->layout;
    const std::string name = to_hex(snapshot.manifest().digest);
    const WriterLock lock = TRY(WriterLock::take(layout, std::chrono::milliseconds(0)));
    if (!file_exists(layout.manifest(snapshot.manifest().digest))) {
        return {}; // of another store, or gone
    }
    return replace_file(layout.orders(), name, encode_order(order));
}

} // namespace nestor::snapshot
