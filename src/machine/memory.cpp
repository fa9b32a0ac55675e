// The guest-physical address map and the memory behind it.
//
// Owns one memfd and one anonymous mapping of state bytes per region. Nothing is touched here, so a
// machine of 64 GiB starts as fast as a small one. The 64 KiB of the test device are a region like
// any other: what they hold is saved as memory, not as a device's state.
#include "src/machine/memory.hpp"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/base/bits.hpp"
#include "src/device/test_device.hpp"

namespace nestor::machine {

std::vector<device::E820Entry> memory_map(u64 memory) {
    using Type = device::E820Entry::Type;
    std::vector<device::E820Entry> map{
        {0, ebda_start, Type::ram},
        {ebda_start, 0xa0000 - ebda_start, Type::reserved},
        {acpi_start, bios_end - acpi_start, Type::reserved},
        {bios_end, memory_below_4g(memory) - bios_end, Type::ram},
    };
    if (memory_above_4g(memory) != 0) {
        map.push_back({four_gib, memory_above_4g(memory), Type::ram});
    }
    return map;
}

std::vector<RamRange> ram(u64 memory) {
    std::vector<RamRange> ranges{
        {Gpa(0), memory_below_4g(memory)},
        {Gpa(device::TestDevice::memory_base), device::TestDevice::memory_size},
    };
    if (memory_above_4g(memory) != 0) {
        ranges.push_back({Gpa(four_gib), memory_above_4g(memory)});
    }
    return ranges;
}

Result<std::unique_ptr<Memory>> Memory::create(u64 memory) {
    if (memory < min_memory || memory > max_memory || memory % page_size != 0) {
        return fail(ErrorCode::usage,
                    "memory of " + std::to_string(memory) +
                        " bytes: it must be a multiple of 4 KiB between 2 MiB and 64 GiB");
    }
    std::unique_ptr<Memory> made(new Memory);
    for (const RamRange& range : ram(memory)) {
        TRY(made->add(range.start, range.size));
    }
    return made;
}

Result<> Memory::add(Gpa start, u64 size) {
    Fd file(memfd_create("nestor-ram", MFD_CLOEXEC));
    if (!file.valid()) {
        return fail_errno("creating guest memory", errno);
    }
    if (ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
        return fail_errno("sizing guest memory", errno);
    }
    const auto map = [this](u64 bytes, int flags, int fd) -> Result<u8*> {
        void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
        if (address == MAP_FAILED) {
            return fail_errno("mapping guest memory", errno);
        }
        mappings_.push_back({address, bytes});
        return static_cast<u8*>(address);
    };
    u8* const host = TRY(map(size, MAP_SHARED, file.get()));
    const u64 state_size = align_up(size >> page_shift, page_size);
    u8* const state = TRY(map(state_size, MAP_PRIVATE | MAP_ANONYMOUS, -1));
    files_.push_back(std::move(file));
    guest_.add_region({start, size, host, state});
    return {};
}

/// Maps one piece of a file over all state bytes, privately, again and again: eight million of them
/// cost a few system calls, and pages of them come into being as they are looked at.
Result<> Memory::fill_states(u8 state) {
    constexpr u64 piece = 64 << 10;
    const std::vector<u8> bytes(piece, state);
    const Fd file(memfd_create("nestor-states", MFD_CLOEXEC));
    if (!file.valid() || write(file.get(), bytes.data(), piece) != static_cast<ssize_t>(piece)) {
        return fail_errno("making page states", errno);
    }
    for (const cpu::GuestMemory::Region& region : guest_.regions()) {
        const u64 size = align_up(region.size >> page_shift, page_size);
        for (u64 at = 0; at < size; at += piece) {
            if (mmap(region.state + at, std::min(piece, size - at), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file.get(), 0) == MAP_FAILED) {
                return fail_errno("mapping page states", errno);
            }
        }
    }
    return {};
}

Result<> Memory::clear() {
    for (std::size_t i = 0; i < files_.size(); ++i) {
        const cpu::GuestMemory::Region& region = guest_.regions()[i];
        if (fallocate(files_[i].get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      static_cast<off_t>(region.size)) != 0) {
            return fail_errno("clearing guest memory", errno);
        }
    }
    return fill_states(cpu::page_state::clean);
}

Memory::~Memory() {
    for (const Mapping& mapping : mappings_) {
        munmap(mapping.address, mapping.size);
    }
}

} // namespace nestor::machine
