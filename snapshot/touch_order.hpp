// Files of recorded touch orders. Internal to snapshot.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "src/base/types.hpp"

namespace nestor::snapshot {

/// Largest file that is read: every page of 128 GiB.
inline constexpr std::size_t max_order_file = u64{256} << 20;

[[nodiscard]] std::vector<std::byte> encode_order(std::span<const Gfn> order);
/// Nothing where the file is damaged. The pages may be any: the reader compares them with regions.
[[nodiscard]] std::optional<std::vector<Gfn>> decode_order(std::span<const std::byte> file);

} // namespace nestor::snapshot
