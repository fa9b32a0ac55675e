// What a Store holds. Internal to snapshot.
#pragma once

#include <memory>

#include "snapshot/files.hpp"
#include "snapshot/load.hpp"
#include "snapshot/pack.hpp"
#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

struct Store::Impl {
    explicit Impl(std::string directory)
        : layout{std::move(directory)}, packs(std::make_shared<Packs>(layout.packs())) {}

    [[nodiscard]] Result<PlacedManifest> manifest(const Digest& digest) const;
    /// Manifest and units of a tag, verified and leased.
    [[nodiscard]] Result<std::shared_ptr<const SnapshotData>> load(std::string_view tag) const;

    /// The writer lock, when all that was deferred is on disk. Whatever writes begins with it.
    [[nodiscard]] Result<WriterLock> begin_write(std::chrono::milliseconds wait) const;
    /// The writer lock for a save that may itself be deferred.
    [[nodiscard]] Result<WriterLock> begin_deferred_write(std::chrono::milliseconds wait) const;
    /// After the host went down with deferred saves not on disk. Writer only.
    [[nodiscard]] Result<> recover() const;

    Layout layout;
    std::shared_ptr<Packs> packs;
};

} // namespace nestor::snapshot
