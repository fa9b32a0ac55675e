// The host side of the oracle; see harness.hpp.
#pragma once

#include <csignal>

#include "tests/engine/cpu/oracle/judge.hpp"

namespace nestor::test {

/// The processor this program runs on. One at a time in a process: signal handlers and addresses.
class HostSide final : public Judge {
public:
    HostSide();
    ~HostSide() override;

    Result run(const Case& c) override;
    Result try_out(const Case& c) override;
    /// The third page becomes read-only.
    void fill_data(const u8* pattern) override;
    [[nodiscard]] const u8* data() const override;

private:
    stack_t stack_{};          ///< of the signal handler
    stack_t previous_stack_{}; ///< a sanitizer has its own
};

} // namespace nestor::test
