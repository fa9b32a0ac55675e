// Cpu's side of the oracle; see harness.hpp.
#pragma once

#include "engine/cpu/package.hpp"
#include "tests/engine/cpu/oracle/harness.hpp"

namespace nestor::test {

/// A Cpu in user mode behind 4-level paging, with the same layout as the host side. Every exception
/// is a VM exit, so no IDT is needed.
class GuestSide final {
public:
    /// Which of the two writable data pages are a device: the same bytes, answered from outside.
    enum class Device : u8 { none, first, second, both };
    /// What the device was asked.
    struct Asked {
        u64 address = 0; ///< linear
        unsigned size = 0;
        bool write = false;
    };

    explicit GuestSide(Device device = Device::none);
    ~GuestSide();
    GuestSide(const GuestSide&) = delete;
    GuestSide& operator=(const GuestSide&) = delete;

    Result run(const Case& c, bool stepwise);
    /// Sets the three data pages, the code pages to int3, and what a case does not state to what it
    /// was at first.
    void reset(const u8* pattern);
    [[nodiscard]] const u8* data() const { return ram_ + data_frame; }
    [[nodiscard]] cpu::Cpu& cpu() { return *cpu_; }
    /// During the last run.
    [[nodiscard]] const std::vector<Asked>& asked() const { return asked_; }

private:
    static constexpr u64 ram_size = 0x20000;
    static constexpr u64 data_frame = 0x10000; ///< guest-physical
    static constexpr u64 code_frame = 0x18000;
    static constexpr u64 device_frame = 0x100000; ///< where no RAM is

    void write(u64 physical, const void* bytes, u64 size);
    void set_mode(bool mode32);
    void load(const Case& c);
    void answer();
    Result finish(const Case& c, cpu::Cpu::Stop stop);

    u8* ram_;
    std::vector<u8> states_;
    cpu::GuestMemory memory_;
    std::unique_ptr<cpu::Package> package_;
    std::unique_ptr<cpu::Cpu> cpu_;
    std::vector<Asked> asked_;
    bool mode32_ = true;
};

} // namespace nestor::test
