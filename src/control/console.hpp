// The outside of a running machine: whoever types, reads and sends signals.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "src/base/result.hpp"

namespace nestor::control {

/// What arrived since the last look.
struct ConsoleInput {
    std::vector<u8> bytes; ///< for the serial port
    bool quit = false;     ///< the user ends the machine
    bool status = false;   ///< the user asks how it stands
    int signal = 0;        ///< a signal asks the program to end
};

class Console {
public:
    virtual ~Console() = default;
    /// Descriptors to be polled for input; -1 for none any more.
    [[nodiscard]] virtual int input_fd() const = 0;
    [[nodiscard]] virtual int signal_fd() const = 0;
    /// Takes what is there without waiting; `input_ready` says that input_fd() is readable.
    [[nodiscard]] virtual ConsoleInput take(bool input_ready) = 0;
    /// What the guest sent over its serial port.
    [[nodiscard]] virtual Result<> write(std::span<const u8> bytes) = 0;
    /// Writes out what write() kept back.
    [[nodiscard]] virtual Result<> flush() = 0;
    /// A line for the user, which is no output of the guest.
    virtual void tell(std::string_view line) = 0;
};

} // namespace nestor::control
