// The index: which digest lies where, in LMDB. Only writers open it; what it says is a hint that is
// compared with the pack before it is used, and a damaged or lost one is made again from the packs.
// Therefore eight bytes of a digest are key enough: where two share them, one is found. Internal to
// snapshot.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/base/digest.hpp"
#include "src/base/result.hpp"

#include "snapshot/files.hpp"
#include "snapshot/pack.hpp"

namespace nestor::snapshot {

struct IndexEntry {
    Digest digest;
    Location location;
};

class Index final {
public:
    /// Walks the file, makes a new one where it is damaged or missing, and adds what the packs have
    /// and it has not. A file that is in the state `sound` is not walked: the caller has had it
    /// open, and nobody has written to it since. The caller holds the writer lock. With Sync::no,
    /// commits may be lost and the file damaged when power is: deferred.hpp has it made anew then.
    [[nodiscard]] static Result<std::unique_ptr<Index>>
    open(const Layout& layout, const Packs& packs, Sync sync = Sync::yes,
         const std::optional<FileState>& sound = {});
    /// Removes the file; the next open makes it again.
    [[nodiscard]] static Result<> remove(const Layout& layout);
    ~Index();
    Index(const Index&) = delete;
    Index& operator=(const Index&) = delete;

    /// A view for one thread, of what was committed before it was made.
    class View final {
    public:
        ~View();
        View(const View&) = delete;
        View& operator=(const View&) = delete;
        /// Where the index says that this digest lies.
        [[nodiscard]] Result<std::optional<Location>> find(const Digest& digest) const;

    private:
        friend class Index;
        View(void* txn, unsigned table) : txn_(txn), table_(table) {}
        void* txn_; // MDB_txn
        unsigned table_;
    };
    [[nodiscard]] Result<std::unique_ptr<View>> view() const;

    /// Adds entries and notes these packs as indexed, durably, all or nothing. Entries that are
    /// there already are replaced. Sorts `entries`. No View may exist.
    [[nodiscard]] Result<> commit(std::vector<IndexEntry>& entries, const std::vector<u32>& packs);

    /// The key of a digest, as an integer of the machine.
    [[nodiscard]] static u64 key_of(const Digest& digest);

    /// Walks the file, then asks `right` about every entry. Corrupt where either finds something,
    /// fine where there is none. The caller holds the writer lock.
    [[nodiscard]] static Result<> check(const Layout& layout,
                                        const std::function<bool(u64 key, Location)>& right);

    /// Removes the entries that `keep` does not want and the packs in `gone`, all or nothing. No
    /// View may exist.
    [[nodiscard]] Result<> prune(const std::function<bool(u64 key, Location)>& keep,
                                 const std::vector<u32>& gone);
    /// Packs that are indexed, sorted.
    [[nodiscard]] Result<std::vector<u32>> indexed_packs() const;

    /// Above every pack id that was ever indexed or exists.
    [[nodiscard]] u32 next_pack_id() const { return next_pack_; }
    [[nodiscard]] u64 file_size() const;
    /// Whether every pack that is indexed is still there.
    [[nodiscard]] bool complete() const { return complete_; }

    /// Address space for the file at first; it doubles when full. Tests make it small.
    static u64 initial_map_size;

private:
    Index() = default;
    [[nodiscard]] Result<> open_environment();
    [[nodiscard]] Result<> catch_up(const Packs& packs);
    [[nodiscard]] Result<> try_commit(const std::vector<IndexEntry>& entries,
                                      const std::vector<u32>& packs, bool& full);
    [[nodiscard]] Result<> grow();
    [[nodiscard]] Result<> try_prune(const std::function<bool(u64 key, Location)>& keep,
                                     const std::vector<u32>& gone, bool& full);
    /// Calls `each` with every key and value from `first` on, until it returns false.
    [[nodiscard]] Result<>
    scan(std::span<const u8> first,
         const std::function<bool(std::span<const u8> key, std::span<const u8> value)>& each) const;

    std::string path_;
    void* env_ = nullptr; // MDB_env
    unsigned table_ = 0;
    u64 map_size_ = 0;
    u32 next_pack_ = 1;
    bool complete_ = true;
};

/// The digests of all items of a pack that others may refer to (pages and nodes).
[[nodiscard]] Result<std::vector<IndexEntry>> pack_entries(const Pack& pack, u32 id);

} // namespace nestor::snapshot
