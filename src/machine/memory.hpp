// The guest-physical address map and the memory behind it.
#pragma once

#include <memory>
#include <vector>

#include "engine/cpu/guest_memory.hpp"
#include "src/base/fd.hpp"
#include "src/base/result.hpp"
#include "src/device/fw_cfg.hpp"
#include "src/machine/units.hpp"

namespace nestor::machine {

/// RAM starts at 0; what does not fit below the hole continues at 4 GiB.
inline constexpr u64 hole_start = u64{3} << 30;
inline constexpr u64 four_gib = u64{4} << 30;
inline constexpr u64 min_memory = u64{2} << 20;

/// Conventional memory ends here; the extended BIOS data area follows.
inline constexpr u64 ebda_start = 0x9fc00;
/// ACPI tables; the RSDP comes first, where operating systems look for it (ACPI 6.4, 5.2.5.1).
inline constexpr u64 acpi_start = 0xe0000;
inline constexpr u64 bios_end = 0x100000;

constexpr u64 memory_below_4g(u64 memory) { return memory < hole_start ? memory : hole_start; }
constexpr u64 memory_above_4g(u64 memory) { return memory - memory_below_4g(memory); }

/// RAM of a machine with that much of it, and the test device's, sorted by address.
[[nodiscard]] std::vector<RamRange> ram(u64 memory);
/// What E820 and its relatives tell of a machine with that much RAM, sorted by address.
[[nodiscard]] std::vector<device::E820Entry> memory_map(u64 memory);

/// The backing of all regions, a memfd each, zero until touched, and the page state bytes. Costs
/// address space, not memory.
class Memory final {
public:
    /// `memory` must be a multiple of 4 KiB between min_memory and max_memory.
    [[nodiscard]] static Result<std::unique_ptr<Memory>> create(u64 memory);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    /// Makes every byte zero and every page `clean`, whatever its state was.
    [[nodiscard]] Result<> clear();

    /// Gives every page that state. The cost does not depend on the size.
    [[nodiscard]] Result<> fill_states(u8 state);

    [[nodiscard]] cpu::GuestMemory& guest() { return guest_; }
    [[nodiscard]] const cpu::GuestMemory& guest() const { return guest_; }

private:
    Memory() = default;
    [[nodiscard]] Result<> add(Gpa start, u64 size);

    struct Mapping {
        void* address = nullptr;
        u64 size = 0;
    };

    std::vector<Mapping> mappings_;
    std::vector<Fd> files_;
    cpu::GuestMemory guest_;
};

} // namespace nestor::machine
