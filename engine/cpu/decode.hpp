// From bytes to blocks.
#pragma once

#include <memory>

#include "engine/cpu/op.hpp"
#include "src/base/types.hpp"

namespace nestor::cpu {

struct Mode;
struct Features;

/// What the decoder reads from.
struct FetchWindow {
    const u8* bytes = nullptr;
    unsigned size = 0;       ///< bytes that may be read: to the page's end, at most
    bool more_exists = true; ///< behind them lies another page; false: the segment limit
};

/// Decodes blocks. One per vCPU; holds scratch space, so that decoding does not allocate.
class Decoder final {
public:
    Decoder();
    ~Decoder();

    enum class Status : u8 {
        ok,
        needs_more, ///< the first instruction goes on behind the window
        too_long,   ///< the first instruction is longer than 15 bytes or passes the limit: #GP(0)
    };

    /// Fills block (count, n, bytes) and ops; at most `max_ops`. With `exact` nothing is left out.
    Status decode(const FetchWindow& window, Mode mode, const Features& features, bool exact,
                  unsigned max_ops, Block& block);
    [[nodiscard]] const Op* ops() const;

private:
    struct Scratch;
    std::unique_ptr<Scratch> scratch_;
};

} // namespace nestor::cpu
