// ACPI tables and the AML writer.
#include "src/machine/acpi.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <span>
#include <string>

#include "src/base/digest.hpp"
#include "src/machine/aml.hpp"

namespace nestor::machine {
namespace {

constexpr u64 base = 0xe0000;

u8 sum(std::span<const u8> bytes) { return std::accumulate(bytes.begin(), bytes.end(), u8{0}); }

template <class T>
T at(std::span<const u8> bytes, std::size_t offset) {
    T value{};
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
    return value;
}

class AcpiTest : public testing::Test {
protected:
    std::span<const u8> table(u64 address) const {
        const std::span<const u8> rest = std::span(block_).subspan(address - base);
        return rest.first(at<u32>(rest, 4));
    }
    std::span<const u8> find(std::string_view signature) const {
        const auto xsdt = table(at<u64>(block_, 24));
        for (std::size_t i = 36; i < xsdt.size(); i += 8) {
            const auto found = table(at<u64>(xsdt, i));
            if (std::memcmp(found.data(), signature.data(), 4) == 0) {
                return found;
            }
        }
        return {};
    }

    std::vector<u8> block_ = acpi_tables(base, 4, 1);
};

TEST_F(AcpiTest, RootPointerHasBothChecksums) {
    EXPECT_EQ(std::memcmp(block_.data(), "RSD PTR ", 8), 0);
    EXPECT_EQ(sum(std::span(block_).first(20)), 0);
    EXPECT_EQ(sum(std::span(block_).first(36)), 0);
}

TEST_F(AcpiTest, EveryTableSumsToZero) {
    EXPECT_EQ(sum(table(at<u64>(block_, 24))), 0);
    for (const auto* signature : {"FACP", "APIC"}) {
        ASSERT_FALSE(find(signature).empty()) << signature;
        EXPECT_EQ(sum(find(signature)), 0) << signature;
    }
    EXPECT_EQ(sum(table(at<u64>(find("FACP"), 140))), 0); // DSDT
}

TEST_F(AcpiTest, FixedTableNamesPortsAndLegacyDevices) {
    const auto fadt = find("FACP");
    EXPECT_EQ(fadt[8], 5);
    EXPECT_EQ(at<u16>(fadt, 46), 9);      // SCI
    EXPECT_EQ(at<u32>(fadt, 56), 0x600u); // PM1a event
    EXPECT_EQ(at<u32>(fadt, 64), 0x604u); // PM1a control
    EXPECT_EQ(at<u32>(fadt, 76), 0x608u); // PM timer
    EXPECT_EQ(at<u32>(fadt, 80), 0x60cu); // general-purpose events
    EXPECT_EQ(fadt[92], 2);
    EXPECT_EQ(at<u32>(fadt, 48), 0u);      // no SMI command port
    EXPECT_EQ(at<u16>(fadt, 109) & 2, 0);  // no 8042
    EXPECT_EQ(at<u64>(fadt, 120), 0xcf9u); // reset register
    EXPECT_NE(at<u32>(fadt, 112) & 1 << 10, 0u);
    EXPECT_EQ(at<u32>(fadt, 112) & 1 << 20, 0u); // not hardware reduced
    EXPECT_EQ(at<u32>(fadt, 36) % 64, 0u);       // FACS
}

TEST_F(AcpiTest, InterruptTableListsProcessorsAndOverrides) {
    const auto madt = find("APIC");
    std::size_t processors = 0;
    std::vector<std::pair<u8, u32>> overrides;
    for (std::size_t i = 44; i < madt.size(); i += madt[i + 1]) {
        processors += madt[i] == 0;
        if (madt[i] == 2) {
            overrides.emplace_back(madt[i + 3], at<u32>(madt, i + 4));
        }
        if (madt[i] == 1) {
            EXPECT_EQ(at<u32>(madt, i + 4), 0xfec00000u);
        }
    }
    EXPECT_EQ(processors, 4u);
    EXPECT_EQ(overrides, (std::vector<std::pair<u8, u32>>{{0, 2}, {9, 9}}));
}

TEST(AcpiTablesTest, TheBytesOfTheFirstBoardAreThoseOf010) {
    const auto digest = [](u16 cpus) {
        const std::vector<u8> tables = acpi_tables(base, cpus, 1);
        return to_hex(sha256(std::as_bytes(std::span(tables))));
    };
    EXPECT_EQ(digest(1), "ae0deadf5fe129be7c10866df986a400238992591551962ab36e7528ec8df81b");
    EXPECT_EQ(digest(4), "03ca99cc03435a41841d7057446cc64d798a7261d3d8ebb8d84043ff29200d53");
    EXPECT_EQ(digest(16), "a21b6faea190fd994b9f152ebb3a7052efbb70a2c346d812df7b401ca31c173e");
}

TEST(AmlTest, IntegersTakeTheShortestForm) {
    EXPECT_EQ(aml::integer(0), (aml::Term{0}));
    EXPECT_EQ(aml::integer(1), (aml::Term{1}));
    EXPECT_EQ(aml::integer(5), (aml::Term{0x0a, 5}));
    EXPECT_EQ(aml::integer(0x1234), (aml::Term{0x0b, 0x34, 0x12}));
    EXPECT_EQ(aml::integer(0x12345678), (aml::Term{0x0c, 0x78, 0x56, 0x34, 0x12}));
    EXPECT_EQ(aml::integer(u64{1} << 32).size(), 9u);
}

TEST(AmlTest, EisaIdIsTheKnownEncoding) {
    EXPECT_EQ(aml::eisa_id("PNP0501"), (aml::Term{0x0c, 0x41, 0xd0, 0x05, 0x01}));
}

TEST(AmlTest, SleepPackageIsTheKnownEncoding) {
    EXPECT_EQ(aml::name("_S5", aml::package({aml::integer(5), aml::integer(5), aml::integer(0),
                                             aml::integer(0)})),
              (aml::Term{0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 5, 0x0a, 5, 0, 0}));
}

TEST(AmlTest, NotifyingMethodIsTheKnownEncoding) {
    EXPECT_EQ(aml::method("_E00", {aml::notify("_SB", "VGEN", 0x80)}),
              (aml::Term{0x14, 0x13, '_', 'E', '0', '0', 0,   0x86, '\\', 0x2e,
                         '_',  'S',  'B', '_', 'V', 'G', 'E', 'N',  0x0a, 0x80}));
    EXPECT_EQ(aml::string("AB"), (aml::Term{0x0d, 'A', 'B', 0}));
}

TEST(AmlTest, PackageLengthGrowsToTwoBytesAtSixtyFour) {
    const aml::Term small = aml::device("A", {aml::Term(58, 0xa3)});
    EXPECT_EQ(small[2], 63);
    const aml::Term large = aml::device("A", {aml::Term(59, 0xa3)});
    EXPECT_EQ(large[2], 0x41);
    EXPECT_EQ(large[3], 65 >> 4);
    EXPECT_EQ(large.size(), 2u + 65u);
}

TEST(AmlTest, ResourceTemplateEndsWithItsTag) {
    const aml::Term term = aml::resource_template({aml::io_ports(0x3f8, 8), aml::irq(4)});
    EXPECT_EQ(term, (aml::Term{0x11, 0x10, 0x0a, 13, 0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0,
                               0x79, 0}));
}

} // namespace
} // namespace nestor::machine
