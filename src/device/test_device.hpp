// The ports of QEMU's pc-testdev (QEMU hw/misc/pc-testdev.c), for bare-metal test kernels.
#pragma once

#include "engine/state/board.hpp"
#include "src/base/bits.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// 0xe0 to 0xe3 and 0xe8 to 0xeb are four bytes that keep what is written; a write to 0xe4 would
/// flush a page of the host's mapping and does nothing here; port 0x2000 + n sets interrupt line n.
/// The device's 64 KiB at 0xff000000 are an ordinary region of guest memory.
class TestDevice final {
public:
    static constexpr u16 echo_port = 0xe0;
    static constexpr u16 flush_port = 0xe4;
    static constexpr u16 echo_byte_port = 0xe8;
    static constexpr u16 line_port = 0x2000;
    static constexpr unsigned lines = 24;
    static constexpr u64 memory_base = 0xff000000;
    static constexpr u64 memory_size = 0x10000;

    /// One of the four bytes kept.
    [[nodiscard]] u8 read(unsigned offset) const {
        return static_cast<u8>(s_.data >> (offset % 4 * 8));
    }
    void write(unsigned offset, u8 value) {
        const unsigned shift = offset % 4 * 8;
        s_.data = (s_.data & ~(u32{0xff} << shift)) | u32{value} << shift;
    }
    /// Sets line 0..23.
    void set_line(unsigned line, bool level) {
        const u32 line_bit = bit<u32>(line);
        s_.lines = level ? s_.lines | line_bit : s_.lines & ~line_bit;
    }
    /// Levels of all lines, a bit each.
    [[nodiscard]] u32 levels() const { return s_.lines; }

    void reset() { s_ = {}; }
    [[nodiscard]] const state::TestDevice& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::TestDevice& from) {
        if ((from.lines >> lines) != 0) {
            return fail(ErrorCode::corrupt, "lines: there are 24");
        }
        s_ = from;
        return {};
    }

private:
    state::TestDevice s_;
};

} // namespace nestor::device
