// The host side of the oracle; see harness.hpp.
#pragma once

#include "tests/engine/cpu/oracle/harness.hpp"

namespace nestor::test {

class HostSide final {
public:
    HostSide();
    ~HostSide();
    HostSide(const HostSide&) = delete;
    HostSide& operator=(const HostSide&) = delete;

    Result run(const Case& c);
    /// Sets the three data pages; the third becomes read-only.
    void fill_data(const u8* pattern);

private:
    std::vector<u8> stack_; ///< of the signal handlers
};

} // namespace nestor::test
