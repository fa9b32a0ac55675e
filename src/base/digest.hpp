// SHA-256, the one digest of the project (DESIGN.md, rules 1 and 8).
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor {

/// 256 bits of SHA-256.
struct Digest {
    std::array<u8, 32> bytes{};
    auto operator<=>(const Digest&) const = default;
};

/// Digest of one run of bytes. Costs about 0.5 ns a byte with SHA instructions.
[[nodiscard]] Digest sha256(std::span<const std::byte> data);

/// 64 lower-case hexadecimal digits.
[[nodiscard]] std::string to_hex(const Digest& digest);
/// The inverse of to_hex; anything else is a usage error.
[[nodiscard]] Result<Digest> digest_from_hex(std::string_view text);

/// SHA-256 over several runs of bytes, in order.
class Hasher final {
public:
    Hasher();
    ~Hasher();
    Hasher(Hasher&&) noexcept;
    Hasher& operator=(Hasher&&) noexcept;

    void add(std::span<const std::byte> data);
    /// Adds an integer as eight little-endian bytes.
    void add(u64 value);
    /// The digest of all that was added. The hasher is empty again afterwards.
    [[nodiscard]] Digest finish();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace nestor
