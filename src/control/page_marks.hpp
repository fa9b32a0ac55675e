// One atomic byte for each page of a machine.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "engine/cpu/guest_memory.hpp"
#include "src/base/check.hpp"

namespace nestor::control {

/// All zero at first, and without cost until it is looked at, whatever the size of the machine.
class PageMarks final {
public:
    explicit PageMarks(std::span<const cpu::GuestMemory::Region> regions) {
        for (const cpu::GuestMemory::Region& region : regions) {
            const u64 pages = region.size >> page_shift;
            Part part{gfn_of(region.start), pages, Bytes(static_cast<u8*>(std::calloc(pages, 1)))};
            CHECK(part.bytes != nullptr, {pages});
            parts_.push_back(std::move(part));
        }
    }

    /// The page must be one of the machine's.
    [[nodiscard]] std::atomic_ref<u8> operator[](Gfn page) const {
        for (const Part& part : parts_) {
            if (page.value() - part.first.value() < part.count) {
                return std::atomic_ref(part.bytes.get()[page - part.first]);
            }
        }
        CHECK(false, {page.value()});
        __builtin_unreachable();
    }

private:
    struct Free {
        void operator()(u8* bytes) const { std::free(bytes); }
    };
    using Bytes = std::unique_ptr<u8[], Free>;
    struct Part {
        Gfn first;
        u64 count;
        Bytes bytes;
    };
    std::vector<Part> parts_;
};

} // namespace nestor::control
