// Where a judge of the SIMD oracle and nestor-v1 may end differently, each with its reason.
#pragma once

#include "tests/engine/cpu/oracle/abilities.hpp"
#include "tests/engine/cpu/simd_forms.hpp"

namespace nestor::test {

/// A form that every judge does in its own way.
bool differs_on_purpose(const SimdForm& form);

/// Whether these ends may differ, the judge being of that vendor.
bool excused(Vendor vendor, const SimdForm& form, const Case& c, const Ends& ends);

} // namespace nestor::test
