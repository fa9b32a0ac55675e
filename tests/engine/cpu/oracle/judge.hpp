// What may judge Cpu: something else that runs the same few bytes of user code from the same state.
//
// A judge is asked at start what it can tell (abilities.hpp), and only that is asked of it.
#pragma once

#include "tests/engine/cpu/oracle/harness.hpp"

namespace nestor::test {

class Judge {
public:
    Judge() = default;
    virtual ~Judge() = default;
    Judge(const Judge&) = delete;
    Judge& operator=(const Judge&) = delete;

    /// Runs a case on memory as the last one left it. A case that did not end, or ended the judge,
    /// has `stopped` false.
    virtual Result run(const Case& c) = 0;
    /// The same for a case that might do this process harm, away from it. What it does to memory
    /// may be lost.
    virtual Result try_out(const Case& c) = 0;
    /// Sets the three data pages.
    virtual void fill_data(const u8* pattern) = 0;
    [[nodiscard]] virtual const u8* data() const = 0;
};

/// The state as an XSAVE area of 832 bytes in the standard form, and back. What the area has not in
/// use is in its initial state, and so are the bytes of its header but XSTATE_BV on the way in.
void put_xsave_image(const UserState& s, u8* image);
void take_xsave_image(UserState& s, const u8* image);

} // namespace nestor::test
