// Saves that do not wait for the disk. Internal to snapshot.
//
// The file DIR/unsynced is there, durably, before the first of them writes anything: it names the
// host's start (boot id) and the first pack that may not be on disk. References of deferred saves
// are files in DIR/deferred and count while the boot id is this one's. A later writer puts all of
// it on disk and moves the references to DIR/refs. After a restart of the host every such pack and
// snapshot is verified in full first: what is whole stays, the rest goes.
#pragma once

#include "snapshot/files.hpp"
#include "snapshot/pack.hpp"

namespace nestor::snapshot {

/// Where the id of the host's start is read. Tests take another file.
extern std::string boot_id_file;

/// Whether DIR/deferred holds references of this start of the host.
[[nodiscard]] bool deferred_counts(const Layout& layout);

/// Whether the host went down with deferred saves not on disk.
[[nodiscard]] bool needs_recovery(const Layout& layout);

/// 0 where that is not known.
[[nodiscard]] u32 first_unsynced_pack(const Layout& layout);

/// Notes, durably, that packs from `first_pack` on may not be on disk. Nothing to do where that is
/// noted for earlier packs already. Failed where the host's start has no id.
[[nodiscard]] Result<> begin_deferred(const Layout& layout, u32 first_pack);

/// The manifests that references on disk name, sorted.
[[nodiscard]] Result<std::vector<Digest>> named_manifests(const Layout& layout);

/// Puts everything deferred on disk and makes it like any other snapshot. Writer only.
[[nodiscard]] Result<> settle(const Layout& layout, const Packs& packs);

} // namespace nestor::snapshot
