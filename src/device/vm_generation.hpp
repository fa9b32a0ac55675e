// The VM generation ID: tells an operating system that it runs in a copy of the machine it booted
// in.
#pragma once

#include "engine/state/board.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// Sixteen bytes at `base` that change when the machine is cloned or rolled back, and only then
/// (Microsoft, "Virtual Machine Generation ID"; Linux, drivers/virt/vmgenid.c). The board raises
/// general-purpose event `event` when they do, and the DSDT turns that into a notification.
class VmGeneration final {
public:
    using Id = decltype(state::VmGeneration::id);

    static constexpr u64 base = 0xfebff000; ///< a page of its own, outside RAM
    static constexpr unsigned event = 0;

    /// Little-endian bytes from `offset` within the page on; zero behind the ID.
    [[nodiscard]] u64 read(u32 offset, unsigned size) const {
        u64 value = 0;
        for (unsigned i = 0; i < size && offset + i < s_.id.size(); ++i) {
            value |= u64{s_.id[offset + i]} << (8 * i);
        }
        return value;
    }
    void set(const Id& id) { s_.id = id; }

    [[nodiscard]] const state::VmGeneration& save() const { return s_; }
    void load(const state::VmGeneration& from) { s_ = from; }

private:
    state::VmGeneration s_;
};

} // namespace nestor::device
