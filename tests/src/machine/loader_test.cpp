// The kernel loaders: what they leave in memory, and what they say to bad images.
#include <gtest/gtest.h>

#include "src/machine/boot.hpp"
#include "src/machine/machine.hpp"
#include "src/machine/memory.hpp"
#include "tests/src/machine/images.hpp"

namespace nestor::machine {
namespace {

constexpr u64 mib = u64{1} << 20;

class LoaderTest : public testing::Test {
protected:
    Result<Entry> load(const Image& kernel, const std::vector<Image>& modules = {},
                       const std::string& command_line = "", u64 memory = 64 * mib) {
        memory_ = *Memory::create(memory);
        BootImages images;
        images.kernel = {"KERNEL", kernel};
        for (const Image& module : modules) {
            images.modules.push_back({"MODULE", module});
        }
        images.command_line = command_line;
        return load_kernel(memory_->guest(), memory, images);
    }

    template <class T>
    T read(u64 at) {
        T value{};
        std::span bytes(reinterpret_cast<u8*>(&value), sizeof(T));
        EXPECT_EQ(memory_->guest().read(Gpa(at), bytes), cpu::MemoryStatus::ok);
        return value;
    }
    std::string read_string(u64 at) {
        std::string text;
        while (const char c = read<char>(at++)) {
            text += c;
        }
        return text;
    }
    static void expect_error(const Result<Entry>& result, ErrorCode code, std::string_view part) {
        ASSERT_FALSE(result.has_value());
        EXPECT_EQ(result.error().code, code);
        EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
    }

    std::unique_ptr<Memory> memory_;
};

TEST_F(LoaderTest, BzImageIsEnteredInLongModeWithItsParameters) {
    const Image initrd(5000, 0x42);
    const auto entry = load(make_bzimage(), {initrd}, "console=ttyS0");
    ASSERT_TRUE(entry.has_value()) << entry.error().message;
    EXPECT_TRUE(entry->long_mode);
    EXPECT_EQ(entry->rip, 0x1000200u);
    const u64 params = entry->rsi;
    EXPECT_EQ(read<u8>(0x1000000), 0x90);
    EXPECT_EQ(read<u32>(params + 0x202), 0x53726448u);
    EXPECT_EQ(read_string(read<u32>(params + 0x228)), "console=ttyS0");
    EXPECT_EQ(read<u64>(params + 0x070), acpi_start);
    EXPECT_EQ(read<u8>(params + 0x1e8), memory_map(64 * mib).size());
    EXPECT_EQ(read<u64>(params + 0x2d0 + 8), ebda_start);
    const u32 initrd_at = read<u32>(params + 0x218);
    EXPECT_EQ(read<u32>(params + 0x21c), 5000u);
    EXPECT_EQ(initrd_at % page_size, 0u);
    EXPECT_EQ(initrd_at + 2 * page_size, 64 * mib);
    EXPECT_EQ(read<u8>(initrd_at + 4999), 0x42);
}

TEST_F(LoaderTest, LongModeEntryMapsFourGibibytesOneToOne) {
    const auto entry = load(make_bzimage());
    ASSERT_TRUE(entry.has_value());
    state::Cpu cpu;
    apply_entry(*entry, cpu);
    for (const u64 address : {u64{0}, u64{0x1000200}, u64{0xfee00000}, four_gib - 1}) {
        const u64 pml4e = read<u64>(cpu.cr3 + 8 * (address >> 39));
        const u64 pdpte = read<u64>((pml4e & ~page_mask) + 8 * (address >> 30 & 511));
        const u64 pde = read<u64>((pdpte & ~page_mask) + 8 * (address >> 21 & 511));
        EXPECT_EQ(pde & 0x83, 0x83u);
        EXPECT_EQ((pde & ~u64{0x1fffff}) | (address & 0x1fffff), address);
    }
    EXPECT_EQ(cpu.efer & 0x500, 0x500u);
    EXPECT_EQ(read<u64>(cpu.gdtr.base + cpu.segments[1].selector), 0x00af9b000000ffffu);
    EXPECT_EQ(read<u64>(cpu.gdtr.base + cpu.segments[3].selector), 0x00cf93000000ffffu);
}

TEST_F(LoaderTest, InitrdStaysBelowTheKernelsLimit) {
    Image kernel = make_bzimage();
    put<u32>(kernel, 0x22c, 0x17fffff);
    const Image initrd(page_size, 1);
    const auto entry = load(kernel, {initrd});
    ASSERT_TRUE(entry.has_value());
    EXPECT_EQ(read<u32>(entry->rsi + 0x218), 0x17ff000u);
}

TEST_F(LoaderTest, InitrdLargerThanMemoryIsAUsageErrorThatNamesIt) {
    expect_error(load(make_bzimage(), {Image(80 * mib)}), ErrorCode::usage, "MODULE");
}

TEST_F(LoaderTest, KernelThatDoesNotFitIsAUsageErrorThatNamesIt) {
    expect_error(load(make_bzimage(), {}, "", 8 * mib), ErrorCode::usage, "KERNEL");
}

TEST_F(LoaderTest, CommandLineLongerThanTheKernelTakesIsRefused) {
    expect_error(load(make_bzimage(), {}, std::string(2048, 'x')), ErrorCode::usage, "2048");
}

TEST_F(LoaderTest, BzImageCutAtAnyLengthIsRefusedOrNotAKernel) {
    const Image whole = make_bzimage(256);
    for (std::size_t size = 0; size < whole.size() - 15; ++size) {
        const auto entry = load(Image(whole.begin(), whole.begin() + static_cast<long>(size)));
        ASSERT_FALSE(entry.has_value()) << size;
        ASSERT_EQ(entry.error().code, ErrorCode::corrupt) << size;
    }
}

TEST_F(LoaderTest, BzImageWithoutA64BitEntryIsRefused) {
    Image kernel = make_bzimage();
    put<u16>(kernel, 0x236, 0);
    expect_error(load(kernel), ErrorCode::corrupt, "64-bit");
}

TEST_F(LoaderTest, KernelOverTheAcpiTablesIsRefused) {
    expect_error(load(make_bzimage(0x4000, 0xe0000)), ErrorCode::corrupt, "taken");
}

TEST_F(LoaderTest, PvhKernelGetsItsStartInformation) {
    const auto entry = load(make_pvh(Image(64, 0xf4)), {Image(10, 7), Image(20, 8)}, "quiet");
    ASSERT_TRUE(entry.has_value()) << entry.error().message;
    EXPECT_FALSE(entry->long_mode);
    EXPECT_EQ(entry->rip, 0x100000u);
    const u64 info = entry->rbx;
    EXPECT_EQ(read<u32>(info), 0x336ec578u);
    EXPECT_EQ(read<u32>(info + 12), 2u);
    const u64 modules = read<u64>(info + 16);
    EXPECT_EQ(read<u64>(modules + 32 + 8), 20u);
    EXPECT_EQ(read<u8>(read<u64>(modules + 32)), 8);
    EXPECT_EQ(read_string(read<u64>(info + 24)), "quiet");
    EXPECT_EQ(read<u64>(info + 32), acpi_start);
    EXPECT_EQ(read<u32>(info + 48), memory_map(64 * mib).size());
    EXPECT_EQ(read<u64>(read<u64>(info + 40) + 8), ebda_start);
}

TEST_F(LoaderTest, ProtectedModeEntryIsFlatWithoutPaging) {
    const auto entry = load(make_pvh(Image(64, 0xf4)));
    ASSERT_TRUE(entry.has_value());
    state::Cpu cpu;
    apply_entry(*entry, cpu);
    EXPECT_EQ(cpu.cr0 & 0x80000001, 1u);
    EXPECT_EQ(cpu.segments[1].limit, 0xffffffffu);
    EXPECT_EQ(cpu.segments[1].attributes, 0xc09bu);
    EXPECT_EQ(cpu.gpr[3], entry->rbx);
}

TEST_F(LoaderTest, ElfWithoutPvhNoteIsRefused) {
    Image kernel = make_pvh(Image(64, 0xf4));
    put<u32>(kernel, sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), PT_NULL);
    expect_error(load(kernel), ErrorCode::corrupt, "PVH");
}

TEST_F(LoaderTest, ElfCutAtAnyLengthIsRefused) {
    const Image whole = make_pvh(Image(64, 0xf4));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const auto entry = load(Image(whole.begin(), whole.begin() + static_cast<long>(size)));
        ASSERT_FALSE(entry.has_value()) << size;
    }
}

TEST_F(LoaderTest, ElfSegmentOutsideMemoryIsRefused) {
    expect_error(load(make_pvh(Image(64), ~u64{0} - 10)), ErrorCode::usage, "KERNEL");
    expect_error(load(make_pvh(Image(64), 64 * mib)), ErrorCode::usage, "KERNEL");
}

TEST_F(LoaderTest, MultibootKernelGetsMemoryMapCommandLineAndModules) {
    const Image kernel = make_multiboot(Image(100, 0xf4));
    const auto entry = load(kernel, {Image(10, 7)}, "arg");
    ASSERT_TRUE(entry.has_value()) << entry.error().message;
    EXPECT_EQ(entry->rip, 0x100020u);
    EXPECT_EQ(entry->rax, 0x2badb002u);
    EXPECT_EQ(read<u8>(0x100020), 0xf4);
    const u64 info = entry->rbx;
    EXPECT_EQ(read<u32>(info) & 0x4d, 0x4du);
    EXPECT_EQ(read<u32>(info + 8), 63 * 1024u);
    EXPECT_EQ(read_string(read<u32>(info + 16)), "KERNEL arg");
    EXPECT_EQ(read<u32>(info + 20), 1u);
    const u32 module = read<u32>(info + 24);
    EXPECT_EQ(read<u32>(module), 0x101000u);
    EXPECT_EQ(read<u32>(module + 4), 0x10100au);
    EXPECT_EQ(read<u8>(0x101000), 7);
    const u32 map = read<u32>(info + 48);
    EXPECT_EQ(read<u32>(info + 44), 24 * memory_map(64 * mib).size());
    EXPECT_EQ(read<u32>(map), 20u);
    EXPECT_EQ(read<u64>(map + 12), ebda_start);
}

TEST_F(LoaderTest, MultibootElfIsLoadedByItsSegments) {
    Image code(100, 0xf4);
    put<u32>(code, 0, 0x1badb002);
    put<u32>(code, 4, 0);
    put<u32>(code, 8, 0u - 0x1badb002u);
    const auto entry = load(make_pvh(code));
    ASSERT_TRUE(entry.has_value()) << entry.error().message;
    EXPECT_EQ(entry->rax, 0x2badb002u);
    EXPECT_EQ(entry->rip, 0x100000u);
}

TEST_F(LoaderTest, MultibootWithUnknownRequirementsIsRefused) {
    Image kernel = make_multiboot(Image(100, 0xf4));
    put<u32>(kernel, 4, 0x10013);
    put<u32>(kernel, 8, 0u - 0x1badb002u - 0x10013u);
    expect_error(load(kernel), ErrorCode::corrupt, "multiboot");
}

TEST_F(LoaderTest, MultibootAddressesAreChecked) {
    for (const std::size_t field : {12u, 16u, 20u, 24u}) {
        Image kernel = make_multiboot(Image(100, 0xf4));
        put<u32>(kernel, field, field == 24 ? 0x100001 : 0xfffffff0);
        EXPECT_FALSE(load(kernel).has_value()) << field;
    }
}

TEST_F(LoaderTest, AnythingElseIsNotAKernel) {
    expect_error(load({}), ErrorCode::corrupt, "KERNEL: the file is empty");
    expect_error(load(Image(10000, 0x5a)), ErrorCode::corrupt, "not a kernel");
}

TEST(MemoryTest, MapLeavesTheHoleBelowFourGibibytes) {
    const auto map = memory_map(u64{8} << 30);
    EXPECT_EQ(map[3].start + map[3].size, hole_start);
    EXPECT_EQ(map[4].start, four_gib);
    EXPECT_EQ(map[4].size, u64{5} << 30);
}

TEST(MemoryTest, RefusesSizesThatNoMachineHas) {
    for (const u64 size : {u64{0}, mib, 64 * mib + 1, (u64{64} << 30) + page_size}) {
        const auto memory = Memory::create(size);
        ASSERT_FALSE(memory.has_value());
        EXPECT_EQ(memory.error().code, ErrorCode::usage);
    }
}

TEST(MemoryTest, SixtyFourGibibytesCostNothingUntilTouched) {
    const auto memory = Memory::create(max_memory);
    ASSERT_TRUE(memory.has_value());
    const u8 byte[] = {1};
    cpu::GuestMemory& guest = (*memory)->guest();
    EXPECT_EQ(guest.write(Gpa(four_gib + max_memory - hole_start - 1), byte),
              cpu::MemoryStatus::ok);
    EXPECT_EQ(guest.write(Gpa(hole_start), byte), cpu::MemoryStatus::no_ram);
    EXPECT_EQ(guest.write(Gpa(0xff000000), byte), cpu::MemoryStatus::ok);
}

TEST(MemoryTest, RegionsAreSortedByAddressAboveFourGibibytesToo) {
    const auto memory = *Memory::create(u64{8} << 30);
    const auto regions = memory->guest().regions();
    ASSERT_EQ(regions.size(), 3U);
    EXPECT_LT(regions[0].start, regions[1].start);
    EXPECT_LT(regions[1].start, regions[2].start);
}

TEST(MemoryTest, ClearMakesEverythingZeroAndClean) {
    const auto memory = *Memory::create(4 * mib);
    cpu::GuestMemory& guest = memory->guest();
    const u8 byte[] = {1};
    EXPECT_EQ(guest.write(Gpa(12345), byte), cpu::MemoryStatus::ok);
    guest.set_state(Gfn(7), cpu::page_state::absent);
    ASSERT_TRUE(memory->clear().has_value());
    u8 back[] = {9};
    EXPECT_EQ(guest.read(Gpa(12345), back), cpu::MemoryStatus::ok);
    EXPECT_EQ(back[0], 0);
    EXPECT_EQ(*guest.page(Gfn(7)).state, cpu::page_state::clean);
}

} // namespace
} // namespace nestor::machine
