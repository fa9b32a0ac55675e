// LMDB trusts its file: a flipped bit in a page makes the library crash or return other data. So
// before a writer opens the index, this walks it the way LMDB would, with every offset checked.
// The structures are those of LMDB 0.9 (mdb.c: MDB_page, MDB_meta, MDB_db, MDB_node) on a 64-bit
// little-endian machine.
//
// What passes here can still say something wrong (there are no checksums in LMDB), but what the
// index says is compared with the pack's own item list before it is used.
#include "snapshot/lmdb_check.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "snapshot/format.hpp"

namespace nestor::snapshot {

namespace {

constexpr u64 lmdb_page = 4096;
constexpr u32 meta_magic = 0xbeefc0de;
constexpr u32 meta_version = 1;
constexpr u64 no_page = ~u64{0};
constexpr u16 flag_branch = 0x01;
constexpr u16 flag_leaf = 0x02;
constexpr u16 flag_overflow = 0x04;
constexpr u16 flag_meta = 0x08;
constexpr u16 node_big_data = 0x01;
constexpr u16 free_flags = 0x4008; // MDB_INTEGERKEY, and MDB_NOSUBDIR of the environment
constexpr std::size_t max_key = 511;

struct PageHeader {
    u64 number;
    u16 pad;
    u16 flags;
    u16 lower; // with upper: number of pages, on the first page of an overflow run
    u16 upper;
};
static_assert(sizeof(PageHeader) == 16);

struct Db {
    u32 pad; // page size, in the free table
    u16 flags;
    u16 depth;
    u64 branch_pages;
    u64 leaf_pages;
    u64 overflow_pages;
    u64 entries;
    u64 root;
};
static_assert(sizeof(Db) == 48);

struct Meta {
    u32 magic;
    u32 version;
    u64 address;
    u64 map_size;
    Db free;
    Db main;
    u64 last_page;
    u64 txn;
};
static_assert(sizeof(Meta) == 136);

struct NodeHeader {
    u16 low; // size of the data, or with `high` and `flags` a child's page number
    u16 high;
    u16 flags;
    u16 key_size;
};
static_assert(sizeof(NodeHeader) == 8);

using Bytes = std::span<const std::byte>;

class Checker final {
public:
    explicit Checker(Bytes file) : file_(file) {}

    Result<> run() {
        if (file_.size() < 2 * lmdb_page) {
            return bad("it is cut short");
        }
        Meta metas[2];
        for (u64 i = 0; i < 2; ++i) {
            TRY(read_meta(i, metas[i]));
        }
        const Meta& meta = metas[0].txn < metas[1].txn ? metas[1] : metas[0];
        pages_ = std::min(meta.last_page + 1, file_.size() / lmdb_page);
        last_page_ = meta.last_page;
        txn_ = meta.txn;
        used_.assign(pages_, false);
        TRY(walk(meta.main, false));
        return walk(meta.free, true);
    }

private:
    struct Totals {
        u64 branches = 0;
        u64 leaves = 0;
        u64 overflows = 0;
        u64 entries = 0;
    };
    /// Keys of a subtree lie in [low, high); an empty bound is none.
    struct Step {
        u64 page;
        unsigned depth;
        Bytes low;
        Bytes high;
    };
    struct Node {
        NodeHeader header;
        Bytes key;
        Bytes rest; ///< from the end of the key to the end of the page
    };

    static Failure bad(const char* what) {
        return fail(ErrorCode::corrupt, std::string("the index is damaged: ") + what);
    }
    static Failure bad_at(const char* what, u64 page) {
        return fail(ErrorCode::corrupt, std::string("the index is damaged: ") + what + " in page " +
                                            std::to_string(page));
    }
    [[nodiscard]] Bytes page(u64 number) const {
        return file_.subspan(number * lmdb_page, lmdb_page);
    }

    Result<> read_meta(u64 number, Meta& meta) const {
        const auto header = load_at<PageHeader>(page(number), 0);
        meta = load_at<Meta>(page(number), sizeof(PageHeader));
        const bool sane = header.number == number && header.flags == flag_meta &&
                          meta.magic == meta_magic && meta.version == meta_version &&
                          meta.free.pad == lmdb_page && meta.address == 0 &&
                          meta.map_size % lmdb_page == 0 && meta.map_size <= u64{1} << 46 &&
                          meta.free.flags == free_flags && meta.main.flags == 0 &&
                          meta.last_page >= 1 && meta.last_page < meta.map_size / lmdb_page;
        return sane ? Result<>{} : bad_at("the description is wrong", number);
    }

    Result<> claim(u64 number) {
        if (number < 2 || number >= pages_) {
            return bad_at("a page beyond the end is referred to", number);
        }
        if (used_[number]) {
            return bad_at("something is referred to twice", number);
        }
        used_[number] = true;
        return {};
    }

    /// Free keys are txn ids in the machine's byte order, main keys compare as bytes.
    [[nodiscard]] bool less(Bytes a, Bytes b) const {
        if (free_) {
            return load_at<u64>(a, 0) < load_at<u64>(b, 0);
        }
        const int order = std::memcmp(a.data(), b.data(), std::min(a.size(), b.size()));
        return order != 0 ? order < 0 : a.size() < b.size();
    }

    Result<> walk(const Db& db, bool free) {
        free_ = free;
        Totals totals;
        if (db.root == no_page) {
            if (db.depth != 0) {
                return bad("an empty table has a depth");
            }
        } else {
            if (db.depth == 0 || db.depth > 32) {
                return bad("a table has an impossible depth");
            }
            std::vector<Step> stack{{db.root, 1, {}, {}}};
            while (!stack.empty()) {
                const Step step = stack.back();
                stack.pop_back();
                TRY(check_page(step, db.depth, totals, stack));
            }
        }
        const bool same = totals.branches == db.branch_pages && totals.leaves == db.leaf_pages &&
                          totals.overflows == db.overflow_pages && totals.entries == db.entries;
        return same ? Result<>{} : bad("the totals do not agree");
    }

    Result<> check_page(const Step& step, unsigned depth, Totals& totals,
                        std::vector<Step>& stack) {
        TRY(claim(step.page));
        const Bytes bytes = page(step.page);
        const auto header = load_at<PageHeader>(bytes, 0);
        const bool leaf = step.depth == depth;
        if (header.number != step.page || header.flags != (leaf ? flag_leaf : flag_branch) ||
            header.lower < sizeof(PageHeader) || header.lower > header.upper ||
            header.upper > lmdb_page || header.lower % 2 != 0 || header.upper % 2 != 0) {
            return bad_at("a header is wrong", step.page);
        }
        const std::size_t count = (header.lower - sizeof(PageHeader)) / sizeof(u16);
        if (count < (leaf ? 1u : 2u)) {
            return bad_at("there are too few entries", step.page);
        }
        (leaf ? totals.leaves : totals.branches) += 1;
        std::vector<Node> nodes(count);
        std::vector<u64> spans;
        for (std::size_t i = 0; i < count; ++i) {
            TRY(read_node(bytes, header, i, leaf, step, nodes[i]));
            if (i > (leaf ? 0u : 1u) && !less(nodes[i - 1].key, nodes[i].key)) {
                return bad_at("keys are out of order", step.page);
            }
            u64 size = node_size(nodes[i], leaf);
            const auto offset = load_at<u16>(bytes, sizeof(PageHeader) + 2 * i);
            spans.push_back(u64{offset} << 32 | size);
        }
        TRY(check_packing(spans, header, step.page));
        for (std::size_t i = 0; i < count; ++i) {
            if (leaf) {
                TRY(check_leaf(nodes[i], totals, step.page));
                continue;
            }
            const NodeHeader& h = nodes[i].header;
            const u64 child = u64{h.low} | u64{h.high} << 16 | u64{h.flags} << 32;
            stack.push_back({child, step.depth + 1, i == 0 ? step.low : nodes[i].key,
                             i + 1 < count ? nodes[i + 1].key : step.high});
        }
        return {};
    }

    static u64 node_size(const Node& node, bool leaf) {
        u64 size = sizeof(NodeHeader) + node.key.size();
        if (leaf) {
            const u64 data = u64{node.header.low} | u64{node.header.high} << 16;
            size += (node.header.flags & node_big_data) != 0 ? sizeof(u64) : data;
        }
        return size + (size & 1);
    }

    /// Nodes fill the page from `upper` to its end, without holes or overlaps.
    static Result<> check_packing(std::vector<u64>& spans, const PageHeader& header, u64 number) {
        std::sort(spans.begin(), spans.end());
        u64 at = header.upper;
        for (const u64 span : spans) {
            if (span >> 32 != at) {
                return bad_at("entries overlap", number);
            }
            at += span & 0xffffffff;
        }
        return at == lmdb_page ? Result<>{} : bad_at("entries overlap", number);
    }

    Result<> read_node(Bytes bytes, const PageHeader& page_header, std::size_t i, bool leaf,
                       const Step& step, Node& node) const {
        const auto offset = load_at<u16>(bytes, sizeof(PageHeader) + 2 * i);
        if (offset < page_header.upper || offset % 2 != 0 ||
            offset > lmdb_page - sizeof(NodeHeader)) {
            return bad_at("an entry lies outside", step.page);
        }
        node.header = load_at<NodeHeader>(bytes, offset);
        const Bytes rest = bytes.subspan(offset + sizeof(NodeHeader));
        if (node.header.key_size > max_key || node.header.key_size > rest.size()) {
            return bad_at("a key is too long", step.page);
        }
        node.key = rest.first(node.header.key_size);
        node.rest = rest.subspan(node.header.key_size);
        if (!leaf && i == 0) {
            return {}; // the first key of a branch is not used
        }
        if (node.key.empty() || (free_ && node.key.size() != sizeof(u64))) {
            return bad_at("a key has the wrong length", step.page);
        }
        if ((!step.low.empty() && less(node.key, step.low)) ||
            (!step.high.empty() && !less(node.key, step.high))) {
            return bad_at("a key is in the wrong place", step.page);
        }
        return {};
    }

    Result<> check_leaf(const Node& node, Totals& totals, u64 number) {
        totals.entries += 1;
        const u64 size = u64{node.header.low} | u64{node.header.high} << 16;
        Bytes data;
        if (node.header.flags == node_big_data) {
            if (node.rest.size() < sizeof(u64)) {
                return bad_at("an entry lies outside", number);
            }
            data = TRY(read_overflow(load_at<u64>(node.rest, 0), size, totals));
        } else if (node.header.flags == 0 && size <= node.rest.size()) {
            data = node.rest.first(size);
        } else {
            return bad_at("an entry is of an unknown kind or too long", number);
        }
        return free_ ? check_free_list(node, data, number) : Result<>{};
    }

    Result<Bytes> read_overflow(u64 first, u64 size, Totals& totals) {
        if (first < 2 || first >= pages_) {
            return bad_at("a page beyond the end is referred to", first);
        }
        const auto header = load_at<PageHeader>(page(first), 0);
        const u64 count = u64{header.lower} | u64{header.upper} << 16;
        if (header.number != first || header.flags != flag_overflow || count == 0 ||
            count > pages_ - first || count != (sizeof(PageHeader) + size - 1) / lmdb_page + 1) {
            return bad_at("a long entry is wrong", first);
        }
        for (u64 i = 0; i < count; ++i) {
            TRY(claim(first + i));
        }
        totals.overflows += count;
        return file_.subspan(first * lmdb_page + sizeof(PageHeader), size);
    }

    /// A free list: how many, then page numbers from high to low, none of them in use.
    Result<> check_free_list(const Node& node, Bytes data, u64 number) {
        if (load_at<u64>(node.key, 0) > txn_ || data.size() < sizeof(u64) ||
            data.size() % sizeof(u64) != 0) {
            return bad_at("a free list is wrong", number);
        }
        const u64 count = load_at<u64>(data, 0);
        if (count > data.size() / sizeof(u64) - 1) {
            return bad_at("a free list is wrong", number);
        }
        u64 before = last_page_ + 1;
        for (u64 i = 1; i <= count; ++i) {
            const u64 free_page = load_at<u64>(data, i * sizeof(u64));
            if (free_page < 2 || free_page >= before) {
                return bad_at("a free list is out of order", number);
            }
            before = free_page;
            if (free_page < pages_) {
                TRY(claim(free_page));
            }
        }
        return {};
    }

    Bytes file_;
    u64 pages_ = 0;
    u64 last_page_ = 0;
    u64 txn_ = 0;
    bool free_ = false;
    std::vector<bool> used_;
};

} // namespace

Result<> check_lmdb(std::span<const std::byte> file) { return Checker(file).run(); }

} // namespace nestor::snapshot
