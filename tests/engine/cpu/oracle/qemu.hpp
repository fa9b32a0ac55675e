// QEMU's user emulation as the judge of 32-bit code; see qemu_driver.asm.
#pragma once

#include "tests/engine/cpu/oracle/judge.hpp"

namespace nestor::test {

/// A qemu-i386 of its own, begun again when a case ends it.
class QemuSide final : public Judge {
public:
    /// Whether qemu-i386 is installed.
    static bool present();

    QemuSide();
    ~QemuSide() override;

    /// Cases of 32-bit code only.
    Result run(const Case& c) override;
    Result try_out(const Case& c) override { return run(c); }
    void fill_data(const u8* pattern) override;
    [[nodiscard]] const u8* data() const override { return shared_; }

private:
    void start();
    void stop();
    bool exchange(); ///< one case; false when QEMU ended or hung, and has been begun again

    int file_ = -1;        ///< the shared pages
    u8* shared_ = nullptr; ///< three data pages, then the mailbox
    int child_ = -1;       ///< process id
    int socket_ = -1;      ///< its standard input and output
};

} // namespace nestor::test
