// Strong types for the quantities a machine is made of.
//
// An address, a frame number, an instruction count and a vCPU number are all integers, and mixing
// them up is the commonest bug of the trade, so each has a type of its own. Conversion is explicit
// in both directions, so mixing them does not compile.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace nestor {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using u128 = unsigned __int128;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using i128 = __int128;

/// An integer with a name. `Tag` makes the type distinct, `Rep` is its representation.
/// Addition and subtraction of a plain count keep the type; the difference of two is a plain Rep.
template <class Tag, class Rep>
class Strong final {
public:
    using rep = Rep;

    constexpr Strong() = default;
    constexpr explicit Strong(Rep value) : value_(value) {}

    [[nodiscard]] constexpr Rep value() const { return value_; }

    constexpr auto operator<=>(const Strong&) const = default;

    constexpr Strong& operator+=(Rep n) {
        value_ = static_cast<Rep>(value_ + n);
        return *this;
    }
    friend constexpr Strong operator+(Strong a, Rep n) { return a += n; }
    friend constexpr Strong operator-(Strong a, Rep n) {
        return Strong(static_cast<Rep>(a.value_ - n));
    }
    friend constexpr Rep operator-(Strong a, Strong b) {
        return static_cast<Rep>(a.value_ - b.value_);
    }

private:
    Rep value_ = 0;
};

/// Guest-physical address of L1, in bytes.
using Gpa = Strong<struct GpaTag, u64>;
/// Guest linear address, in bytes.
using Gva = Strong<struct GvaTag, u64>;
/// Guest frame number: a Gpa divided by page_size.
using Gfn = Strong<struct GfnTag, u64>;
/// Machine-wide position: instructions retired by all vCPUs together (DESIGN.md, rule 2).
using Icount = Strong<struct IcountTag, u64>;
/// Guest time in ticks; a function of Icount (DESIGN.md, rule 2).
using Ticks = Strong<struct TicksTag, u64>;
/// Index of a vCPU in its machine, 0-based. Not its APIC ID.
using VcpuIndex = Strong<struct VcpuIndexTag, u16>;
/// Interrupt or exception vector.
using Vector = Strong<struct VectorTag, u8>;

inline constexpr unsigned page_shift = 12;
inline constexpr u64 page_size = u64{1} << page_shift;
inline constexpr u64 page_mask = page_size - 1;

constexpr Gfn gfn_of(Gpa gpa) { return Gfn(gpa.value() >> page_shift); }
constexpr Gpa gpa_of(Gfn gfn) { return Gpa(gfn.value() << page_shift); }

} // namespace nestor

template <class Tag, class Rep>
struct std::hash<nestor::Strong<Tag, Rep>> {
    std::size_t operator()(nestor::Strong<Tag, Rep> v) const noexcept {
        return std::hash<Rep>{}(v.value());
    }
};
