// Is an LMDB file safe to hand to LMDB? Internal to snapshot.
#pragma once

#include <span>
#include <string>

#include "src/base/result.hpp"

namespace nestor::snapshot {

/// Walks both meta pages and every page that the newer one reaches, and compares all that LMDB 0.9
/// relies on without looking: page kinds and numbers, bounds, node offsets and sizes, order of
/// keys, depth, totals, and that no page is used twice or both used and free. Corrupt where
/// something disagrees. Reads each page once: about 2 us a page.
///
/// For files with one unnamed table and no duplicate keys, which is what the index is.
[[nodiscard]] Result<> check_lmdb(std::span<const std::byte> file);

} // namespace nestor::snapshot
