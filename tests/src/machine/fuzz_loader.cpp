// Any bytes as a kernel: every loader either loads them or says what is wrong.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "src/base/check.hpp"
#include "src/machine/boot.hpp"
#include "src/machine/memory.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace nestor;
    using namespace nestor::machine;
    constexpr u64 memory = u64{32} << 20;
    static const std::unique_ptr<Memory> ram = *Memory::create(memory);
    const std::span<const u8> bytes(data, size);
    BootImages images;
    images.kernel = {"fuzz", bytes};
    images.modules.push_back({"module", bytes.first(size / 2)});
    images.command_line.assign(3, 'x');
    const auto entry = load_kernel(ram->guest(), memory, images);
    if (!entry) {
        CHECK(!entry.error().message.empty());
    }
    // What a recogniser refused, the loader behind it must refuse too and survive.
    static_cast<void>(load_bzimage(ram->guest(), memory, images));
    static_cast<void>(load_multiboot(ram->guest(), memory, images));
    static_cast<void>(load_pvh(ram->guest(), memory, images));
    CHECK(ram->clear().has_value());
    return 0;
}
