// A small writer of ACPI Machine Language.
//
// Terms are byte vectors that nest by value; only what the board's DSDT needs is here. The one
// delicate thing in AML is PkgLength (ACPI 6.4, 20.2.4): it counts its own bytes, so their number
// has to be found before it can be written.
#include "src/machine/aml.hpp"

#include <algorithm>

#include "src/base/check.hpp"

namespace nestor::machine::aml {
namespace {

constexpr u8 zero_op = 0x00;
constexpr u8 one_op = 0x01;
constexpr u8 name_op = 0x08;
constexpr u8 byte_prefix = 0x0a;
constexpr u8 word_prefix = 0x0b;
constexpr u8 dword_prefix = 0x0c;
constexpr u8 string_prefix = 0x0d;
constexpr u8 qword_prefix = 0x0e;
constexpr u8 scope_op = 0x10;
constexpr u8 buffer_op = 0x11;
constexpr u8 package_op = 0x12;
constexpr u8 method_op = 0x14;
constexpr u8 dual_name_prefix = 0x2e;
constexpr u8 ext_op_prefix = 0x5b;
constexpr u8 device_op = 0x82;
constexpr u8 notify_op = 0x86;

void append(Term& out, const Term& term) { out.insert(out.end(), term.begin(), term.end()); }

Term joined(std::initializer_list<Term> terms) {
    Term out;
    for (const Term& term : terms) {
        append(out, term);
    }
    return out;
}

/// PkgLength in front of `content`: one byte holds 6 bits, two to four hold 4 + 8 * (n - 1).
Term with_length(const Term& content) {
    std::size_t bytes = 1;
    while (content.size() + bytes >= (bytes == 1 ? 64u : std::size_t{1} << (8 * bytes - 4))) {
        ++bytes;
    }
    CHECK(bytes <= 4, {content.size()});
    const std::size_t length = content.size() + bytes;
    Term out;
    if (bytes == 1) {
        out.push_back(static_cast<u8>(length));
    } else {
        out.push_back(static_cast<u8>((bytes - 1) << 6 | (length & 15)));
        for (std::size_t i = 1; i < bytes; ++i) {
            out.push_back(static_cast<u8>(length >> (8 * i - 4)));
        }
    }
    append(out, content);
    return out;
}

Term name_segment(std::string_view name) {
    CHECK(!name.empty() && name.size() <= 4, {name.size()});
    Term out(name.begin(), name.end());
    out.resize(4, '_');
    return out;
}

} // namespace

Term integer(u64 value) {
    if (value <= 1) {
        return {value == 0 ? zero_op : one_op};
    }
    const auto prefixed = [value](u8 prefix, unsigned bytes) {
        Term out{prefix};
        for (unsigned i = 0; i < bytes; ++i) {
            out.push_back(static_cast<u8>(value >> (8 * i)));
        }
        return out;
    };
    if (value <= 0xff) {
        return prefixed(byte_prefix, 1);
    }
    if (value <= 0xffff) {
        return prefixed(word_prefix, 2);
    }
    return value <= 0xffffffff ? prefixed(dword_prefix, 4) : prefixed(qword_prefix, 8);
}

Term string(std::string_view text) {
    Term out(text.size() + 2);
    out.front() = string_prefix;
    std::copy(text.begin(), text.end(), out.begin() + 1);
    return out;
}

Term eisa_id(std::string_view id) {
    CHECK(id.size() == 7, {id.size()});
    const auto letter = [id](unsigned i) { return static_cast<u32>(id[i] - '@') & 31; };
    const auto digit = [id](unsigned i) {
        const char c = id[i];
        return static_cast<u32>(c <= '9' ? c - '0' : c - 'A' + 10) & 15;
    };
    const u32 big = letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | digit(3) << 12 |
                    digit(4) << 8 | digit(5) << 4 | digit(6);
    return integer(__builtin_bswap32(big));
}

Term package(std::initializer_list<Term> elements) {
    CHECK(elements.size() <= 255, {elements.size()});
    Term content{static_cast<u8>(elements.size())};
    append(content, joined(elements));
    return joined({{package_op}, with_length(content)});
}

Term name(std::string_view name, const Term& value) {
    return joined({{name_op}, name_segment(name), value});
}

Term device(std::string_view name, std::initializer_list<Term> terms) {
    return joined(
        {{ext_op_prefix, device_op}, with_length(joined({name_segment(name), joined(terms)}))});
}

Term scope(std::string_view name, const std::vector<Term>& terms) {
    Term content = joined({{'\\'}, name_segment(name)});
    for (const Term& term : terms) {
        append(content, term);
    }
    return joined({{scope_op}, with_length(content)});
}

Term method(std::string_view name, std::initializer_list<Term> terms) {
    constexpr u8 no_arguments = 0;
    return joined(
        {{method_op}, with_length(joined({name_segment(name), {no_arguments}, joined(terms)}))});
}

Term notify(std::string_view scope, std::string_view name, u8 value) {
    return joined({{notify_op, '\\', dual_name_prefix},
                   name_segment(scope),
                   name_segment(name),
                   integer(value)});
}

Term io_ports(u16 first, u8 count) {
    const u8 low = static_cast<u8>(first);
    const u8 high = static_cast<u8>(first >> 8);
    return {0x47, 0x01, low, high, low, high, 0x01, count};
}

Term irq(unsigned number) {
    CHECK(number < 16, {number});
    const u32 lines = u32{1} << number;
    return {0x22, static_cast<u8>(lines), static_cast<u8>(lines >> 8)};
}

Term resource_template(std::initializer_list<Term> resources) {
    Term bytes = joined(resources);
    bytes.push_back(0x79);
    bytes.push_back(0x00); // no checksum
    Term content = integer(bytes.size());
    append(content, bytes);
    return joined({{buffer_op}, with_length(content)});
}

} // namespace nestor::machine::aml
