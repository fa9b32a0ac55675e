// The user's end of a machine's serial port: standard input and output, and signals.
#pragma once

#include <string>

#include <termios.h>

#include "src/base/fd.hpp"
#include "src/control/console.hpp"

namespace nestor::cli {

/// There can be one at a time: signal handlers are the process's. While it lives, a terminal on
/// standard input is in raw mode, so that every key, Ctrl-C too, goes to the guest; it is as
/// before afterwards, when the process is stopped, and after a crash.
class Terminal final : public control::Console {
public:
    Terminal();
    ~Terminal() override;
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    /// Tells the escape key, where standard input is a terminal.
    void greet();

    [[nodiscard]] int input_fd() const override { return input_open_ ? 0 : -1; }
    [[nodiscard]] int signal_fd() const override { return signals_.get(); }
    [[nodiscard]] control::ConsoleInput take(bool input_ready) override;
    [[nodiscard]] Result<> write(std::span<const u8> bytes) override;
    [[nodiscard]] Result<> flush() override;
    void tell(std::string_view line) override;

private:
    void enter_raw();
    void leave_raw();
    void take_signals(control::ConsoleInput& in);
    void take_keys(std::span<const u8> keys, control::ConsoleInput& in);

    Fd signals_;
    std::string pending_;
    bool input_open_ = true;
    bool is_terminal_ = false;
    bool escaped_ = false; ///< the last key was the escape key
};

} // namespace nestor::cli
