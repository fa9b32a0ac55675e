// Digests of memory and of machines. Part of the facade snapshot.hpp.
#pragma once

#include <memory>
#include <span>

#include "snapshot/types.hpp"

namespace nestor::snapshot {

/// Page digests of a machine's memory, kept from call to call, so that a digest after a short run
/// costs what was written meanwhile. All pages count as dirty at first. Memory: 0.8 % of the
/// guest's. Not thread-safe; the regions given must have the shape of the first ones.
class MemoryDigester final {
public:
    MemoryDigester();
    ~MemoryDigester();
    MemoryDigester(MemoryDigester&&) noexcept;
    MemoryDigester& operator=(MemoryDigester&&) noexcept;

    /// The pages [first, first + count) were written. Pages outside all regions are ignored.
    void mark_dirty(Gfn first, u64 count = 1);
    void mark_all_dirty();

    /// All of memory is zero and clean, without a look at it: mark what is written from here on.
    /// For a machine that was just made or reset; of that, the next save still continues the last
    /// one. Errors as root().
    [[nodiscard]] Result<> assume_zero(std::span<const Region> regions);

    /// Root of the memory map, digesting dirty pages only, which are clean afterwards. Fails
    /// (usage) on regions that overlap or are not page aligned.
    [[nodiscard]] Result<Digest> root(std::span<const Region> regions, unsigned threads = 2);

    struct Impl;
    [[nodiscard]] Impl& impl() { return *impl_; } ///< for snapshot/*.cpp only

private:
    std::unique_ptr<Impl> impl_;
};

/// Root of the memory map of `regions`, which may come in any order.
[[nodiscard]] Result<Digest> memory_root(std::span<const Region> regions, unsigned threads = 2);

/// Digest of everything that a reset boots again; all zero bits where there are no images. Names
/// count where the guest is told them.
[[nodiscard]] Digest images_digest(std::span<const ImageEntry> images);

/// Digest of contract, units, memory root and, where there are any, images: equal for equal
/// machines, whatever the order of the units, whenever and wherever they were saved.
[[nodiscard]] Digest machine_digest(const Contract& contract, std::span<const Unit> units,
                                    const Digest& memory_root, const Digest& images = {});

/// The same from unit digests (UnitEntry::digest), of whatever kind they are: `vm digest` gives it
/// those that leave out L0's policy to get the guest digest.
[[nodiscard]] Digest machine_digest(const Contract& contract, std::span<const UnitEntry> units,
                                    const Digest& memory_root, const Digest& images = {});

} // namespace nestor::snapshot
