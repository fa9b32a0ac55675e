// The local APIC by itself.
#include "engine/hypervisor/lapic.hpp"

#include <gtest/gtest.h>

namespace nestor::hv {
namespace {

// SDM 3A 11.5.3. The matrix of restored machines found it: it ended in a stack overflow.
TEST(Lapic, AnErrorInterruptWhoseVectorIsIllegalIsRecordedAndNotRaised) {
    Lapic lapic(0);
    state::Lapic s = lapic.state();
    s.page[0xf0 / 4] = 0x1ff; // enabled by software
    s.page[0x370 / 4] = 0;    // LVT Error: not masked, vector 0
    ASSERT_TRUE(lapic.load(s).has_value());
    lapic.accept(Vector(5), false);
    EXPECT_EQ(lapic.state().errors_pending, 1u << 6);
    EXPECT_FALSE(lapic.deliverable().has_value());
}

} // namespace
} // namespace nestor::hv
