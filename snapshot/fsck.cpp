// Reads all of a store and compares all of it with its digests. Owns: the list of what can be
// wrong. Every byte of packs, manifests and references is covered by some digest; of the index,
// what LMDB reaches is walked and each answer it gives is compared with the packs.
#include <set>

#include "snapshot/format.hpp"
#include "snapshot/index.hpp"
#include "snapshot/lmdb_check.hpp"
#include "snapshot/memory_map.hpp"
#include "snapshot/store.hpp"

namespace nestor::snapshot {

namespace {

class Fsck final {
public:
    Fsck(const Store::Impl& store, const FsckOptions& options)
        : layout_(store.layout), store_(store), options_(options) {}

    Result<FsckReport> run() {
        const WriterLock lock = TRY(WriterLock::take(layout_, options_.wait_for_writer));
        const auto ids = TRY(store_.packs->ids());
        u64 done = 0;
        for (const u32 id : ids) {
            check_pack(id);
            if (options_.progress && !options_.progress(++done, ids.size())) {
                return fail(ErrorCode::failed, "interrupted");
            }
        }
        check_index();
        for (const std::string& name : TRY(list_directory(layout_.manifests()))) {
            check_manifest(name);
        }
        for (const std::string& tag : TRY(list_directory(layout_.refs()))) {
            check_snapshot(tag);
        }
        return std::move(report_);
    }

private:
    void found(std::string where, const Error& error) {
        report_.findings.push_back({std::move(where), error.message, {}, false});
    }

    Result<> check_record(const Pack& pack, u32 record) {
        TRY(pack.read_sealed(record, buffer_));
        MapNode node;
        for (u32 slot = 0; slot < buffer_.count(); ++slot) {
            const Digest& digest = buffer_.items()[slot].digest;
            const auto bytes = buffer_.item(slot);
            if (buffer_.kind() == RecordKind::nodes) {
                const u64 level = bytes.size() < 16 ? 0 : load_at<u64>(bytes, sizeof(u64));
                TRY(decode_node(bytes, digest, static_cast<unsigned>(level), fanout, node));
            } else if (sha256(bytes) != digest) {
                return fail(ErrorCode::corrupt, "record " + std::to_string(record) + " item " +
                                                    std::to_string(slot) +
                                                    " does not have its digest");
            }
        }
        return {};
    }

    void check_pack(u32 id) {
        // Not the open pack of the store's cache: its directory was read some time ago.
        const auto pack = Pack::open(store_.packs->path(id), id);
        if (!pack) {
            found(store_.packs->path(id), pack.error());
            return;
        }
        for (u32 record = 0; record < (*pack)->records(); ++record) {
            ++report_.records;
            const Result<> checked = check_record(**pack, record);
            if (!checked) {
                found(store_.packs->path(id), checked.error());
            }
        }
        const auto entries = pack_entries(**pack, id);
        if (entries) {
            for (const IndexEntry& entry : *entries) {
                items_.emplace(entry.location.value(), entry.digest);
            }
        }
    }

    void check_index() {
        const Result<> checked = Index::check(layout_, [&](const Digest& digest, u64 location) {
            const auto item = items_.find(location);
            return item != items_.end() && item->second == digest;
        });
        if (!checked) {
            found(layout_.index(), checked.error());
        }
    }

    void check_manifest(const std::string& name) {
        const auto digest = digest_from_hex(name);
        if (!digest) {
            found(layout_.manifests() + "/" + name,
                  {ErrorCode::corrupt, "this file does not belong here", ""});
            return;
        }
        const auto manifest = store_.manifest(*digest);
        if (!manifest) {
            found(layout_.manifests() + "/" + name, manifest.error());
        }
    }

    void check_snapshot(const std::string& tag) {
        ++report_.snapshots;
        const Result<> verified = verify(tag);
        if (!verified) {
            found("snapshot " + tag, verified.error());
            report_.damaged_tags.push_back(tag);
        }
    }

    Result<> verify(const std::string& tag) { return verify_memory(*TRY(store_.load(tag)), 2, {}); }

    const Layout& layout_;
    const Store::Impl& store_;
    const FsckOptions& options_;
    FsckReport report_;
    RecordBuffer buffer_;
    std::map<u64, Digest> items_;
};

} // namespace

Result<FsckReport> Store::fsck(const FsckOptions& options) const {
    return Fsck(*impl_, options).run();
}

} // namespace nestor::snapshot
