// Cpu's side of the oracle; see harness.hpp.
#pragma once

#include "engine/cpu/package.hpp"
#include "tests/engine/cpu/oracle/harness.hpp"

namespace nestor::test {

/// A Cpu in user mode behind 4-level paging, with the same layout as the host side. Every exception
/// is a VM exit, so no IDT is needed.
class GuestSide final {
public:
    GuestSide();
    ~GuestSide();
    GuestSide(const GuestSide&) = delete;
    GuestSide& operator=(const GuestSide&) = delete;

    Result run(const Case& c, bool stepwise);
    /// Sets the three data pages, and the code pages to int3.
    void reset(const u8* pattern);
    [[nodiscard]] const u8* data() const { return ram_ + data_frame; }
    [[nodiscard]] cpu::Cpu& cpu() { return *cpu_; }

private:
    static constexpr u64 ram_size = 0x20000;
    static constexpr u64 data_frame = 0x10000; ///< guest-physical
    static constexpr u64 code_frame = 0x18000;

    void write(u64 physical, const void* bytes, u64 size);
    void set_mode(bool mode32);
    void load(const Case& c);
    Result finish(const Case& c, cpu::Cpu::Stop stop);

    u8* ram_;
    std::vector<u8> states_;
    cpu::GuestMemory memory_;
    std::unique_ptr<cpu::Package> package_;
    std::unique_ptr<cpu::Cpu> cpu_;
    bool mode32_ = true;
};

} // namespace nestor::test
