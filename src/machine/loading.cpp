// What all loaders share.
//
// Owns the bookkeeping of what was put where. An image may ask for any address; it gets RAM below
// 4 GiB that is neither the boot area nor the ACPI tables nor claimed already, or an error with its
// name. Sizes are 64 bits wide and compared by subtraction, so no sum can wrap.
#include "src/machine/loading.hpp"

#include "src/base/bits.hpp"
#include "src/machine/memory.hpp"

namespace nestor::machine {

Failure bad_image(const BootFile& file, const std::string& problem) {
    return fail(ErrorCode::corrupt, file.name + ": " + problem);
}

Placement::Placement(cpu::GuestMemory& guest, u64 memory)
    : guest_(guest), top_(memory_below_4g(memory)),
      claimed_{{0, 0x600}, {BootArea::start, BootArea::end}, {ebda_start, bios_end}} {}

const Placement::Range* Placement::first_overlap(u64 start, u64 end) const {
    for (const Range& range : claimed_) {
        if (start < range.end && range.start < end) {
            return &range;
        }
    }
    return nullptr;
}

Result<> Placement::claim(u64 start, u64 size, const std::string& what) {
    if (size > top_ || start > top_ - size) {
        return fail(ErrorCode::usage,
                    what + " needs " + std::to_string(size) + " bytes at " + std::to_string(start) +
                        ", but memory ends at " + std::to_string(top_),
                    "give the machine more memory (--memory)");
    }
    if (first_overlap(start, start + size) != nullptr) {
        return fail(ErrorCode::corrupt,
                    what + " wants memory at " + std::to_string(start) + " that is already taken");
    }
    if (size != 0) {
        claimed_.push_back({start, start + size});
    }
    return {};
}

Result<u64> Placement::claim_high(u64 size, u64 limit, const std::string& what) {
    u64 end = std::min(limit, top_);
    while (end >= size) {
        const u64 start = align_down(end - size, page_size);
        const Range* taken = first_overlap(start, start + size);
        if (taken == nullptr) {
            TRY(claim(start, size, what));
            return start;
        }
        end = taken->start;
    }
    return fail(ErrorCode::usage, what + " of " + std::to_string(size) + " bytes does not fit",
                "give the machine more memory (--memory)");
}

Result<u64> Placement::claim_low(u64 size, u64 from, const std::string& what) {
    u64 start = align_up(from, page_size);
    while (size <= top_ && start <= top_ - size) {
        const Range* taken = first_overlap(start, start + size);
        if (taken == nullptr) {
            TRY(claim(start, size, what));
            return start;
        }
        start = align_up(taken->end, page_size);
    }
    return fail(ErrorCode::usage, what + " of " + std::to_string(size) + " bytes does not fit",
                "give the machine more memory (--memory)");
}

Result<> Placement::write(u64 start, std::span<const u8> bytes) {
    if (guest_.write(Gpa(start), bytes) != cpu::MemoryStatus::ok) {
        return fail(ErrorCode::failed, "writing guest memory at " + std::to_string(start));
    }
    return {};
}

Result<u64> Placement::write_string(const std::string& text, const std::string& what) {
    const u64 at = next_string_;
    const u64 room = BootArea::page_tables - at;
    if (text.size() + 1 > room) {
        return fail(ErrorCode::usage, what + ": " + std::to_string(text.size()) +
                                          " characters, of which " + std::to_string(room - 1) +
                                          " fit");
    }
    TRY(write(at, std::span(reinterpret_cast<const u8*>(text.c_str()), text.size() + 1)));
    next_string_ = at + text.size() + 1;
    return at;
}

} // namespace nestor::machine
