// Collecting what nothing refers to. Internal to snapshot.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "snapshot/index.hpp"
#include "snapshot/mark.hpp"
#include "snapshot/pack_writer.hpp"

namespace nestor::snapshot {

class GcJob final {
public:
    GcJob(const Store::Impl& store, const GcOptions& options)
        : store_(store), layout_(store.layout), options_(options), marker_(store) {}

    [[nodiscard]] Result<GcReport> run();

private:
    using Clock = std::chrono::steady_clock;
    struct Survey {
        u32 id = 0;
        u64 bytes = 0;        ///< of the file
        u64 live = 0;         ///< of items that are referred to
        bool damaged = false; ///< left as it is
    };

    [[nodiscard]] Result<> begin();
    [[nodiscard]] Result<> let_others_write();
    [[nodiscard]] Result<> remove_manifests();
    [[nodiscard]] Result<> sweep();
    [[nodiscard]] Survey survey(u32 id);
    [[nodiscard]] Result<> remove_pack(const Survey& pack);
    [[nodiscard]] Result<> shrink(const Survey& pack);
    [[nodiscard]] Result<u64> rewrite(u32 id);
    [[nodiscard]] Result<> rewrite_record(const Pack& pack, u32 id, u32 record, PackFile& file);
    [[nodiscard]] Result<> prune_index();
    [[nodiscard]] Result<> progress(u64 bytes);

    const Store::Impl& store_;
    const Layout& layout_;
    const GcOptions& options_;
    Marker marker_;
    std::optional<WriterLock> lock_;
    Clock::time_point held_since_;
    RecordBuffer buffer_;
    RecordEncoder encoder_;
    u64 done_ = 0;
    u64 total_ = 0;
    GcReport report_;
};

} // namespace nestor::snapshot
